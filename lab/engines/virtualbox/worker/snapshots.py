"""Snapshots, by name. VirtualBox itself accepts a name twice; the other side refuses that."""

from __future__ import annotations

from typing import Any

from lab.engines.virtualbox.worker import power
from lab.engines.virtualbox.worker.api import Api
from lab.engines.virtualbox.worker.faults import FaultError, finish


def snapshots(api: Api, uuid: str) -> list[dict[str, Any]]:
    """Name, id, time (seconds since 1970, UTC) and whether it holds memory, oldest first."""
    machine = api.known(uuid)
    if int(machine._i.snapshotCount) == 0:
        return []
    listed, todo = [], [machine._i.findSnapshot("")]  # the empty name is the root
    while todo:
        raw = todo.pop()
        listed.append(
            {
                "name": str(raw.name),
                "id": str(raw.id),
                "created": int(raw.timeStamp) / 1000,
                "live": bool(raw.online),
            }
        )
        todo += [child._i for child in api.library.ISnapshot(raw).children]
    return sorted(listed, key=lambda item: float(item["created"]))


def take(api: Api, uuid: str, name: str) -> None:
    """Disk, and memory too when it runs; a running VM stands still meanwhile. No-op when there is one."""
    machine = api.known(uuid)
    if any(item["name"] == name for item in snapshots(api, uuid)):
        return
    kind = "write" if api.state(machine) in power.OFF else "shared"
    with api.locked(machine, kind) as session:
        progress, _ = session.machine.take_snapshot(name, "", True)
        finish(progress, f"taking the snapshot {name}")


def restore(api: Api, uuid: str, identity: str) -> None:
    """Make a VM that is off what it was: then it is off, or has saved memory if the snapshot had."""
    machine = api.known(uuid)
    with api.locked(machine, "write") as session:
        finish(session.machine.restore_snapshot(_find(session.machine, identity)), "restoring the snapshot")


def _find(machine: Any, identity: str) -> Any:
    snapshot = machine.find_snapshot(identity)
    if snapshot._i is None:
        raise FaultError("missing", f"there is no snapshot {identity}")
    return snapshot
