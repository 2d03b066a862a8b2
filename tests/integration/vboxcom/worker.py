"""The engine's worker over a stand-in: its requests and answers are those of the real process."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.engines.virtualbox.worker.__main__ import serve
from lab.engines.virtualbox.worker.api import Api
from lab.engines.virtualbox.worker.faults import finish
from tests.integration.vboxcom.machine import Record
from tests.integration.vboxcom.world import World

SHARED = ("base.vdi", "seed.iso")


class Fault(Exception):  # noqa: N818 - the protocol's own word
    """The answer was a fault."""

    def __init__(self, kind: str, what: str, tail: str, hint: str) -> None:
        super().__init__(f"{kind}: {what} ({tail})")
        self.kind, self.what, self.tail, self.hint = kind, what, tail, hint


class Worker:
    """One lab's worker: `folder` is the lab's own, `shared` has the base image and the seed."""

    def __init__(self, world: World, folder: Path, shared: Path) -> None:
        self.world = world
        self.folder = folder
        self.shared = shared
        self.uuid = str(uuid.uuid4())
        self.asked: set[str] = set()
        self._api: Api | None = None
        folder.mkdir()
        shared.mkdir(exist_ok=True)
        for name in SHARED:
            (shared / name).write_text(name)

    def ask(self, operation: str, **words: Any) -> Any:
        """The result; Fault when it is one."""
        self.asked.add(operation)
        answers = io.StringIO()
        serve(
            io.StringIO(json.dumps({"id": 7, "op": operation, "args": words}) + "\n"), answers, self._connect
        )
        answer = json.loads(answers.getvalue())
        assert answer["id"] == 7
        if "fault" in answer:
            raise Fault(**answer["fault"])
        return answer["result"]

    def _connect(self) -> Api:
        self._api = self._api or Api()
        return self._api

    def of(self, operation: str, **words: Any) -> Any:
        """An operation on the lab's machine."""
        return self.ask(operation, uuid=self.uuid, **words)

    def spec(self, **changes: Any) -> dict[str, Any]:
        return {
            "uuid": self.uuid,
            "name": f"lab-test-{self.uuid[:8]}",
            "folder": str(self.folder),
            "settings": str(self.folder / "lab.vbox"),
            "disk": str(self.folder / "disk.vdi"),
            "console": str(self.folder / "console.log"),
            "base": str(self.shared / "base.vdi"),
            "seed": str(self.shared / "seed.iso"),
            "cpus": 2,
            "memory_mib": 2048,
            "paravirt": "kvm",
            "nested": True,
            "execution_engine": "default",
            "extra_data": [],
        } | changes

    def create(self, **changes: Any) -> Record:
        self.ask("create", spec=self.spec(**changes))
        return self.record

    def launch(self, *forwards: tuple[str, int, int]) -> Record:
        wanted = [dict(zip(("name", "host_port", "guest_port"), item, strict=True)) for item in forwards]
        self.of("launch", forwards=wanted)
        return self.record

    def pause(self) -> None:
        """As the user does it with a tool of VirtualBox's."""
        with self._session() as session:
            session.console.pause()

    def delete_snapshot(self, identity: str) -> None:
        """As the user does it with a tool of VirtualBox's."""
        with self._session() as session:
            finish(session.machine.delete_snapshot(identity), "deleting the snapshot")

    @contextlib.contextmanager
    def _session(self) -> Iterator[Any]:
        api = self._connect()
        with api.locked(api.known(self.uuid), "shared") as session:
            yield session

    def destroy(self) -> None:
        """The worker removes the disks, and its caller, here, what else is in the folder."""
        shared = {"base": str(self.shared / "base.vdi"), "seed": str(self.shared / "seed.iso")}
        self.of("destroy", folder=str(self.folder), **shared)
        assert not list(self.folder.glob("**/*.vdi"))
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    @property
    def record(self) -> Record:
        return self.world.machine(self.uuid)

    @property
    def state(self) -> str:
        return str(self.of("look")["state"])

    def misfits(self) -> list[str]:
        """What did not fit the version: nothing, for a worker that is right."""
        strange = [
            f"{interface} has no {name}" for interface, name in self.absent() if name not in self.probes()
        ]
        return self.world.log.misfits + strange

    def absent(self) -> set[tuple[str, str]]:
        """What was looked for in vain, arrays apart: pyvbox tries `x` first, and then `getX`."""
        members = self.world.table.members
        return {
            (interface, name)
            for interface, name in self.world.log.absent
            if f"get{name[0].upper()}{name[1:]}" not in members(interface)
        }

    def probes(self) -> set[str]:
        """Where the worker may look in vain, for it asks what this version has."""
        version = self.world.table.version
        newer = {
            "audioSettings": "7.0",
            "localhostReachable": "7.0",
            "platform": "7.1",
            "firmwareSettings": "7.1",
            "VMExecutionEngine": "7.1",
        }
        return {name for name, since in newer.items() if version < since}
