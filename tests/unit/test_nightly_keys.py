"""A key has one night: who calls again waits for it, or is given what is on record, wherever it was ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline
from lab.core.errors import BusyError, UsageError
from lab.core.files import DamagedFileError
from lab.history.database import MIGRATIONS, open_database
from lab.history.model import ClimbRecord
from lab.history.store import History
from lab.host.identity import FILE, host_id
from lab.nights import keys, night, nightlab
from lab.tasks.nightly.run import ROADS
from lab.workflow.session import Reply, Session
from tests.unit.bed import Bed, checked
from tests.unit.nights import past, session
from tests.unit.test_history import begin, ending
from tests.unit.test_history import night as ended_night

KEY = "2026-12-01/linux-kvm"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def spend(
    bed: Bed, key: str = KEY, roads: night.Roads = ROADS, **settings: Any
) -> tuple[dict[str, Any], int]:
    reply = night.run(session(bed, **{"runs": 1, "compare": False} | settings), roads, key=key)
    return checked(reply)["night"], reply.code


def in_a_child(work: Callable[[], object]) -> int:
    """The pid of a process of its own that does it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def dying_after_a_run() -> night.Roads:
    """Roads on which the night's process is killed once a run is on record."""

    class Dying(History):
        def add(self, night: int, run: ClimbRecord) -> None:
            super().add(night, run)
            os.kill(os.getpid(), signal.SIGKILL)

    return replace(ROADS, history=Dying)


# --- what a key is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [KEY, "2024-02-29/A", "2026-12-01/mac_vbox-7.1"])
def test_a_key_is_a_day_and_a_cell(key: str) -> None:
    keys.check(key)


@pytest.mark.parametrize(
    "key",
    ["x", "2026-12-01", "2026-12-01/", "2026-13-01/a", "2026-02-30/a", "2026-12-01/../a", "2026-12-01/a/b",
     "2026-12-01/-a", "2026-12-01/a\n", " 2026-12-01/a", "2026-12-01/" + "a" * 65, "٢٠٢٦-12-01/a"],
)  # fmt: skip
def test_nothing_else_is_one_and_nothing_is_begun(bed: Bed, key: str) -> None:
    with pytest.raises(UsageError, match="no key"):
        spend(bed, key)
    assert not bed.session().history_file.exists()


@given(st.text(max_size=90))
def test_what_is_taken_names_one_thing_in_a_folder(text: str) -> None:
    try:
        keys.check(text)
    except UsageError:
        return
    if text:
        day, cell = text.split("/")
        assert (len(day), Path(cell).name, cell[0] != ".", cell.isascii()) == (10, cell, True, True)


# --- one night a key --------------------------------------------------------------------------------


def test_a_second_call_returns_the_recorded_night_and_runs_nothing(bed: Bed) -> None:
    bed.world.kvm_ok = False
    first, code = spend(bed)
    assert (first["verdict"], first["key"], code) == ("refuted", KEY, 10)
    bed.world.kvm_ok = True
    with bed.untouched():
        again, code = spend(bed)
    assert (again, code) == (first, 10)
    assert past(bed) == [first]
    assert len([path for path in bed.runs("nightly") if path.name.endswith("-night")]) == 1


def test_another_key_and_none_are_nights_of_their_own(bed: Bed) -> None:
    uuids = [spend(bed, key)[0]["uuid"] for key in (KEY, "2026-12-02/linux-kvm", "", "")]
    assert len(set(uuids)) == 4
    assert "key" not in past(bed)[0]


def test_a_night_names_its_host_and_so_does_its_cell(bed: Bed) -> None:
    result, _ = spend(bed)
    assert result["host"] == bed.session().host_id == result["cell"]["host"]["id"]
    assert result["runs"][0]["cell"]["host"]["id"] == result["host"]


def test_one_that_was_killed_is_returned_as_inconclusive_and_its_lab_is_gone(bed: Bed) -> None:
    child = in_a_child(lambda: spend(bed, roads=dying_after_a_run()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    lab = bed.session().store.find("nightly")
    assert lab is not None
    assert (lab.folder / nightlab.MARK).exists()
    result, code = spend(bed)
    assert (result["verdict"], code, result["planned"]) == ("inconclusive", 12, 1)
    assert "cut short after 1 of 1 runs: its command was killed" in result["reason"]
    assert Path(result["report"]).is_file()  # what the dead command left undone is done
    assert bed.session().store.find("nightly") is None
    assert spend(bed)[0] == result
    assert past(bed) == [result]


def test_a_call_from_another_process_waits_for_the_night_that_runs(bed: Bed, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def slow(session: Session, name: str) -> Reply:
        begun.touch()
        time.sleep(0.3)
        return ROADS.up(session, name)

    child = in_a_child(lambda: spend(bed, roads=replace(ROADS, up=slow)))
    while not begun.exists():
        time.sleep(0.01)
    with pytest.raises(BusyError):  # without a key it is refused, as ever
        spend(bed, "")
    with bed.untouched():  # the child's world is its own
        result, code = spend(bed)
    assert os.waitpid(child, 0)[1] == 0
    assert (result["verdict"], code) == ("confirmed", 0)
    assert past(bed) == [result]


def test_who_waits_too_long_is_told_who_holds_it(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_MARGIN_SECONDS", -59.9)
    with keys.turn(session(bed), ""), pytest.raises(BusyError, match=r"`nightly\.run`"):
        spend(bed, budget_minutes=1)


# --- the history ------------------------------------------------------------------------------------


def test_a_history_of_before_keys_is_read_and_compared_with(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    connection = open_database(path, MIGRATIONS[:4])
    connection.execute(
        "INSERT INTO nights (id, uuid, state, started, planned, verdict, evidence, boot_id, lab_version)"
        " VALUES (1, 'u', 'ended', '2026-01-02T03:04:05.678+00:00', 1, 'confirmed', 'e', 'boot', '0.1.0')"
    )
    connection.close()
    with History(path) as history:
        old = history.night(1)
        assert (old.key, old.host) == ("", "")
        assert not {"key", "host"} & old.as_dict().keys()
        new = history.night(history.begin(planned=1, evidence="e", boot_id="", lab_version="1", host="here"))
        assert history.last_before(new) == old


def test_nights_of_other_hosts_are_not_what_a_night_is_compared_with(tmp_path: Path) -> None:
    with History(tmp_path / "history.db") as history:
        made = {}
        for host in ("here", "there", "here"):
            key = history.begin(planned=1, evidence="e", boot_id="", lab_version="1", host=host, key=KEY)
            history.end(key, ending())
            made[key] = history.night(key)
        last = made[3]
        assert [each.id for each in history.before(last, 9)] == [1]
        assert [each.id for each in history.alike(last, 9)] == [1]
        assert history.last_before(last) == made[1]
        assert history.keyed(KEY, "there") == made[2]
        assert history.keyed(KEY, "here") == last
        assert history.keyed(KEY, "elsewhere") is None
        assert ended_night(history).key == ""
        assert begin(history) == 5


# --- the host's id ----------------------------------------------------------------------------------


def test_a_host_keeps_its_id(tmp_path: Path) -> None:
    first = host_id(tmp_path / "a")
    assert host_id(tmp_path / "a") == first
    assert host_id(tmp_path / "b") != first
    assert (tmp_path / "a" / FILE).stat().st_mode & 0o077 == 0
    (tmp_path / "b" / FILE).write_text("mac-in-the-corner\n")
    assert host_id(tmp_path / "b") == "mac-in-the-corner"


@pytest.mark.parametrize("content", ["", "a b", "../a", "x" * 65, "é"])
def test_an_id_that_is_none_is_left_alone_and_said(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_bytes(content.encode())
    with pytest.raises(DamagedFileError, match="no host's id"):
        host_id(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content.encode()
