"""History: whole nights or none, nothing lost silently, old ones kept by the rule, regressions in words."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.history import model as figures
from lab.history.database import MIGRATIONS, HistoryError, open_database
from lab.history.model import (
    CELL,
    Claimed,
    ClimbRecord,
    Delivery,
    Ending,
    Figure,
    Night,
    NightFinding,
    RungRecord,
    cell_columns,
    cell_document,
)
from lab.history.retention import NightAge, dropped
from lab.history.store import History, NotRunningError

AT = "2026-01-02T03:04:05.678+00:00"
COLUMNS: dict[str, Any] = dict.fromkeys(CELL, "x") | {"emulated": 1, "android": 0, "nesting": "emulated"}
VERDICTS = ("confirmed", "refuted", "blocked", "inconclusive")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "history.db") as opened:
        yield opened


def begin(history: History) -> int:
    return history.begin(planned=3, evidence="evidence/nightly/1", boot_id="boot", lab_version="0.1.0")


def run(number: int = 1, boot: float = 6.0, **more: Any) -> ClimbRecord:
    return ClimbRecord(
        **(
            {
                "number": number,
                "kind": "validate",
                "started": AT,
                "seconds": 1.5,
                "verdict": "confirmed",
                "claim": "nesting",
                "reason": "because",
                "cell": COLUMNS,
                "claims": [Claimed("nesting", "confirmed", "because")],
                "rungs": [RungRecord("vm.boot", "passed", False, 1.0, "it boots")],
                "figures": [Figure(figures.NESTED_BOOT, "s", boot)],
            }
            | more
        )
    )


def ending(verdict: str = "confirmed", **more: Any) -> Ending:
    claims = [Claimed("nesting", verdict, "because", {verdict: 3})]
    return Ending(**({"seconds": 9.0, "claims": claims, "cell": COLUMNS} | more), verdict=verdict,
                  claim="nesting", reason="because")  # fmt: skip


def night(history: History, verdict: str = "confirmed", *boots: float, **more: Any) -> Night:
    key = begin(history)
    for number, boot in enumerate(boots, 1):
        history.add(key, run(number, boot))
    history.end(key, ending(verdict, **more))
    return history.night(key)


# --- what is written is what is read ----------------------------------------------------------------


def test_a_night_comes_back_as_it_was_written(history: History) -> None:
    key = begin(history)
    assert history.running()[0].id == key
    history.add(key, run())
    history.add(key, run(2, error="it broke", cut=True, cell=None, claims=[], rungs=[], figures=[]))
    history.end(key, ending(clock_jump=3600.0, notes=["one"]))
    history.note(key, "two")
    history.set_findings(key, [NightFinding("verdict: nesting", "worse now")])
    history.add_delivery(key, Delivery("webhook", False, "it is down"))
    history.set_report(key, "report.html")
    result = history.night(key)
    assert (result.state, result.verdict, result.clock_jump, result.report) == (
        "ended",
        "confirmed",
        3600.0,
        "report.html",
    )
    assert list(result.notes) == ["one", "two"]
    assert result.runs[0] == run()
    assert (result.runs[1].error, result.runs[1].cut, result.runs[1].cell) == ("it broke", True, None)
    assert result.claims == ending().claims
    assert result.findings == [NightFinding("verdict: nesting", "worse now")]
    assert result.deliveries == [Delivery("webhook", False, "it is down")]
    assert result.samples(figures.NESTED_BOOT) == [6.0]
    assert not history.running()


def test_a_night_ends_once(history: History) -> None:
    key = begin(history)
    history.end(key, ending())
    with pytest.raises(NotRunningError):
        history.end(key, ending("refuted"))
    assert history.night(key).verdict == "confirmed"


def test_a_dead_night_is_closed_as_inconclusive_and_says_how_far_it_came(history: History) -> None:
    here, elsewhere = begin(history), begin(history)
    history.add(here, run())
    closed = history.close_dead([history.night(here)], "it was killed", "boot")
    closed += history.close_dead([history.night(elsewhere)], "it was killed", "another boot")
    assert [result.verdict for result in closed] == ["inconclusive", "inconclusive"]
    assert closed[0].reason == "cut short after 1 of 3 runs: it was killed"
    assert closed[0].cell is not None
    assert "restarted" in closed[1].reason


def test_one_that_another_command_closed_stays_as_it_is(history: History) -> None:
    key = begin(history)
    seen = history.night(key)
    history.end(key, ending())
    assert history.close_dead([seen], "it was killed", "boot") == []
    assert history.night(key).verdict == "confirmed"


@given(values=st.fixed_dictionaries({name: st.text(max_size=9) for name in CELL}))
def test_a_cell_survives_its_columns(values: dict[str, Any]) -> None:
    columns = values | {"emulated": True, "android": False}
    assert cell_columns(cell_document(columns)) == columns


def test_a_processor_not_known_to_be_real_is_kept_as_emulated() -> None:
    host = {"system": "linux", "os": "Debian 12", "kernel": "6.1", "cpu": "A CPU"}
    rest = {name: "x" for name in CELL if name not in host} | {"android": True}
    for emulated, kept in ((None, True), (True, True), (False, False)):
        columns = cell_columns({"host": host, **rest, "emulated": emulated})
        assert columns["emulated"] is kept


def test_only_nights_of_the_same_cell_come_before(history: History) -> None:
    night(history)
    key = begin(history)
    history.end(key, ending(cell=COLUMNS | {"engine_version": "other"}))
    last = night(history)
    assert [result.id for result in history.before(last, 9)] == [1]


# --- faults -----------------------------------------------------------------------------------------


def _write_for_ever(path: Path, ready: Any) -> None:
    with History(path) as history:
        while True:
            key = begin(history)
            history.add(key, run())
            history.end(key, ending())
            ready.set()


def test_a_kill_leaves_whole_nights_and_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    writer = context.Process(target=_write_for_ever, args=(path, ready))
    writer.start()
    assert ready.wait(60)
    assert writer.pid
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    with History(path) as history:
        nights = history.nights()
        assert history.events() == []
        assert nights
        for result in nights[1:]:
            assert (result.state, len(result.runs), len(result.claims)) == ("ended", 1, 1)


@pytest.mark.parametrize("damage", [b"this was a database", b"SQLite format 3\x00" + b"\xff" * 4096])
def test_a_damaged_database_is_moved_aside_and_that_is_said(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(damage)
    with History(path) as history:
        ((_, said),) = history.events()
        night(history)
    (kept,) = tmp_path.glob("history.damaged-*.db")
    assert kept.read_bytes() == damage
    assert str(kept) in said
    with History(path) as again:  # and it is damaged no more
        assert len(again.events()) == len(again.nights()) == 1


def test_damage_in_the_middle_is_found_at_the_next_opening(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History(path) as history:
        for _ in range(20):
            night(history, "confirmed", 6.0)
    content = bytearray(path.read_bytes())
    content[8192:-4096] = os.urandom(len(content) - 8192 - 4096)
    path.write_bytes(content)
    with History(path) as history:
        assert history.events()
        assert not history.nights()
    assert list(tmp_path.glob("history.damaged-*.db"))


def test_a_newer_labs_history_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History(path) as history:
        night(history)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match="newer lab"):
        History(path)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*damaged*"))


def test_migrations_go_on_from_where_the_file_is_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History(path) as history:
        night(history)
    with pytest.raises(HistoryError):
        open_database(path, (*MIGRATIONS, "CREATE TABLE half (x); CREATE TABLE half (x);"))
    later = (*MIGRATIONS, "ALTER TABLE nights ADD COLUMN later TEXT NOT NULL DEFAULT 'yes';")
    connection = open_database(path, later)
    assert connection.execute("SELECT later FROM nights").fetchone()["later"] == "yes"
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(later)
    connection.close()


def test_a_history_of_before_runs_could_be_cut_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    connection = open_database(path, MIGRATIONS[:1])
    connection.execute(
        "INSERT INTO nights (id, uuid, state, started, planned, evidence, boot_id, lab_version)"
        " VALUES (1, 'u', 'running', ?, 1, 'e', 'boot', '0.1.0')",
        (AT,),
    )
    connection.execute(
        "INSERT INTO runs (night, number, kind, started, seconds, verdict, claim, reason, error, evidence)"
        " VALUES (1, 1, 'up', ?, 1.5, 'confirmed', 'nesting', 'because', '', 'e')",
        (AT,),
    )
    connection.close()
    with History(path) as history:
        (result,) = history.night(1).runs
    assert (result.kind, result.cut) == ("up", False)


def test_a_cell_of_before_emulated_pcs_is_the_one_of_today(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    old = [name for name in CELL if name != "pc"]
    connection = open_database(path, MIGRATIONS[:3])
    connection.execute(
        f"INSERT INTO cells (id, {', '.join(old)}) VALUES (7, {', '.join('?' * len(old))})",  # noqa: S608
        [COLUMNS[name] for name in old],
    )
    for key, cell in ((1, 7), (2, None)):
        connection.execute(
            "INSERT INTO nights (id, uuid, state, started, planned, verdict, evidence, boot_id, lab_version,"
            " cell) VALUES (?, ?, 'ended', ?, 1, 'confirmed', 'e', 'boot', '0.1.0', ?)",
            (key, f"u{key}", AT, cell),
        )
    connection.close()
    with History(path) as history:
        assert history.night(1).cell == COLUMNS | {"pc": ""}
        assert "pc" not in history.night(1).as_dict()["cell"]["host"]
        last = night(history, cell=COLUMNS | {"pc": ""})
        assert [result.id for result in history.before(last, 9)] == [1]
        emulated = night(history, cell=COLUMNS | {"pc": "Bochs 2.7, haswell"})
        assert history.before(emulated, 9) == []
        assert 1 not in [result.id for result in history.alike(emulated, 9)]
        # A night of an earlier lab that was running meanwhile.
        history._connection.execute(
            f"INSERT INTO cells (id, {', '.join(old)}) VALUES (70, {', '.join('?' * len(old))})",  # noqa: S608
            [f"{COLUMNS[name]}2" if name == "cpu" else COLUMNS[name] for name in old],
        )
        with pytest.raises(sqlite3.IntegrityError):
            history._connection.execute("DELETE FROM cells WHERE id = 7")  # it is still referred to


def test_of_an_older_history_those_are_untold_that_ended_after_the_last_one_told(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    connection = open_database(path, MIGRATIONS[:2])
    verdicts = {1: "inconclusive", 2: "confirmed", 3: "refuted", 4: ""}
    for key, verdict in verdicts.items():
        connection.execute(
            "INSERT INTO nights (id, uuid, state, started, planned, verdict, evidence, report, boot_id,"
            " lab_version) VALUES (?, ?, ?, ?, 1, ?, 'e', ?, 'boot', '0.1.0')",
            (key, f"u{key}", "ended" if verdict else "running", AT, verdict, "r" if key == 2 else ""),
        )
    connection.close()
    with History(path) as history:
        assert [night.id for night in history.untold(before=5)] == [3]
        assert history.night(4).untold  # once it has ended
        assert "untold" not in history.night(3).as_dict()  # nightly.history/1 stays as it was
        history.mark_told(3)
        assert history.untold(before=5) == []


def test_a_full_disk_writes_nothing_by_halves(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with History(path) as history:
        key = begin(history)
        pages = history._connection.execute("PRAGMA page_count").fetchone()[0]
        history._connection.execute(f"PRAGMA max_page_count = {pages}")
        huge = run(rungs=[RungRecord("vm.boot", "passed", False, 1.0, "x" * 100_000)])
        with pytest.raises(HistoryError, match="full"):
            history.add(key, huge)
        assert history.night(key).runs == []
        history._connection.execute("PRAGMA max_page_count = 100000")
        history.add(key, huge)
        assert len(history.night(key).runs) == 1


# --- what is kept -----------------------------------------------------------------------------------

NOW = datetime(2026, 11, 26, 3, 30, tzinfo=UTC)


def nightly(days: int, cell: int = 1) -> list[NightAge]:
    """A night a day for `days` days, the oldest first."""
    return [
        NightAge(index + 1, (NOW - timedelta(days=days - 1 - index)).isoformat(), cell, "ended")
        for index in range(days)
    ]


def test_every_night_of_late_and_one_a_week_before() -> None:
    nights = nightly(400)
    gone = dropped(nights, keep_days=90, keep_nights=1000)
    kept = [result for result in nights if result.id not in gone]
    assert all(result in kept for result in nights[-91:])
    old = [datetime.fromisoformat(result.started).isocalendar()[:2] for result in kept[:-91]]
    assert len(old) == len(set(old))
    assert 42 <= len(old) <= 46


def test_a_wrong_clock_tonight_ages_nothing() -> None:
    nights = nightly(60)
    nights.append(NightAge(61, "2099-01-01T00:00:00+00:00", 1, "ended"))
    assert dropped(nights, keep_days=90, keep_nights=1000) == set()


@given(
    days=st.lists(st.integers(0, 800), max_size=60),
    cells=st.integers(1, 3),
    keep_days=st.integers(1, 400),
    keep_nights=st.integers(1, 80),
)
def test_what_the_rule_promises(days: list[int], cells: int, keep_days: int, keep_nights: int) -> None:
    ages = sorted(days, reverse=True)
    states = ["running" if age % 97 == 0 else "ended" for age in ages]
    nights = [
        NightAge(number, (NOW - timedelta(days=age)).isoformat(), number % cells, state)
        for number, (age, state) in enumerate(zip(ages, states, strict=True))
    ]
    gone = dropped(nights, keep_days, keep_nights)
    kept = [result for result in nights if result.id not in gone]
    running = sum(result.state == "running" for result in nights)
    assert len(kept) <= keep_nights + running + 1
    assert all(result.state == "ended" for result in nights if result.id in gone)
    assert not nights or nights[-1] in kept
    assert dropped(kept, keep_days, keep_nights) == set()  # it has come to rest


def test_what_is_pruned_is_gone_with_all_that_hangs_on_it(history: History) -> None:
    for _ in range(4):
        night(history, "confirmed", 6.0)
    assert [result.id for result in history.prune(keep_days=90, keep_nights=2)] == [1, 2]
    counted = [
        history._connection.execute(statement).fetchone()[0]
        for statement in (
            "SELECT count(*) FROM runs",
            "SELECT count(*) FROM claims",
            "SELECT count(*) FROM rungs",
        )
    ]
    assert counted == [2, 2, 2]


def test_what_the_last_night_was_about(history: History) -> None:
    assert history.last_claim() == ""
    night(history)
    begin(history)
    key = begin(history)
    history.end(key, Ending("inconclusive", "", "it broke"))
    assert history.last_claim() == "nesting"
    (closed,) = history.close_dead([history.running()[0]], "it was killed", "boot")
    assert closed.claim == "nesting"
    assert history.last_claim(before=1) == ""
