"""nightly.run on the fakes: every night is on record, and no fault ever comes out green."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.config.model import VmSection
from lab.core import deadline, lock
from lab.core.errors import BusyError, InterruptedByUser, LabError
from lab.engines.protocol import State
from lab.history.database import HistoryError
from lab.history.model import ClimbRecord, counted
from lab.history.store import History
from lab.nights import clock, nightlab
from lab.nights.keeping import lock_file
from lab.tasks.lab.up import up
from lab.tasks.nightly.history import history
from lab.tasks.nightly.run import ROADS, run
from lab.workflow.session import Session
from tests.unit import sinks
from tests.unit.bed import Bed, checked
from tests.unit.nights import (
    before_comparing,
    before_looks,
    blocked,
    past,
    spend,
    spent_budget,
    stop,
)

AT = "2026-01-02T03:04:05.678+00:00"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    for name in ("LAB_WEBHOOK_URL", "LAB_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def test_nested_off_is_blocked(bed: Bed) -> None:
    bed.world.kvm_ok = False
    result, code = spend(bed, vm=VmSection(nested=False))
    assert (result["verdict"], code) == ("blocked", 11)


def test_a_vm_killed_in_the_middle(bed: Bed) -> None:
    def killed() -> None:
        bed.world.state, bed.world.l2 = State.STOPPED, None

    result, code = spend(bed, before_looks(killed))
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert result["claims"][0]["counts"] == counted({"confirmed": 1, "blocked": 2})


def test_what_is_absent_blocks_and_is_not_asked_for_again(bed: Bed) -> None:
    result, code = spend(bed, replace(ROADS, up=blocked))
    assert (result["verdict"], code, len(result["runs"])) == ("blocked", 11, 1)
    assert "a port is taken" in result["reason"]
    assert Path(result["report"]).name == "summary.md"  # no run came to anything that could be reported


def test_a_night_that_breaks_is_recorded_and_tidied_up(bed: Bed) -> None:
    class Broken(History):
        def add(self, key: int, run: ClimbRecord) -> None:
            raise ZeroDivisionError("a bug")

    result, code = spend(bed, replace(ROADS, history=Broken))
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert "the night broke: ZeroDivisionError" in result["reason"]
    assert bed.session().store.find("nightly") is None


def test_a_refutation_that_nobody_could_look_at_again_stands_alone(bed: Bed) -> None:
    def then_the_vm_dies(session: Session, name: str) -> Any:
        bed.world.kvm_ok = False
        reply = up(session, name)
        bed.world.state = State.STOPPED
        reply.document["access"] = None
        return reply

    result, code = spend(bed, replace(ROADS, up=then_the_vm_dies))
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert result["claims"][0]["counts"] == counted({"refuted": 1, "blocked": 2})


def test_a_fault_of_labs_own_is_a_result_with_its_trace_kept(bed: Bed) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    result, code = spend(bed, before_looks(broken))
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert "ZeroDivisionError" in (Path(result["evidence"]) / "error-2.txt").read_text()


def test_a_comparison_that_fails_is_said_and_changes_no_verdict(bed: Bed) -> None:
    bed.world.broken["compare"] = deadline.DeadlineError("L2 did not boot in 900 s")
    result, code = spend(bed)
    assert (result["verdict"], code) == ("confirmed", 0)
    assert result["claims"][0]["counts"] == counted({"confirmed": 4})
    assert any(
        "nothing was compared: nested KVM: timeout: L2 did not boot" in note for note in result["notes"]
    )


def test_a_comparison_in_which_the_vm_was_lost_is_no_green_night(bed: Bed) -> None:
    """Even where the look itself ends in an error, and so comes to no verdict of its own."""

    def killed() -> None:
        raise LabError("QEMU is gone")

    result, code = spend(bed, before_comparing(killed))
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert result["claims"][0]["counts"] == counted({"confirmed": 3, "inconclusive": 1})
    assert "QEMU is gone" in result["reason"]
    assert "nothing was compared: QEMU is gone" in result["notes"]


def test_a_comparison_the_budget_cut_short_leaves_a_night_that_is_not_whole(bed: Bed) -> None:
    result, code = spend(bed, replace(ROADS, budget=spent_budget(bed, "compare")))
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert result["claims"][0]["counts"] == counted({"confirmed": 3, "inconclusive": 1})
    assert [each["cut"] for each in result["runs"]] == [False, False, False, True]
    assert {"rung": "nested.adb", "status": "passed"}.items() <= result["runs"][-1]["rungs"][-3].items()
    assert any("nothing was compared: the budget" in note for note in result["notes"])


def test_what_a_comparison_saw_fail_before_it_was_cut_short_counts(bed: Bed) -> None:
    def worse() -> None:
        bed.world.broken["prove"] = deadline.DeadlineError("nobody answers ADB")

    roads = replace(ROADS, budget=spent_budget(bed, "compare"))
    result, code = spend(bed, before_comparing(worse, roads))
    assert result["runs"][-1]["cut"]
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert result["claims"][0]["counts"] == counted({"confirmed": 3, "inconclusive": 1})


def test_the_budget_ends_a_night_that_hangs(bed: Bed) -> None:
    hangs = threading.Event()

    class Budget(clock.Budget):
        """It is spent once the second look hangs, however slow the first one was."""

        def _wait(self) -> None:
            assert hangs.wait(60)
            super()._wait()

    def hang() -> None:
        hangs.set()
        assert deadline.cancelled.wait(60)
        deadline.check_cancelled()

    result, code = spend(bed, before_looks(hang, roads=replace(ROADS, budget=lambda _: Budget(0.1))))
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert result["claims"][0]["counts"] == counted({"confirmed": 1, "inconclusive": 2})
    assert "budget" in result["runs"][1]["error"]
    assert bed.session().store.find("nightly") is None  # it was tidied up all the same
    assert not deadline.cancelled.is_set()


def test_an_interrupted_night_is_on_record(bed: Bed) -> None:
    with pytest.raises(InterruptedByUser):
        spend(bed, before_looks(stop))
    deadline.cancelled.clear()
    (result,) = past(bed)
    assert (result["verdict"], result["state"]) == ("inconclusive", "ended")
    assert "stopped by SIGTERM" in result["reason"]
    assert bed.session().store.find("nightly") is None
    (note,) = spend(bed, runs=1, compare=False)[0]["notes"]  # nobody was told, so the next night does
    assert "nobody was told" in note
    assert "stopped by SIGTERM" in note


def test_a_night_that_is_stopped_while_it_saves_evidence_stops(bed: Bed) -> None:
    def stop_once() -> None:
        if bed.world.state is State.RUNNING:
            del bed.world.before["console"]
            stop()

    bed.world.before["console"] = stop_once
    with pytest.raises(InterruptedByUser):
        spend(bed)
    deadline.cancelled.clear()
    (result,) = past(bed)
    assert (result["verdict"], result["runs"]) == ("inconclusive", [])
    assert bed.session().store.find("nightly") is None


def _die_in_the_second_look(bed: Bed) -> None:
    child = os.fork()
    if child == 0:
        spend(bed, before_looks(lambda: os._exit(9)))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_killed_night_is_never_missing(bed: Bed) -> None:
    _die_in_the_second_look(bed)
    with History(bed.session().history_file) as record:
        assert record.running()
    (result,) = past(bed)  # whoever looks first closes it
    assert (result["verdict"], result["state"]) == ("inconclusive", "ended")
    assert "after 1 of 4 runs" in result["reason"]
    assert Path(result["evidence"], "run.json").is_file()


def test_the_next_night_closes_a_killed_one_removes_its_lab_and_says_so(bed: Bed) -> None:
    _die_in_the_second_look(bed)
    assert bed.session().store.find("nightly")
    result, code = spend(bed)
    assert (result["verdict"], code) == ("confirmed", 0)
    assert any("nobody was told" in note and "cut short" in note for note in result["notes"])
    assert [item["verdict"] for item in past(bed)] == ["confirmed", "inconclusive"]


def test_a_killed_night_that_somebody_closed_meanwhile_is_told_by_the_next_all_the_same(bed: Bed) -> None:
    _die_in_the_second_look(bed)
    assert past(bed)[0]["verdict"] == "inconclusive"  # looking closes it, and tells nobody
    notes = [spend(bed, runs=1, compare=False)[0]["notes"] for _ in range(2)]
    assert [len(each) for each in notes] == [1, 0]
    assert "inconclusive: cut short after 1 of 4 runs" in notes[0][0]


def test_a_night_at_work_is_not_closed_by_one_who_looks(bed: Bed) -> None:
    nights: list[dict[str, Any]] = []
    spend(bed, before_looks(lambda: nights.extend(past(bed))))
    assert [(item["state"], item["verdict"], len(item["runs"])) for item in nights] == [("running", None, 1)]


def test_one_night_at_a_time(bed: Bed) -> None:
    with lock.hold(lock_file(bed.session()), "nightly.run", "the night"), pytest.raises(BusyError) as caught:
        spend(bed)
    assert caught.value.exit_code == 20
    assert "nightly.run" in caught.value.what
    assert past(bed) == []


def test_a_clock_that_jumps_leaves_nothing_settled_and_no_duration_believes_it(bed: Bed) -> None:
    ahead = [0.0]
    roads = replace(ROADS, clock=lambda: clock.WallClock(lambda: time.time() + ahead[0]))
    result, code = spend(bed, before_looks(lambda: ahead.__setitem__(0, 7200.0), roads=roads))
    assert (code, result["verdict"]) == (12, "inconclusive")
    assert result["reason"].startswith("the wall clock moved by +7200 s")
    assert {run["verdict"] for run in result["runs"]} == {"confirmed"}
    assert result["clock_jump"] == pytest.approx(7200, abs=1)
    assert any("wall clock moved by +7200 s" in note for note in result["notes"])
    assert result["seconds"] < 600


@pytest.mark.parametrize("moved", [-3600.0, 7200.0])
def test_a_clock_in_the_vm_that_jumps_leaves_nothing_settled(bed: Bed, moved: float) -> None:
    result, code = spend(bed, before_looks(lambda: bed.world.__dict__.update(l1_ahead=moved)))
    assert (code, result["verdict"]) == (12, "inconclusive")
    match = re.match(r"the VM's clock moved by ([+-]\d+) s during the night: ", result["reason"])
    assert match and float(match[1]) == pytest.approx(moved, abs=2), result["reason"]
    assert result["reason"][:30] in result["notes"][0]
    assert {claim["verdict"] for claim in result["claims"]} & {"confirmed", "refuted"} == set()


def test_a_clock_in_the_vm_that_is_off_all_night_is_told_by_its_rung_alone(bed: Bed) -> None:
    bed.world.l1_ahead = -3600.0
    result, code = spend(bed)
    assert (code, result["verdict"], result["notes"]) == (0, "confirmed", [])
    boot = next(rung for rung in result["runs"][0]["rungs"] if rung["rung"] == "vm.boot")
    assert "its clock -3" in boot["observed"]


def test_a_damaged_history_costs_no_night(bed: Bed) -> None:
    (bed.folder / "state").mkdir()
    bed.session().history_file.write_bytes(b"no database")
    _, code = spend(bed)
    assert code == 0
    document = checked(history(bed.session()))
    assert len(document["events"]) == len(document["nights"]) == 1


def test_settings_that_are_refused_cost_nothing_that_a_night_left(bed: Bed) -> None:
    lab = bed.session().store.place("nightly")
    (lab.folder / nightlab.MARK).touch()
    reply = run(bed.session(emulator={"kind": "docker-android", "image": "Not An Image"}))
    result = checked(reply)["night"]
    assert result["verdict"] == "inconclusive" and "not an image's name" in result["reason"]
    assert bed.session().store.find("nightly") is not None


def test_a_nights_lab_whose_record_was_torn_is_removed_with_its_vm(bed: Bed) -> None:
    def tear() -> None:
        bed.lab("nightly").record_file.write_text("{")

    result, _ = spend(bed, before_looks(tear), runs=2, compare=False)
    assert bed.world.calls.count("destroy") == 1 and bed.world.state is State.ABSENT
    assert not any("could not be removed" in note for note in result["notes"])


def test_the_user_is_heard_though_the_budget_is_spent_by_then(bed: Bed) -> None:
    budget = clock.Budget(600.0)

    def hang() -> None:
        budget.spent = True
        deadline.cancelled.set(budget)
        deadline.cancelled.set()  # Ctrl-C, in the moment in which the budget ends the look
        deadline.check_cancelled()

    with pytest.raises(InterruptedByUser):
        spend(bed, before_looks(hang, roads=replace(ROADS, budget=lambda _seconds: budget)))
    deadline.cancelled.clear()
    assert "the night was stopped" in past(bed)[0]["reason"]


def test_a_lab_that_somebody_else_made_is_left_alone(bed: Bed) -> None:
    up(bed.session(), "nightly")
    record = bed.lab("nightly").record()
    result, code = spend(bed)
    assert (result["verdict"], code) == ("blocked", 11)
    assert bed.lab("nightly").record() == record
    assert bed.world.state is State.RUNNING


def test_a_lab_that_cannot_be_removed_is_said(bed: Bed) -> None:
    bed.world.broken["destroy"] = LabError("it does not let go")
    result, code = spend(bed)
    assert code == 0
    assert any("could not be removed: it does not let go" in note for note in result["notes"])


def test_a_report_that_cannot_be_written_is_said(bed: Bed) -> None:
    def take_its_place() -> None:
        (bed.runs("nightly")[0] / "summary.md").mkdir()

    result, code = spend(bed, before_looks(take_its_place))
    assert (code, result["report"]) == (0, "")
    assert any("the report could not be written" in note for note in result["notes"])


def test_a_history_that_cannot_be_written_at_all_is_told_and_is_no_success(bed: Bed) -> None:
    (bed.folder / "state").mkdir()
    bed.session().history_file.mkdir()
    with sinks.http() as sink:
        bed.patch.setenv("LAB_WEBHOOK_URL", sink.url)
        with pytest.raises(HistoryError):
            spend(bed, webhook="json")
        (request,) = sink.requests
    assert request.json["verdict"] == "blocked"
    assert "is a folder, and a file is needed there" in request.json["reason"]
