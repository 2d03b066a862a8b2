"""A rehearsal whose emulated PC is a script: its evidence is kept and nothing else, however it ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.config.loading import PROJECT
from lab.core import lock
from lab.core.deadline import cancelled
from lab.core.errors import (
    BlockedError,
    CommandError,
    DeadlineError,
    InconclusiveError,
    InterruptedByUser,
    LabError,
)
from lab.core.steps import Event, Steps
from lab.images import uses
from lab.records.evidence import Run
from lab.rehearsal import course, place, rehearsal
from lab.rehearsal.image import SystemImage
from lab.rehearsal.pc import PcFacts
from lab.rehearsal.rehearsal import Rehearsal, Rehearsed
from lab.rehearsal.workdisk import Job
from tests.unit.fakepc import NAME, FakePc, FakePcs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="an emulated PC is for Linux")

JOB = Job((("lab.doctor", "--json"), ("lab.up", "--json")), {"LAB_INSTALL": "never"})


class Desk:
    """All that a rehearsal needs; `events` is what was shown of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pcs = folder, FakePcs()
        self.workshop = self.pcs.workshop
        self.root, self.events = folder / "state" / "rehearsals", list[Event]()
        self.run = Run(folder / "state" / "evidence", "rehearsal", "rehearse")
        system = folder / "cache" / "images" / "rehearsal-1"
        system.mkdir(parents=True)
        for name in ("disk.raw", "vmlinuz", "initramfs"):
            (system / name).write_text(name)
        self.system = SystemImage(system)

    def plan(self, seconds: float = 30.0) -> Rehearsal:
        guest = self.system.folder.with_name("debian-13-1")
        return Rehearsal(
            cpu="haswell",
            job=JOB,
            system=self.system,
            images=[guest],
            milestones=course.UP,
            seconds=seconds,
            folder=self.root,
            cache=self.system.folder.parent,
            bochs="my-bochs",
            workshop=self.workshop,
        )

    def rehearse(self, seconds: float = 30.0) -> Rehearsed:
        return rehearsal.rehearse(self.plan(seconds), self.run, Steps(self.events.append))

    @property
    def left(self) -> list[str]:
        """What is left of rehearsals at work."""
        return sorted(path.name for path in self.root.iterdir()) if self.root.exists() else []

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.kind, event.name) for event in self.events if event.kind != "progress"]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield Desk(tmp_path)
    cancelled.clear()


def running(mark: str) -> list[psutil.Process]:
    return [each for each in psutil.process_iter(["cmdline"]) if mark in (each.info["cmdline"] or [])]


def test_what_came_of_it_is_in_the_evidence_and_nothing_else_is_left(desk: Desk) -> None:
    desk.pcs.leaves(files={"evidence/default/1-up/validation.json": {"a": 1}}, **{"lab.up": (10, {"b": 2})})
    done = desk.rehearse()
    assert done.trouble is None and 0 < done.seconds < 30
    assert [(result.words[0], result.status, result.document) for result in done.results] == [
        ("lab.doctor", None, {}),
        ("lab.up", 10, {"b": 2}),
    ]
    assert json.loads((desk.run.path / "evidence/default/1-up/validation.json").read_text()) == {"a": 1}
    assert "lab-event" in (desk.run.path / "pc" / "serial.log").read_text()
    assert (desk.run.path / "pc" / "fake.out").is_file()
    assert desk.left == []
    assert desk.pcs.asked[-1] == ("haswell", "my-bochs")
    (spec,) = {pc.spec.uuid: pc.spec for pc in desk.pcs.made}.values()
    assert (spec.memory_mib, spec.system) == (2048, desk.system.disk)
    assert spec.folder.parent.name == spec.uuid and spec.disk == spec.folder.parent / "work.raw"
    assert "panic=0" in spec.command_line and "console=ttyS0" in spec.command_line
    assert desk.told == [
        ("started", "rehearsal.disk"),
        ("finished", "rehearsal.disk"),
        ("started", "rehearsal.pc"),
        ("started", "pc.boot"),
        ("finished", "pc.boot"),
        ("started", "lab.doctor"),
        ("started", "host.cpu"),
        ("finished", "host.cpu"),
        ("finished", "lab.doctor"),
        ("finished", "rehearsal.pc"),
        ("started", "rehearsal.evidence"),
        ("finished", "rehearsal.evidence"),
    ]
    assert next(event.text for event in desk.events if event.name == "rehearsal.pc") == NAME


def test_its_images_are_in_use_while_it_runs_and_no_longer(desk: Desk) -> None:
    cache, seen = desk.system.folder.parent, []
    desk.pcs.leaves()
    make = desk.pcs.disk.make

    def look(*given: object) -> None:
        seen.append([use.lab for name in ("rehearsal-1", "debian-13-1") for use in uses.of(cache, name)])
        make(*given)  # type: ignore[arg-type]

    desk.workshop = replace(desk.workshop, make_disk=look)
    desk.rehearse()
    assert seen == [["theory.rehearse"] * 2]
    assert uses.of(cache, "rehearsal-1") == uses.of(cache, "debian-13-1") == []


@pytest.mark.parametrize(
    ("lines", "then", "seconds", "kind", "what"),
    [
        (["last words"], "exit 7", 30.0, InconclusiveError, "ended on its own: status 7"),
        (["last words"], "kill -KILL $$", 30.0, InconclusiveError, "ended on its own: status -9"),
        (["last words"], "sleep 60", 1.0, DeadlineError, "did not happen in 1 s"),
        (
            ["last words", "[ 1.0] ---[ end Kernel panic - not syncing: no init ]---"],
            "sleep 60",
            30.0,
            InconclusiveError,
            "panicked: Kernel panic - not syncing: no init",
        ),
        (
            ["last words", "lab-task 1 started", "lab-task 1 started"],
            "sleep 60",
            30.0,
            InconclusiveError,
            "anew",
        ),
    ],
)
def test_one_that_ends_badly_is_read_all_the_same(
    desk: Desk, lines: list[str], then: str, seconds: float, kind: type[LabError], what: str
) -> None:
    desk.pcs.does(*lines, then=then, **{"lab.doctor": (0, {"a": 1})})
    done = desk.rehearse(seconds)
    assert isinstance(done.trouble, kind) and what in done.trouble.what
    assert "last words" in done.trouble.tail
    assert done.trouble.evidence == [str(desk.run.path / "pc")]
    assert done.interrupted is None
    assert (done.results[0].document, done.results[1].status) == ({"a": 1}, None)
    assert desk.left == [] and not running(desk.pcs.made[-1].spec.uuid)
    assert ("failed", "rehearsal.pc") in desk.told
    assert ("failed", "pc.boot") in desk.told or ("failed", "lab.doctor") in desk.told


def test_an_interruption_reads_what_is_there(desk: Desk) -> None:
    desk.pcs.does("lab-task 1 started", then="sleep 60", **{"lab.doctor": (0, {"a": 1})})

    def interrupt() -> None:
        until = time.monotonic() + 20
        while ("started", "lab.doctor") not in desk.told and time.monotonic() < until:
            time.sleep(0.02)
        cancelled.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    done = desk.rehearse()
    thread.join()
    assert isinstance(done.interrupted, InterruptedByUser)
    assert done.interrupted.tail == "", "it is nobody's fault"
    assert done.results[0].document == {"a": 1}
    assert desk.left == [] and not running(desk.pcs.made[-1].spec.uuid)
    assert cancelled.is_set()


@pytest.mark.parametrize("error", [InterruptedByUser("interrupted"), OSError(28, "No space left on device")])
def test_a_disk_that_cannot_be_made_leaves_nothing(desk: Desk, error: BaseException) -> None:
    desk.pcs.disk.broken["make"] = error
    with pytest.raises(type(error)):
        desk.rehearse()
    assert desk.left == []
    assert ("started", "rehearsal.pc") not in desk.told


def test_a_full_disk_is_named_where_a_tool_only_failed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.pcs.disk.broken["make"] = CommandError(["mke2fs"], 1)
    with pytest.raises(CommandError):
        desk.rehearse()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(BlockedError, match="a rehearsal's disk needs"):
        desk.rehearse()
    assert desk.left == []


def test_evidence_that_cannot_be_read_is_an_error_or_adds_to_the_trouble(desk: Desk) -> None:
    desk.pcs.leaves()
    desk.pcs.disk.broken["read"] = LabError("the file system cannot be repaired")
    with pytest.raises(LabError, match="cannot be repaired") as caught:
        desk.rehearse()
    assert (desk.run.path / "pc" / "serial.log").is_file() and desk.left == []
    kept = desk.run.path / "work.raw"
    assert kept.is_file() and caught.value.evidence == [str(kept)], "what the PC did is not lost"
    desk.pcs.does("x", then="exit 3")
    done = desk.rehearse()
    assert done.trouble and "status 3" in done.trouble.what
    assert [result.status for result in done.results] == [None, None]
    results = [event.text for event in desk.events if event.name == "rehearsal.evidence"]
    assert "cannot be repaired" in results[-1]


def test_ctrl_c_while_the_evidence_is_taken_loses_none_of_it(desk: Desk) -> None:
    desk.pcs.leaves(**{"lab.up": (0, {"b": 2})})
    read, times = desk.pcs.disk.read, iter([1, 2])

    def interrupted(*arguments: Any) -> object:
        if next(times) == 1:
            cancelled.set()
        return read(*arguments)

    desk.workshop = replace(desk.workshop, read_disk=interrupted)
    done = desk.rehearse()
    assert isinstance(done.interrupted, InterruptedByUser) and desk.left == []
    assert [result.document for result in done.results] == [{}, {"b": 2}]


def test_ctrl_c_before_power_on_is_that_and_nothing_else(desk: Desk) -> None:
    class Interrupted(FakePc):
        def facts(self) -> PcFacts:
            raise InterruptedByUser("interrupted")

    desk.workshop = replace(desk.workshop, pc=lambda spec, _bochs: Interrupted(spec))
    done = desk.rehearse()
    assert isinstance(done.interrupted, InterruptedByUser) and desk.left == []


def test_a_log_that_cannot_be_copied_costs_nothing_else(desk: Desk) -> None:
    class Full(Run):
        def copy(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

    desk.run = Full(desk.folder / "state" / "evidence", "rehearsal", "rehearse")
    desk.pcs.leaves(**{"lab.up": (0, {"b": 2})})
    done = desk.rehearse()
    assert done.trouble is None and done.results[1].document == {"b": 2}


def test_what_the_emulator_scratched_on_this_machine_goes_before_the_evidence_is_taken(desk: Desk) -> None:
    desk.pcs.leaves()
    desk.pcs.script = f"echo many gigabytes >redolog\n{desk.pcs.script}"
    read = desk.pcs.disk.read

    def look(disk: Path, *more: object) -> object:
        assert disk.exists() and not (disk.parent / place.PC).exists()
        return read(disk, *more)  # type: ignore[arg-type]

    desk.workshop = replace(desk.workshop, read_disk=look)
    assert desk.rehearse().trouble is None


# --- folders ---------------------------------------------------------------------------------------

_KILLED = """
import sys, time
from pathlib import Path
from lab.rehearsal import place
with place.held(Path(sys.argv[1]), "theory.rehearse") as folder:
    (folder / "pc").mkdir()
    (folder / "work.raw").write_text("a disk")
    print(folder.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(desk: Desk) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another rehearsal at work, and the name of its folder."""
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, desk.root], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        yield child, child.stdout.readline().strip()
        child.kill()


def test_two_at_once_do_not_touch_each_other(desk: Desk, other: tuple[subprocess.Popen[str], str]) -> None:
    _, name = other
    desk.pcs.leaves()
    assert desk.rehearse().trouble is None
    assert desk.left == [name]
    assert (desk.root / name / "work.raw").exists()


def test_the_next_one_removes_what_a_killed_one_left(
    desk: Desk, other: tuple[subprocess.Popen[str], str]
) -> None:
    """Its PC too, should that run on: by its mark, whichever kind it is."""
    child, name = other
    pc = subprocess.Popen(["sh", "-c", "sleep 60\n:", "-uuid", name], start_new_session=True)
    try:
        child.send_signal(signal.SIGKILL)
        child.wait()
        desk.pcs.leaves()
        assert desk.rehearse().trouble is None
        assert not running(name)
    finally:
        pc.kill()
        pc.wait()
    assert desk.left == []
    assert {cpu for cpu, _ in desk.pcs.asked} == {"haswell", "amd"}, "a PC of each kind was ended"
    assert any(name in event.text for event in desk.events if event.kind == "note")


def test_only_what_a_rehearsal_made_is_ever_removed(desk: Desk) -> None:
    mine = [desk.root / "notes", desk.root / str(uuid.uuid4()).upper(), desk.root / ".hidden"]
    for folder in mine:
        folder.mkdir(parents=True)
    (desk.root / str(uuid.uuid4())).symlink_to(desk.folder)
    gone = desk.root / f".{uuid.uuid4()}.gone"
    gone.mkdir()
    before = [name for name in desk.left if name != gone.name]
    assert place.sweep(desk.root, "x", lambda *_: None, lambda _: None) == []
    assert desk.left == before
    assert place.sweep(desk.folder / "nowhere", "x", lambda *_: None, lambda _: None) == []


def test_what_cannot_be_removed_is_told_and_left(desk: Desk) -> None:
    folder = desk.root / str(uuid.uuid4())
    folder.mkdir(parents=True)
    notes: list[str] = []

    def survives(mark: str, pc: Path) -> None:
        assert (mark, pc) == (folder.name, folder / "pc")
        raise LabError("process 7 did not end when killed")

    assert place.sweep(desk.root, "x", survives, notes.append) == []
    assert folder.exists() and "process 7" in notes[0]
    assert place.sweep(desk.root, "x", lambda *_: None, notes.append) == [folder.name]


def test_a_folder_is_private_held_and_gone_however_it_ends(desk: Desk) -> None:
    with pytest.raises(ValueError, match="why"), place.held(desk.root, "theory.rehearse") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        holder = lock.holder(folder / "lock")
        assert holder is not None and holder.pid == os.getpid() and holder.verb == "theory.rehearse"
        raise ValueError("why")
    assert desk.left == []
