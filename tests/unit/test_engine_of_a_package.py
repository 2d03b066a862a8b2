"""The engine of docs/extending.md, installed beside lab: its code and its entry point are the page's."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab import engines
from lab.core.errors import InconclusiveError, UsageError
from lab.engines.protocol import State
from lab.host import kvm
from lab.tasks.lab import power
from lab.tasks.lab.doctor import doctor
from lab.tasks.lab.status import list_labs, status
from lab.tasks.lab.up import up
from lab.workflow.destroy import destroy
from lab.workflow.session import Session
from tests.unit.bed import Bed, checked, rungs

NAME = "default"
PAGE = (Path(__file__).parents[2] / "docs/extending.md").read_text()


def _block(language: str) -> str:
    section = PAGE[PAGE.index("\n## Write an engine\n") :].split("\n## ")[1]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return block


@pytest.fixture
def sleeper(tmp_path: Path, bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session that asks for the engine; the guest is a stand-in, the machine is not."""
    site = tmp_path / "site"
    info = site / "lab_sleeper-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "lab_sleeper.py").write_text(_block("python"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-sleeper\nVersion: 1.0\n")
    header, line = _block("toml").splitlines()
    group = header.removeprefix('[project.entry-points."').removesuffix('"]')
    (info / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(site)
    bed.use(engine=engines.engine, kvm=lambda *_: kvm.KvmAnswer(False, "not asked", False))
    yield bed.session(engine="sleeper")
    for process in _processes():
        process.kill()
        process.wait(10)


def _processes() -> list[psutil.Process]:
    """The sleepers that this process started and that still run."""
    sleepers = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "import time; time.sleep(86400)" in child.cmdline():
                sleepers.append(child)
    return sleepers


def test_lab_drives_it_from_nothing_to_nothing(sleeper: Session, bed: Bed) -> None:
    document = checked(up(sleeper, NAME))
    assert rungs(document)["host.engine"] == rungs(document)["vm.settings"] == "passed"
    assert document["cell"]["engine"] == "sleeper" and document["cell"]["nesting"] == "none"
    (running,) = _processes()

    assert checked(status(sleeper, NAME))["lab"]["engine"] == "sleeper"
    (row,) = checked(list_labs(sleeper))["labs"]
    assert (row["engine"], row["state"]) == ("sleeper", "running")
    with pytest.raises(UsageError, match="saves no memory"):
        power.suspend(sleeper, NAME)

    assert checked(power.halt(sleeper, NAME))["notes"] == ["powered off"]
    assert not running.is_running()
    up(sleeper, NAME)
    (running,) = _processes()
    folder = bed.lab().folder
    assert checked(destroy(sleeper, NAME))["state"] == State.ABSENT
    assert not running.is_running() and not folder.exists()


def test_its_machine_is_ended_though_the_record_and_the_journal_are_lost(sleeper: Session, bed: Bed) -> None:
    up(sleeper, NAME)
    (running,) = _processes()
    bed.lab().record_file.write_text("{")
    bed.lab().journal.path.write_text("")
    destroy(sleeper, NAME)
    assert not running.is_running()


def test_two_machines_of_which_one_cannot_be_told_are_left_alone(sleeper: Session, bed: Bed) -> None:
    up(sleeper, NAME)
    (running,) = _processes()
    bed.lab().record_file.unlink()
    bed.lab().journal.intend("sleeper", "0c9d1c6e-3d7b-4f2b-9f43-2f7a4b1f0001")
    with pytest.raises(InconclusiveError):
        destroy(sleeper, NAME)
    assert running.is_running()


def test_the_doctor_shows_it_and_auto_does_not_take_it(sleeper: Session) -> None:
    rows = {row["name"]: row for row in checked(doctor(sleeper))["engines"]}
    assert list(rows) == ["virtualbox", "qemu", "sleeper"]
    assert rows["sleeper"]["usable"] and rows["sleeper"]["findings"][0]["name"] == "sleepers"
    assert engines.automatic() == ["virtualbox", "qemu"]


def test_one_that_is_broken_is_a_row_of_the_doctors_and_spoils_nothing(
    sleeper: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "lab_sleeper", raising=False)
    (tmp_path / "site/lab_sleeper.py").write_text("import nothing_of_that_name\n")
    row = checked(doctor(sleeper))["engines"][-1]
    assert (row["name"], row["usable"]) == ("sleeper", False) and "nothing_of_that_name" in row["why"]
    assert [kind.name for kind in engines.kinds()][:2] == ["virtualbox", "qemu"]
