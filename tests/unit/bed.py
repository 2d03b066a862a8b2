"""A session whose commands work on the fakes: the real store, records, ports and ladder above them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab import emulators
from lab.config import Settings
from lab.config.model import GUEST_IMAGES
from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.core.steps import Steps
from lab.emulators import Place
from lab.emulators.docker_android.kind import DockerAndroidKind
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.kind import EmulatorKind
from lab.host.cpu import parse_cpuinfo
from lab.host.facts import HostFacts
from lab.images.canary_recipe import EMULATED_ARM
from lab.images.published import PublishedImage
from lab.records.labs import Lab
from lab.records.record import Instance
from lab.workflow import guest_image
from lab.workflow.factories import Factories
from lab.workflow.session import Reply, Session
from tests import schema
from tests.unit.fakes import FakeAndroid, FakeEmulator, FakeEngine, FakeGuest, World

IMAGE = "debian-13-fake"


def host(cpu: str = "A CPU", memory: int = 1 << 36, signature: str | None = "") -> HostFacts:
    cpuinfo = replace(parse_cpuinfo(f"model name : {cpu}\nflags : svm\n"), signature=signature)
    return HostFacts("Debian", "12", "6.1", "x86_64", cpuinfo, 2, memory, memory, "boot-of-l0")


def _emulator(world: World, kind: str, place: Place) -> FakeEmulator:
    made = {"canary": FakeEmulator, "docker-android": FakeAndroid}
    if kind not in made:
        raise UsageError(f"there is no emulator {kind!r}")
    options = AndroidOptions.of(place.settings)
    return made[kind](world, instance=place.instance, index=place.index, options=options)


def _log_in(make: Callable[[], Any], _deadline: Deadline, alive: Callable[[], str | None]) -> Any:
    assert alive() is None
    return make()


@dataclass(frozen=True)
class Published:
    """The published images, on a server that answers or, for a reason, does not."""

    unreachable: str | None = None

    def __call__(self, name: str, engine: str) -> PublishedImage:
        image = guest_image.published(name, engine)
        why = self.unreachable

        class Served(PublishedImage):
            def reachable(self, timeout: float = 10.0) -> str | None:
                return why

        return Served(GUEST_IMAGES / f"{name}.toml", image.format)


class Bed:
    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.world = folder, patch, World()
        world = self.world
        self.registry_unreachable: Callable[..., str | None] = lambda *_: "its name does not resolve"
        self.factories = Factories(
            engine=lambda *_: FakeEngine(world),
            emulator=lambda kind, place: _emulator(world, kind, place),
            arm_canary=lambda place: FakeEmulator(world, EMULATED_ARM.name, instance=place.instance),
            guest=lambda **more: FakeGuest(world, **more),
            log_in=_log_in,
            host=host,
            install=lambda *_, **__: None,
            impossible=lambda _purposes: [],  # as on Debian
            require_space=lambda *_: None,
            published=Published(),
            emulator_kind=self._kind,
            guest_image=lambda *_: (IMAGE, "cached"),
        )

    def use(self, **factories: Any) -> None:
        """Replace some of the factories of the sessions from now on."""
        self.factories = replace(self.factories, **factories)

    def _kind(self, name: str, settings: Settings) -> EmulatorKind:
        if name != "docker-android":
            return emulators.kind(name, settings)
        return DockerAndroidKind(settings, lambda *asked: self.registry_unreachable(*asked))

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
        return Session(settings.with_origins(origins), Steps(), False, factories=self.factories)

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
