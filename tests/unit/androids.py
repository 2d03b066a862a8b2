"""A docker-android for tests, and an L1 that answers what its scripts ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from lab.core.journal import Journal
from lab.core.steps import Event, Steps
from lab.emulators.docker_android import (
    DockerAndroid,
    looking,
)
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.options import Place
from lab.emulators.protocol import Reach
from lab.guest.ssh import Guest, Result
from lab.guest.terms import OWN
from tests.unit.docker_android_looks import NONCE

REFERENCE = "budtmo/docker-android:emulator_14.0"
Answer = str | Callable[[str | bytes], str]


class FakeGuest:
    """Answers by the command's first words; keeps what was asked, and what was put on standard input."""

    terms = OWN

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer] = {"printenv": "10.0.2.2 4711 10.0.2.15 22\n", **answers}
        self.asked: list[str] = []
        self.stdin: list[str | bytes] = []

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "", **_: Any) -> Result:
        line = " ".join(argv)
        self.asked.append(line)
        self.stdin.append(stdin)
        if line.startswith("sh -c mark="):  # many commands in one (lab.guest.gather)
            mark = "".join(re.findall(r"mark=(\w+); mark=\$\{mark\}(\w+)", line)[0])
            return Result(list(argv), f"{mark}\nsaid\n" * line.count("\necho $mark; cat"), "", 0, 0.0)
        found = next((answer for start, answer in self.answers.items() if line.startswith(start)), "")
        text = found if isinstance(found, str) else found(stdin)
        if text.startswith("Error: "):
            return Result(list(argv), "[]\n", text, 1, 0.0)
        return Result(list(argv), text, "", 0, 0.0)

    def read(self, _: str) -> str:
        return "MemTotal: 4000000 kB\nMemAvailable: 1024000 kB\n"

    def telling(self, *told: looking.ContainerLook) -> FakeGuest:
        """What its looks see, one after the other; the last one for ever."""
        left = list(told)
        self.answers["python3"] = lambda _: (left.pop(0) if len(left) > 1 else left[0]).model_dump_json()
        return self


def made(tmp_path: Path, archive: Path | None = None, **options: Any) -> DockerAndroid:
    place = Place(
        lab_uuid="u-1",
        cache=tmp_path / "cache",
        secrets=tmp_path / "keys",
        state=tmp_path / "state",
        journal=Journal(tmp_path / "journal"),
    )
    (tmp_path / "state").mkdir(exist_ok=True)
    return DockerAndroid(place, AndroidOptions(archive=archive, **options))


def started(emulator: DockerAndroid) -> tuple[FakeGuest, list[str]]:
    guest, notes = FakeGuest(), []

    def hear(event: Event) -> None:
        notes.append(event.text)

    with Steps(hear).step("start") as step:
        emulator.start(cast(Guest, guest), step, nonce=NONCE)
    return guest, notes


def reach(guest: FakeGuest) -> Reach:
    return Reach(cast(Guest, guest), {"adb": "127.0.0.1:1", "novnc": "127.0.0.1:2"}, Path("/nowhere"), NONCE)
