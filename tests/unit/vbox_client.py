"""A stand-in for the client of VirtualBox's worker: one VM whose states are VirtualBox's own."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.core.journal import Journal
from lab.engines.options import VirtualBoxOptions
from lab.engines.protocol import MachineSpec
from lab.engines.virtualbox.machine import VirtualBoxMachine
from lab.engines.virtualbox.transport import MissingError

UUID = "0c9d1c6e-3d7b-4f2b-9f43-2f7a4b1f0001"
OFF = ("PoweredOff", "Saved", "Aborted", "AbortedSaved")


class FakeClient:
    """`calls` is what was asked; tests change the rest as VirtualBox, or somebody else, would."""

    def __init__(self) -> None:
        self.state = ""
        self.passing: list[str] = []
        """What `look` shows first: states of passage."""
        self.polite = True
        self.gone_by_itself = False
        """There is no plug to pull any more."""
        self.stays = False
        """It is still there after it was destroyed."""
        self.accessible = True
        self.broken: dict[str, BaseException] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.deadlines: dict[str, float] = {}
        self.settings: dict[str, str] = {
            "cpus": "2",
            "memory_mib": "2048",
            "nested": "on",
            "execution_engine": "",
        }
        self.redirects: list[dict[str, Any]] = []
        self.listed: list[dict[str, Any]] = []
        self.spec: dict[str, Any] = {}

    @property
    def asked(self) -> list[str]:
        return [name for name, _ in self.calls if name != "look"]

    def call(
        self,
        operation: str,
        deadline: Deadline | None = None,
        **words: Any,
    ) -> Any:
        self.calls.append((operation, dict(words)))
        if deadline is not None:
            self.deadlines[operation] = deadline.seconds
        if operation in self.broken:
            raise self.broken[operation]
        if not self.state and operation not in ("look", "create", "destroy"):
            raise MissingError("VirtualBox knows no such machine")
        words.pop("uuid", None)
        return getattr(self, f"_{operation}")(**words)

    def _must_be(self, *states: str) -> None:
        if self.state not in states:
            raise LabError(f"Invalid machine state: {self.state}")

    def _look(self) -> dict[str, Any]:
        shown = self.passing.pop(0) if self.passing else self.state
        file = self.spec.get("settings", "") if self.state else ""
        return {"state": shown, "accessible": self.accessible, "settings": file, "holder": 0}

    def _create(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        if not self.state:
            self.state = "PoweredOff"
        self._must_be("PoweredOff", "Aborted")
        Path(spec["settings"]).write_text("<VirtualBox/>")
        Path(spec["disk"]).touch()

    def _destroy(self, folder: str, base: str, seed: str) -> None:
        if not self.stays:
            self.state, self.listed = "", []

    def _launch(self, forwards: list[dict[str, Any]]) -> None:
        self._must_be(*OFF)
        self.redirects = [{**item, "address": "127.0.0.1"} for item in forwards]
        self.state = "Running"

    def _forwards(self) -> list[dict[str, Any]]:
        return self.redirects

    def _forward(self, item: dict[str, Any]) -> None:
        self._must_be("Running", "Paused")
        self._unforward(item["name"])
        self.redirects.append({**item, "address": "127.0.0.1"})

    def _unforward(self, name: str) -> None:
        self.redirects = [item for item in self.redirects if item["name"] != name]

    def _press(self) -> None:
        self._must_be("Running", "Paused")
        self.state = "PoweredOff" if self.polite else "Running"

    def _power_off(self) -> bool:
        if self.gone_by_itself or self.state in OFF:
            return False
        self.state = "PoweredOff"
        return True

    def _resume(self) -> None:
        self._must_be("Paused")
        self.state = "Running"

    def _save(self) -> None:
        self._must_be("Running", "Paused")
        self.state = "Saved"

    def _settings(self) -> dict[str, str]:
        return dict(self.settings)

    def _screenshot(self, target: str) -> None:
        self._must_be("Running", "Paused")
        Path(target).write_bytes(b"PNG")

    def _snapshots(self) -> list[dict[str, Any]]:
        return list(self.listed)

    def _take(self, name: str) -> None:
        assert name not in [item["name"] for item in self.listed], "VirtualBox itself would take it"
        self._must_be("PoweredOff", "Aborted", "Running", "Paused")
        live = self.state in ("Running", "Paused")
        made = 1_700_000_000.5 + len(self.listed)
        self.listed.append({"name": name, "id": str(uuid.uuid4()), "created": made, "live": live})

    def _restore(self, identity: str) -> None:
        self._must_be(*OFF)
        (found,) = (item for item in self.listed if item["id"] == identity)
        self.state = "Saved" if found["live"] else "PoweredOff"


def machine_in(
    folder: Path, box: FakeClient, more: dict[str, Any] | None = None, **options: Any
) -> VirtualBoxMachine:
    """A machine on that VirtualBox; `more` are its other seams, `options` the engine's."""
    spec = MachineSpec(
        uuid=UUID,
        name="demo",
        folder=folder / "vm",
        base_disk=folder / "image/disk.qcow2",
        seed=folder / "seed.iso",
        cpus=2,
        memory_mib=2048,
        disk_gib=12,
    )
    journal = Journal(folder / "journal.jsonl")
    return VirtualBoxMachine(
        spec,
        journal,
        lambda: box,
        VirtualBoxOptions(**options),
        folder / "cache",
        base_disk=converted,
        **(more or {}),
    )


def converted(base: Path, gib: int, cache: Path, _convert: object) -> Path:
    """basedisk.ensure without the work."""
    return cache / f"{base.parent.name}-{gib}g.vdi"
