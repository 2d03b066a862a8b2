"""What lab keeps is for its user alone, whatever the umask and whatever an earlier lab left open."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.config.model import NightlySection
from lab.core import deadline, files, proc
from lab.engines.qemu import process
from lab.history.store import History
from lab.records import evidence
from lab.tasks.lab.up import up
from lab.tasks.nightly.run import run
from lab.workflow import consent
from lab.workflow.session import Session
from tests.unit.bed import Bed
from tests.unit.fakes import FakeEngine


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """As open as a umask can be: what is private then is so by lab's own doing."""
    before = os.umask(0)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def _open_to_others(root: Path) -> dict[str, str]:
    """What others may do something with, but for files that say nothing (locks), and what fakes made."""
    found = [path for path in (root, *root.rglob("*")) if "vm" not in path.parts]
    return {
        str(path.relative_to(root)): oct(_mode(path))
        for path in found
        if _mode(path) & 0o077 and not (path.is_file() and path.stat().st_size == 0)
    }


def test_a_lab_a_night_and_what_was_agreed_to(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    session = bed.session(nightly=NightlySection(runs=1))
    up(session, "default")
    run(session)
    monkeypatch.setattr(FakeEngine, "caution", lambda _: "it may reset the host", raising=False)
    monkeypatch.setattr(Session, "interactive", True, raising=False)
    asking = bed.session()
    asking.interactive, asking.ask = True, lambda _question: True
    consent.require(asking, FakeEngine(bed.world))
    state = session.settings.state_dir
    assert (state / "agreed.json").is_file() and (state / "history.db").is_file()
    assert _open_to_others(state) == {}


def test_what_an_earlier_lab_left_open_is_closed(bed: Bed) -> None:
    session = bed.session()
    state = session.settings.state_dir
    for folder in (state, state / "labs", state / "evidence", state / "evidence" / "default"):
        folder.mkdir(mode=0o755)
    with History(session.history_file) as past:
        past.begin(planned=1, evidence="", boot_id="", lab_version="0")
        wal = session.history_file.with_name("history.db-wal")
        for path in (session.history_file, wal):
            path.chmod(0o644)
        with History(session.history_file):
            assert (_mode(session.history_file), _mode(wal)) == (0o600, 0o600)
    up(session, "default")
    # The state folder was chosen by its user, who may have let others in: only lab's own are closed.
    assert _open_to_others(state) == {".": "0o755"}


def test_files_and_folders(tmp_path: Path) -> None:
    files.write_json(tmp_path / "new" / "folder" / "record.json", {})
    assert [_mode(tmp_path / name) for name in ("new", "new/folder", "new/folder/record.json")] == [
        0o700,
        0o700,
        0o600,
    ]
    files.write_atomic(tmp_path / "public" / "manifest.json", "{}", files.PUBLIC)
    assert (_mode(tmp_path / "public"), _mode(tmp_path / "public" / "manifest.json")) == (0o777, 0o644)
    (log := tmp_path / "old.log").write_text("before\n")
    with files.open_private(log, "a") as stream:
        stream.write("after\n")
    assert (log.read_text(), _mode(log)) == ("before\nafter\n", 0o600)


def test_a_device_and_what_is_somebody_elses_keep_their_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(fifo := tmp_path / "fifo", 0o666)
    (other := tmp_path / "other").touch(0o644)
    files.keep_private(fifo)
    monkeypatch.setattr(files.os, "geteuid", lambda: os.getuid() + 1)
    files.keep_private(other)
    assert (_mode(fifo), _mode(other)) == (0o666, 0o644)


def test_logs_of_programs(tmp_path: Path) -> None:
    proc.run(["echo", "words"], deadline=deadline.Deadline.after(30), log=tmp_path / "echo.log")
    process.spawn(["true"], tmp_path / "qemu.log", tmp_path).wait()
    assert (_mode(tmp_path / "echo.log"), _mode(tmp_path / "qemu.log")) == (0o600, 0o600)


def test_evidence_that_was_copied(tmp_path: Path) -> None:
    kept = evidence.Run(tmp_path / "evidence", "default", "up")
    for name in ("screen.png", "console.log"):
        (tmp_path / name).write_bytes(b"what a guest showed")
        kept.copy(tmp_path / name)
    kept.collect({"absent": lambda: tmp_path / "absent"})
    assert (kept.path / "missing.txt").is_file()
    assert _open_to_others(tmp_path / "evidence") == {}
