"""Nights of a fleet: asked for once, taken in, closed at their hour, told once. The queue is a stand-in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.core import deadline, files
from lab.core.errors import BlockedError, UsageError
from lab.fleet.asking import next_hour
from lab.fleet.ledger import Ledger
from lab.fleet.queue import QueuedJob, QueueError
from lab.model.domain import Verdict
from lab.tasks.fleet import nights
from tests.unit.bed import checked
from tests.unit.fleetdesk import DATE, NOW, PLAN, Desk


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("TZ", "UTC")
    yield Desk(tmp_path, monkeypatch)
    deadline.cancelled.clear()


# --- asking -----------------------------------------------------------------------------------------


def test_every_cell_is_asked_for_once(desk: Desk) -> None:
    first = desk.run()
    assert desk.run() == first
    assert set(desk.queue.keys) == {f"{DATE}/{cell}" for cell in ("one", "either", "placed")}
    assert [(entry["cell"], entry["state"]) for entry in first["entries"]] == [
        ("one", "open"),
        ("either", "open"),
        ("nowhere", "settled"),
        ("placed", "open"),
    ]


def test_a_cell_that_no_host_fits_is_blocked_and_says_which_tags(desk: Desk) -> None:
    desk.run()
    entry = desk.entry("nowhere")
    assert (entry.verdict, entry.host) == ("blocked", "")
    assert "no host of the fleet has all of its tags: z" in entry.word


def test_asking_that_was_killed_goes_on(desk: Desk) -> None:
    desk.queue.dies_after = 2
    with pytest.raises(QueueError):
        desk.run()
    assert [each.request for each in desk.night().cells] == [1, None, None, None]
    desk.queue.down = False
    desk.run()
    assert [each.request for each in desk.night().cells] == [1, 2, None, 3]


def test_a_name_that_is_not_in_the_plan_is_refused_before_anything(desk: Desk) -> None:
    with pytest.raises(UsageError) as caught:
        desk.run("eithe")
    assert caught.value.hint == "did you mean either?"
    assert Ledger(desk.places).dates() == []


def test_the_hour_is_the_next_one_on_the_clock() -> None:
    local = datetime(2026, 12, 1, 2, 0).astimezone()
    assert next_hour("07:00", local).astimezone() == local.replace(hour=7)
    assert next_hour("02:00", local).astimezone() == local.replace(day=2)
    assert next_hour("01:00", local).astimezone() == local.replace(day=2, hour=1)


# --- taking in --------------------------------------------------------------------------------------


def test_a_night_that_is_handed_in_settles_its_cell(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "one"))
    desk.gather()
    entry = desk.entry("one")
    assert (entry.state, entry.verdict, entry.host, entry.claim) == (
        "settled",
        "confirmed",
        "alpha",
        "nesting",
    )
    assert Path(entry.report).is_file()
    assert list(desk.places.inbox.iterdir()) == []
    desk.hand_in("alpha", "one", desk.folder / "alpha-one.tar")
    desk.gather()
    assert desk.entry("one") == entry, "the same again changes nothing"


def test_a_night_of_another_host_is_no_night_of_a_cell_that_names_its_host(desk: Desk) -> None:
    desk.run()
    desk.hand_in("beta", "placed", desk.night_of("beta", "placed"))
    desk.gather()
    entry = desk.entry("placed")
    assert (entry.state, entry.verdict, entry.host) == ("settled", "inconclusive", "beta")
    assert entry.word.startswith("wrong host: expected host alpha, observed beta; there it was confirmed")


def test_a_machine_that_took_a_hosts_name_is_another_host(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "one"))
    desk.gather()
    desk.hand_in("alpha", "placed", desk.night_of("impostor", "placed"))
    desk.gather()
    assert desk.entry("placed").verdict == "inconclusive"
    assert "wrong host: expected host" in desk.entry("placed").word


def test_the_same_machine_is_its_host(desk: Desk) -> None:
    desk.run()
    for cell in ("one", "placed"):
        desk.hand_in("alpha", cell, desk.night_of("alpha", cell))
        desk.gather()
    assert desk.entry("placed").verdict == "confirmed"


def test_of_two_hosts_that_ran_one_cell_the_first_gives_the_word(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "either", desk.night_of("alpha", "either"))
    desk.gather()
    desk.hand_in("beta", "either", desk.night_of("beta", "either", refuted=True))
    desk.gather()
    entry = desk.entry("either")
    assert (entry.verdict, entry.host) == ("confirmed", "alpha")
    assert [(late.host, late.verdict) for late in entry.late] == [("beta", "refuted")]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 4096])
def test_what_is_no_archive_is_kept_and_said(desk: Desk, content: bytes) -> None:
    desk.run()
    (desk.places.inbox / f"{DATE}~one~alpha.tar").write_bytes(content)
    notes = desk.gather().notes
    entry = desk.entry("one")
    assert (entry.state, entry.verdict, entry.host) == ("settled", "inconclusive", "alpha")
    assert "what alpha handed in is refused" in entry.word
    assert "was not taken in" in notes[0]
    assert (desk.places.refused / f"{DATE}~one~alpha.tar").read_bytes() == content


def test_an_archive_of_another_night_settles_nothing_with_its_verdict(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "either"))
    desk.gather()
    assert desk.entry("one").verdict == "inconclusive"
    assert f"it is of {DATE}/either, and was handed in for {DATE}/one" in desk.entry("one").word
    assert desk.entry("either").state == "open"


def test_what_nobody_asked_for_is_put_aside(desk: Desk) -> None:
    desk.run("one")
    desk.hand_in("alpha", "either", desk.night_of("alpha", "either"))
    (desk.places.inbox / "odd.tar").write_bytes(b"x")
    assert len(desk.gather().notes) == 2
    assert {path.name for path in desk.places.refused.glob("*.tar")} == {
        f"{DATE}~either~alpha.tar",
        "odd.tar",
    }


def test_a_full_disk_leaves_what_was_handed_in_where_it_is(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "one"))
    cause = OSError(28, "No space left on device")

    def full(*_: object) -> None:
        raise BlockedError("the disk is full") from cause

    roomy = desk.session.factories
    desk.session.factories = replace(roomy, require_space=full)
    with pytest.raises(BlockedError):
        desk.gather()
    assert len(list(desk.places.inbox.iterdir())) == 1
    desk.session.factories = roomy
    desk.gather()
    assert desk.entry("one").verdict == "confirmed"


# --- jobs -------------------------------------------------------------------------------------------


def test_who_has_an_open_cell_is_said(desk: Desk) -> None:
    desk.run()
    desk.job("one", QueuedJob(at_work=True, host="alpha", began=NOW.timestamp()))
    desk.gather()
    assert (desk.entry("one").state, desk.entry("one").host) == ("open", "alpha")
    assert desk.entry("one").word == "alpha has it since 2026-12-01T02:00:00+00:00"
    assert desk.entry("either").word == "it waits for a host: alpha is there, beta is there"


def test_a_job_that_ended_without_a_night_says_how(desk: Desk) -> None:
    desk.run()
    desk.job("one", QueuedJob(done=True, host="alpha", why="export: '../job nightly.export' (failure)"))
    desk.gather()
    entry = desk.entry("one")
    assert (entry.state, entry.verdict, entry.host) == ("settled", "inconclusive", "alpha")
    assert entry.word.startswith("its job ended on alpha without a night: export")


def test_a_queue_that_does_not_answer_costs_no_archive(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "one"))
    desk.queue.down = True
    assert desk.gather().notes == ["the fleet's queue does not answer"]
    assert desk.entry("one").verdict == "confirmed"


def test_what_is_cancelled_says_so_and_what_was_handed_in_stays(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "one"))
    checked(nights.cancel(desk.session, (), DATE, desk.ways))
    assert desk.queue.cancelled == [desk.queue.keys[f"{DATE}/{cell}"] for cell in ("either", "placed")]
    assert desk.entry("one").verdict == "confirmed"
    assert desk.entry("either").word.startswith("cancelled by hand at 2026-12-01T02:00:00")
    with pytest.raises(UsageError, match="nothing was asked for"):
        nights.cancel(desk.session, (), "2026-11-30", desk.ways)


# --- the hour ---------------------------------------------------------------------------------------


def test_before_the_hour_nothing_is_closed(desk: Desk) -> None:
    desk.run()
    desk.at(6, 59)
    assert desk.gather().closed == []
    assert desk.ear.notices == []


def test_at_the_hour_what_is_open_is_inconclusive_and_says_since_when_its_host_is_silent(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "one"))
    desk.job("placed", QueuedJob(at_work=True, host="alpha", began=NOW.timestamp()))
    desk.gather()
    desk.at(7)
    desk.heard(alpha=NOW.replace(hour=3, minute=12), beta=desk.now)
    (closed,) = desk.gather().closed
    assert closed.closed == "2026-12-01T07:00:00+00:00"
    words = {
        each.cell.name: (each.entry.state, str(each.entry.verdict), each.entry.word) for each in closed.cells
    }
    assert words["one"][:2] == ("settled", "confirmed")
    assert words["nowhere"][:2] == ("settled", "blocked")
    silent = "host silent since 2026-12-01T03:12:00+00:00 (alpha)"
    assert words["placed"] == ("closed", "inconclusive", silent)
    assert words["either"] == (
        "closed",
        "inconclusive",
        f"no host took it: {silent}, beta is there",
    )


def test_a_host_that_is_at_work_at_the_hour_is_not_called_silent(desk: Desk) -> None:
    desk.run()
    desk.job("one", QueuedJob(at_work=True, host="alpha", began=NOW.timestamp()))
    desk.at(7)
    desk.heard(alpha=desk.now, beta=desk.now)
    desk.gather()
    assert desk.entry("one").word == "not done by the hour: alpha has it since 2026-12-01T02:00:00+00:00"


def test_a_master_that_did_not_listen_blames_no_host(desk: Desk) -> None:
    desk.run()
    desk.queue.down = True
    desk.at(7)
    desk.gather()
    assert desk.entry("one").word.startswith("the coordinator's queue is silent since 2026-12-01T02:00:00")


def test_what_comes_after_the_hour_is_shown_beside_the_word(desk: Desk) -> None:
    desk.run()
    file = desk.night_of("alpha", "one")
    desk.at(7)
    desk.gather()
    before = desk.entry("one")
    assert before.state == "closed"
    desk.at(9)
    desk.hand_in("alpha", "one", file)
    desk.gather()
    after = desk.entry("one")
    assert after.model_copy(update={"late": ()}) == before
    (late,) = after.late
    assert (late.host, late.verdict, late.at) == ("alpha", "confirmed", "2026-12-01T09:00:00+00:00")


def test_a_closed_night_takes_no_more_cells(desk: Desk) -> None:
    desk.run("one")
    desk.at(7)
    desk.gather()
    with pytest.raises(UsageError, match="is closed since"):
        desk.run()


def test_hosts_know_that_a_night_is_closed(desk: Desk) -> None:
    desk.run()
    marker = desk.places.nights / f"{DATE}.closed"
    assert not marker.exists()
    desk.at(7)
    desk.gather()
    assert marker.exists()


# --- telling ----------------------------------------------------------------------------------------


def test_somebody_is_told_once(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "one"))
    desk.at(7)
    for _ in range(3):
        desk.gather()
    (notice,) = desk.ear.notices
    assert notice.verdict == "inconclusive"
    assert notice.reason == "the fleet's night of 2026-12-01: 1 of 4 cells confirmed"
    assert dict(notice.counts) == {
        "confirmed": 1, "refuted": 0, "blocked": 1, "inconclusive": 2, "not applicable": 0,
    }  # fmt: skip
    assert [note.split(":")[0] for note in notice.notes] == ["either", "nowhere", "placed"]
    checked_notice = notice.document()
    assert checked_notice["schema"] == "nightly.notice/1"


def test_who_could_not_be_told_is_told_later(desk: Desk) -> None:
    desk.run()
    desk.at(7)
    desk.ear.deaf = True
    assert "ear was not told of 2026-12-01: it is down" in desk.gather().notes
    desk.ear.deaf = False
    desk.gather()
    desk.gather()
    assert len(desk.ear.notices) == 1


def test_a_refuted_cell_is_the_worst(desk: Desk) -> None:
    desk.run()
    desk.hand_in("alpha", "one", desk.night_of("alpha", "one", refuted=True))
    desk.at(7)
    desk.gather()
    assert desk.ear.notices[0].verdict == "refuted"


# --- the matrix -------------------------------------------------------------------------------------


def test_the_matrix_is_written_with_every_gathering(desk: Desk) -> None:
    desk.run()
    document = files.read_object(desk.places.matrix)
    assert document["schema"] == "fleet.matrix/1"
    assert [cell["name"] for cell in document["cells"]] == ["one", "either", "nowhere", "placed"]
    answer = checked(nights.matrix(desk.session, 14, desk.ways))
    assert answer["nights"][0]["date"] == DATE
    assert answer["nights"][0]["closed"] is None


def test_a_cell_that_left_the_plan_keeps_its_row(desk: Desk) -> None:
    desk.run()
    fewer = PLAN.model_copy(update={"cell": PLAN.cell[1:]})
    files.write_atomic(desk.places.plan, fewer.model_dump_json())
    answer = checked(nights.matrix(desk.session, 14, desk.ways))
    assert [(cell["name"], cell["planned"]) for cell in answer["cells"]][-1] == ("one", False)


def fill(desk: Desk, columns: int, rows: int) -> None:
    """Put so many closed nights of so many cells on record."""
    asked = desk.night().cells[0]
    for number in range(columns):
        day = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)).date().isoformat()
        cells = [
            asked.with_entry(cell=f"cell-{each}", state="settled", verdict=Verdict.CONFIRMED).model_copy(
                update={"cell": asked.cell.model_copy(update={"name": f"cell-{each}"})}
            )
            for each in range(rows)
        ]
        night = desk.night().model_copy(
            update={"date": day, "closed": desk.night().asked, "cells": tuple(cells)}
        )
        (desk.places.nights / f"{day}.json").write_text(night.model_dump_json())
        (desk.places.nights / f"{day}.closed").touch()


def test_two_hundred_nights_of_twenty_cells_are_quick(desk: Desk) -> None:
    desk.run()
    fill(desk, 200, 20)
    began = time.process_time()
    answer = nights.matrix(desk.session, 0, desk.ways).document
    took = time.process_time() - began
    assert len(answer["nights"]) == 201
    assert sum(len(each["entries"]) for each in answer["nights"]) == 200 * 20 + len(PLAN.cell)
    assert took < 5.0, f"{took:.1f} s of processor"
