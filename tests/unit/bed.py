"""A session whose commands work on the fakes: the real store, records, ports and ladder above them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab import emulators, engines
from lab.config import Settings
from lab.core import deadline
from lab.core.errors import UsageError
from lab.core.steps import Steps
from lab.guest import docker
from lab.host import facts, packages
from lab.host.facts import HostFacts, parse_cpuinfo
from lab.images import registry
from lab.images.published import PublishedImage
from lab.ladder.rungs import vm
from lab.records.labs import Instance, Lab
from lab.workflow import build, preflight, selection, workbench
from lab.workflow.session import Reply, Session
from tests import schema
from tests.unit.fakes import FakeAndroid, FakeEmulator, FakeEngine, FakeGuest, World

IMAGE = "debian-13-fake"


def host(cpu: str = "A CPU", memory: int = 1 << 36, signature: str | None = "") -> HostFacts:
    cpuinfo = replace(parse_cpuinfo(f"model name : {cpu}\nflags : svm\n"), signature=signature)
    return HostFacts("Debian", "12", "6.1", "x86_64", cpuinfo, 2, memory, memory, "boot-of-l0")


def _emulator(world: World, kind: str, place: emulators.Place) -> FakeEmulator:
    made = {"canary": FakeEmulator, "docker-android": FakeAndroid}
    if kind not in made:
        raise UsageError(f"there is no emulator {kind!r}")
    return made[kind](world, instance=place.instance, index=place.index)


class Bed:
    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.world = folder, patch, World()
        world = self.world

        def logged_in(make: Callable[[], Any], _deadline: object, alive: Callable[[], str | None]) -> Any:
            assert alive() is None
            return make()

        patch.setattr(engines, "engine", lambda *_: FakeEngine(world))
        patch.setattr(emulators, "emulator", lambda kind, place: _emulator(world, kind, place))
        patch.setattr(workbench, "Guest", lambda **more: FakeGuest(world, **more))
        for module in (vm, build):
            patch.setattr(module, "wait_for_ssh", logged_in)
        patch.setattr(docker, "ensure", lambda *_: world.did("docker"))
        patch.setattr(docker, "answers", lambda _guest: True)
        patch.setattr(docker, "facts", lambda _guest: {"version": "26.1", "storage": "overlay2"})
        patch.setattr(facts, "read", host)
        patch.setattr(preflight, "_DISK_BYTES", 1)
        patch.setattr(selection, "guest_image", lambda *_: (IMAGE, "cached"))
        patch.setattr(PublishedImage, "reachable", lambda *_: None)
        patch.setattr(registry, "reachable", lambda *_: "its name does not resolve")
        patch.setattr(Session, "need", lambda *_: None)
        patch.setattr(packages, "impossible", lambda _purposes: [])  # as on Debian
        patch.setattr(deadline, "pause", lambda _seconds: deadline.check_cancelled())

    def session(self, **flags: Any) -> Session:
        """A command's session; `flags` are settings given by flag, `vm` and `ports` whole sections.

        As for the task `lab.up`, `emulator` is a kind.
        """
        origins = {key: f"flag --{key}" for key in flags}
        if isinstance(kind := flags.get("emulator"), str):
            flags = flags | {"emulator": {"kind": kind}}
            origins["emulator.kind"] = origins.pop("emulator")
        settings = Settings(
            **(
                {"engine": "qemu", "state_dir": self.folder / "state", "cache_dir": self.folder / "cache"}
                | flags
            )
        )
        return Session(settings.with_origins(origins), Steps(), False)

    def lab(self, name: str = "default") -> Lab:
        return self.session().store.get(name)

    def main(self) -> Instance:
        """What the record of the lab says of its main emulator."""
        return self.lab().record().instances["main"]

    def runs(self, name: str = "default") -> list[Path]:
        return sorted((self.session().store.evidence_folder / name).iterdir())

    @contextlib.contextmanager
    def untouched(self, *but: str) -> Iterator[None]:
        """Nothing is done to the world in here, but for looking and what `but` names."""
        before = len(self.world.calls)
        yield
        assert set(self.world.calls[before:]) <= {"booted", "prove", *but}


def checked(reply: Reply) -> dict[str, Any]:
    """The reply's document, found to keep to its schema."""
    schema.validate(reply.document)
    return reply.document


def rungs(document: dict[str, Any]) -> dict[str, str]:
    """Rung to status; `inconclusive` for a failed rung that settles nothing."""
    return {
        row["rung"]: "inconclusive" if row["inconclusive"] else row["status"] for row in document["rungs"]
    }


__all__ = ["IMAGE", "Bed", "checked", "host", "rungs"]
