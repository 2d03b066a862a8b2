"""nightly.run on the fakes: every night is on record, and no fault ever comes out green."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.config.model import NightlySection, VmSection
from lab.core import deadline, lock
from lab.core.errors import BusyError, InterruptedByUser, LabError, UsageError
from lab.core.steps import JsonLines
from lab.core.web import Patience
from lab.engines.protocol import State
from lab.history import Claimed, ClimbRecord, History, HistoryError, Night, counted
from lab.history import model as figures
from lab.model.domain import Claim, Verdict
from lab.nights import clock, following, history, install, night, run, status, telling, timetable, uninstall
from lab.nights.judging import judge
from lab.nights.showing import lock_file
from lab.notify import github, webhook
from lab.records import evidence
from lab.schedule import Systemd
from lab.tasks.lab.up import up
from lab.workflow.session import Session
from tests.unit import fakes, sinks
from tests.unit.bed import Bed, checked
from tests.unit.fakes import TCG
from tests.unit.test_history import COLUMNS

AT = "2026-01-02T03:04:05.678+00:00"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    for name in ("LAB_WEBHOOK_URL", "LAB_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def _session(bed: Bed, vm: VmSection | None = None, **more: Any) -> Session:
    return bed.session(nightly=NightlySection(**more), **({"vm": vm} if vm else {}))


def _run(bed: Bed, **more: Any) -> tuple[dict[str, Any], int]:
    reply = run(_session(bed, **more))
    return checked(reply)["night"], reply.code


def _past(bed: Bed) -> list[dict[str, Any]]:
    return checked(history(bed.session()))["nights"]  # type: ignore[no-any-return]


def _before_looks(bed: Bed, *happen: Callable[[], None]) -> None:
    """Let something happen before each lab.validate of the night, in order."""
    todo = list(happen)
    real = night.validate

    def validate(session: Session, name: str, claim: str = "", compare: bool = False) -> Any:
        if todo:
            todo.pop(0)()
        return real(session, name, claim, compare)

    bed.patch.setattr(night, "validate", validate)


def _nothing() -> None: ...


# --- nights that end as they should -----------------------------------------------------------------


def test_a_green_night(bed: Bed) -> None:
    found, code = _run(bed)
    assert (found["verdict"], found["claim"], code) == ("confirmed", "nesting", 0)
    assert [look["kind"] for look in found["runs"]] == ["up", "validate", "validate", "compare"]
    (nesting,) = [one for one in found["claims"] if one["claim"] == "nesting"]
    assert nesting["counts"] == counted({"confirmed": 4})
    (theory,) = [one for one in found["claims"] if one["claim"] == "theory"]
    assert theory["verdict"] == "not applicable"
    taken = [(one["name"], one["value"]) for look in found["runs"] for one in look["figures"]]
    assert taken == [  # the one L2 of the night tells its boot once, however often it is looked at
        (figures.NESTED_BOOT, 6.0),
        (figures.NESTED_BOOT_KVM, 6.0),
        (figures.NESTED_BOOT_TCG, 60.0),
        (figures.NESTED_RATIO, 10.0),
    ]
    assert bed.session().store.find("nightly") is None
    assert bed.world.state is State.ABSENT
    assert (found["findings"], found["notes"], found["clock_jump"]) == ([], [], 0)
    folder = Path(found["evidence"])
    assert {"run.json", "steps.jsonl", "night.json", "summary.md", "report.html"} <= {
        file.name for file in folder.iterdir()
    }
    assert Path(found["report"]) == folder / "report.html"
    (ratio,) = json.loads((folder / "report.json").read_text())["comparison"]["ratios"]
    assert ratio["ratio"] == 10.0
    for form in ("report.html", "report.md", "summary.md"):
        assert "10.0 times" in (folder / form).read_text(), form
    for look in found["runs"]:
        assert (Path(look["evidence"]) / "validation.json").is_file()
    assert _past(bed) == [found]


def test_each_run_keeps_its_own_steps_and_the_night_all_of_them(bed: Bed) -> None:
    found, _ = _run(bed)

    def steps(folder: str) -> list[str]:
        lines = (Path(folder) / "steps.jsonl").read_text().splitlines()
        return [json.loads(line)["name"] for line in lines if '"started"' in line]

    first, second = (steps(look["evidence"]) for look in found["runs"][:2])
    assert first.count("nested.adb") == second.count("nested.adb") == 1
    assert steps(found["evidence"]).count("nested.adb") == 4


def test_a_refuted_night(bed: Bed) -> None:
    bed.world.kvm_ok = False
    found, code = _run(bed)
    assert (found["verdict"], code) == ("refuted", 10)
    assert [look["kind"] for look in found["runs"]] == ["up", "validate", "validate"]  # nothing to compare
    assert "guest.kvm" in found["reason"]


def test_a_mixed_night_is_inconclusive_with_its_counts(bed: Bed) -> None:
    def worse() -> None:
        assert bed.world.l2
        bed.world.l2.hypervisor = TCG

    _before_looks(bed, _nothing, worse)
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"][0]["counts"] == counted({"confirmed": 2, "refuted": 1})
    assert "do not agree" in found["reason"]


def test_a_claim_that_is_asked_for_chooses_the_code(bed: Bed) -> None:
    reply = run(_session(bed), "android")
    assert (reply.document["night"]["claim"], reply.code) == ("android", 11)
    with pytest.raises(UsageError):
        run(_session(bed), "sorcery")


def test_two_nights_are_two_nights(bed: Bed) -> None:
    _run(bed)
    bed.world.kvm_ok = False
    found, _ = _run(bed)
    (finding,) = found["findings"]
    assert finding["worse"]
    assert "confirmed on 1 of the 1 nights" in finding["text"]
    assert [one["verdict"] for one in _past(bed)] == ["refuted", "confirmed"]


def test_an_update_that_costs_a_claim_is_told_everywhere_with_what_was_updated(bed: Bed) -> None:
    _run(bed)
    bed.world.facts = replace(bed.world.facts, version="8.0")
    bed.world.kvm_ok = False
    found, _ = _run(bed)
    (finding,) = found["findings"]
    said = "changed since then: QEMU 7.2 → 8.0"
    assert finding["worse"]
    assert said in finding["text"]
    assert said in (Path(found["evidence"]) / "summary.md").read_text()
    with History(bed.session().history_file) as past:
        notice = telling.notice_of(past.nights(1)[0])
    assert any(said in line for line in notice.lines)  # mail is these lines
    assert said in notice.document()["findings"][0]["text"]
    assert said in webhook.slack_message(notice)["blocks"][1]["text"]["text"]
    assert said in github._title(notice.findings[0], notice) + github._body(notice.findings[0], notice)


def test_a_night_that_breaks_before_any_cell_is_about_what_the_last_one_was(bed: Bed) -> None:
    _run(bed)
    bed.patch.setattr(night.preflight, "before_anything", _raise_blocked)
    found, code = _run(bed)
    assert (found["verdict"], found["claim"], found["cell"], code) == ("blocked", "nesting", None, 11)
    (finding,) = found["findings"]
    assert finding["worse"]
    assert "nesting is blocked tonight and was confirmed on 1 of the 1 nights" in finding["text"]
    assert "a port is taken" in finding["text"]


# --- faults: each is on record, none is green -------------------------------------------------------


def test_nested_off_is_blocked(bed: Bed) -> None:
    bed.world.kvm_ok = False
    found, code = _run(bed, vm=VmSection(nested=False))
    assert (found["verdict"], code) == ("blocked", 11)


def test_a_vm_killed_in_the_middle(bed: Bed) -> None:
    def killed() -> None:
        bed.world.state, bed.world.l2 = State.STOPPED, None

    _before_looks(bed, killed)
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"][0]["counts"] == counted({"confirmed": 1, "blocked": 2})


def test_what_is_absent_blocks_and_is_not_asked_for_again(bed: Bed) -> None:
    bed.patch.setattr(night.preflight, "before_anything", _raise_blocked)
    found, code = _run(bed)
    assert (found["verdict"], code, len(found["runs"])) == ("blocked", 11, 1)
    assert "a port is taken" in found["reason"]
    assert Path(found["report"]).name == "summary.md"  # no run came to anything that could be reported


def _raise_blocked(*_: object) -> None:
    from lab.core.errors import BlockedError

    raise BlockedError("a port is taken")


def test_a_full_disk_under_the_vm(bed: Bed) -> None:
    bed.world.broken["create"] = OSError(errno.ENOSPC, "No space left on device")
    found, code = _run(bed)
    assert (found["verdict"], code) == ("blocked", 11)
    assert "the disk is full" in found["reason"]
    assert bed.session().store.find("nightly") is None


def test_a_full_disk_under_the_evidence_leaves_no_lab_behind(bed: Bed) -> None:
    """Else the lab would fill the disk for every night that follows."""
    kept = evidence.write_atomic

    def full(*words: Any) -> None:
        if bed.world.state is State.RUNNING:
            raise OSError(errno.ENOSPC, "No space left on device")
        kept(*words)

    bed.patch.setattr(evidence, "write_atomic", full)
    bed.patch.setattr(evidence, "JsonLines", lambda _path: JsonLines(Path("/dev/full")))
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert "No space left" in found["reason"]
    assert bed.session().store.find("nightly") is None
    assert [one["state"] for one in _past(bed)] == ["ended"]


def test_a_night_that_breaks_is_recorded_and_tidied_up(bed: Bed) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    bed.patch.setattr(night._Night, "_record", broken)
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert "the night broke: ZeroDivisionError" in found["reason"]
    assert bed.session().store.find("nightly") is None


def test_a_refutation_that_nobody_could_look_at_again_stands_alone(bed: Bed) -> None:
    def then_the_vm_dies(session: Session, name: str) -> Any:
        bed.world.kvm_ok = False
        reply = up(session, name)
        bed.world.state = State.STOPPED
        reply.document["access"] = None
        return reply

    bed.patch.setattr(night, "up", then_the_vm_dies)
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"][0]["counts"] == counted({"refuted": 1, "blocked": 2})


def test_a_fault_of_labs_own_is_a_result_with_its_trace_kept(bed: Bed) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a bug")

    _before_looks(bed, broken)
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert "ZeroDivisionError" in (Path(found["evidence"]) / "error-2.txt").read_text()


def test_a_comparison_that_fails_is_said_and_changes_no_verdict(bed: Bed) -> None:
    bed.world.broken["compare"] = deadline.DeadlineError("L2 did not boot in 900 s")
    found, code = _run(bed)
    assert (found["verdict"], code) == ("confirmed", 0)
    assert found["claims"][0]["counts"] == counted({"confirmed": 4})
    assert any(
        "nothing was compared: nested KVM: timeout: L2 did not boot" in note for note in found["notes"]
    )


def _in_the_comparison(bed: Bed, happen: Callable[[], None]) -> None:
    """Let something happen before lab.validate's look in which the night compares."""
    real = night.validate

    def validate(session: Session, name: str, claim: str = "", compare: bool = False) -> Any:
        if compare:
            happen()
        return real(session, name, claim, compare)

    bed.patch.setattr(night, "validate", validate)


def test_a_comparison_in_which_the_vm_was_lost_is_no_green_night(bed: Bed) -> None:
    """Even where the look itself ends in an error, and so comes to no verdict of its own."""

    def killed() -> None:
        raise LabError("QEMU is gone")

    _in_the_comparison(bed, killed)
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"][0]["counts"] == counted({"confirmed": 3, "inconclusive": 1})
    assert "QEMU is gone" in found["reason"]
    assert "nothing was compared: QEMU is gone" in found["notes"]


def _spends_the_budget_while_comparing(bed: Bed) -> None:
    budget = clock.Budget(600.0)

    def hang(*_: object) -> float:
        budget.spent = True
        deadline.cancelled.set(budget)
        deadline.check_cancelled()
        return 0.0

    bed.patch.setattr(night, "Budget", lambda _seconds: budget)
    bed.patch.setattr(fakes.FakeEmulator, "time_boot", hang)


def test_a_comparison_the_budget_cut_short_leaves_a_night_that_is_not_whole(bed: Bed) -> None:
    _spends_the_budget_while_comparing(bed)
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"][0]["counts"] == counted({"confirmed": 3, "inconclusive": 1})
    assert [look["cut"] for look in found["runs"]] == [False, False, False, True]
    assert {"rung": "nested.adb", "status": "passed"}.items() <= found["runs"][-1]["rungs"][-3].items()
    assert any("nothing was compared: the budget" in note for note in found["notes"])


def test_what_a_comparison_saw_fail_before_it_was_cut_short_counts(bed: Bed) -> None:
    def worse() -> None:
        bed.world.broken["prove"] = deadline.DeadlineError("nobody answers ADB")

    _spends_the_budget_while_comparing(bed)
    _in_the_comparison(bed, worse)
    found, code = _run(bed)
    assert found["runs"][-1]["cut"]
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"][0]["counts"] == counted({"confirmed": 3, "inconclusive": 1})


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

    bed.patch.setattr(night, "Budget", lambda _seconds: Budget(0.1))
    _before_looks(bed, hang)
    found, code = _run(bed)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"][0]["counts"] == counted({"confirmed": 1, "inconclusive": 2})
    assert "budget" in found["runs"][1]["error"]
    assert bed.session().store.find("nightly") is None  # it was tidied up all the same
    assert not deadline.cancelled.is_set()


def test_an_interrupted_night_is_on_record(bed: Bed) -> None:
    def stop() -> None:
        deadline.cancelled.set()
        raise InterruptedByUser("stopped by SIGTERM")

    _before_looks(bed, stop)
    with pytest.raises(InterruptedByUser):
        run(_session(bed))
    deadline.cancelled.clear()
    (found,) = _past(bed)
    assert (found["verdict"], found["state"]) == ("inconclusive", "ended")
    assert "stopped by SIGTERM" in found["reason"]
    assert bed.session().store.find("nightly") is None
    (note,) = _run(bed, runs=1, compare=False)[0]["notes"]  # nobody was told, so the next night does
    assert "nobody was told" in note
    assert "stopped by SIGTERM" in note


def test_a_night_that_is_stopped_while_it_saves_evidence_stops(bed: Bed) -> None:
    stopped: list[bool] = []
    console = fakes.FakeMachine.console

    def stop(machine: fakes.FakeMachine) -> Path:
        if bed.world.state is State.RUNNING and not stopped:
            stopped.append(True)
            deadline.cancelled.set()
            raise InterruptedByUser("stopped by SIGTERM")
        return console(machine)

    bed.patch.setattr(fakes.FakeMachine, "console", stop)
    with pytest.raises(InterruptedByUser):
        run(_session(bed))
    deadline.cancelled.clear()
    (found,) = _past(bed)
    assert (found["verdict"], found["runs"]) == ("inconclusive", [])
    assert bed.session().store.find("nightly") is None


def _die_in_the_second_look(bed: Bed) -> None:
    child = os.fork()
    if child == 0:
        _before_looks(bed, lambda: os._exit(9))
        run(_session(bed))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_killed_night_is_never_missing(bed: Bed) -> None:
    _die_in_the_second_look(bed)
    with History(bed.session().history_file) as past:
        assert past.running()
    (found,) = _past(bed)  # whoever looks first closes it
    assert (found["verdict"], found["state"]) == ("inconclusive", "ended")
    assert "after 1 of 4 runs" in found["reason"]
    assert Path(found["evidence"], "run.json").is_file()


def test_the_next_night_closes_a_killed_one_removes_its_lab_and_says_so(bed: Bed) -> None:
    _die_in_the_second_look(bed)
    assert bed.session().store.find("nightly")
    found, code = _run(bed)
    assert (found["verdict"], code) == ("confirmed", 0)
    assert any("nobody was told" in note and "cut short" in note for note in found["notes"])
    assert [one["verdict"] for one in _past(bed)] == ["confirmed", "inconclusive"]


def test_a_killed_night_that_somebody_closed_meanwhile_is_told_by_the_next_all_the_same(bed: Bed) -> None:
    _die_in_the_second_look(bed)
    assert _past(bed)[0]["verdict"] == "inconclusive"  # looking closes it, and tells nobody
    notes = [_run(bed, runs=1, compare=False)[0]["notes"] for _ in range(2)]
    assert [len(each) for each in notes] == [1, 0]
    assert "inconclusive: cut short after 1 of 4 runs" in notes[0][0]


def test_a_night_at_work_is_not_closed_by_one_who_looks(bed: Bed) -> None:
    seen: list[dict[str, Any]] = []
    _before_looks(bed, lambda: seen.extend(_past(bed)))
    _run(bed)
    assert [(one["state"], one["verdict"], len(one["runs"])) for one in seen] == [("running", None, 1)]


def test_one_night_at_a_time(bed: Bed) -> None:
    with lock.hold(lock_file(bed.session()), "nightly.run", "the night"), pytest.raises(BusyError) as caught:
        run(_session(bed))
    assert caught.value.exit_code == 20
    assert "nightly.run" in caught.value.what
    assert _past(bed) == []


def test_a_clock_that_jumps_leaves_nothing_settled_and_no_duration_believes_it(bed: Bed) -> None:
    ahead = [0.0]
    bed.patch.setattr(
        clock, "time", SimpleNamespace(time=lambda: time.time() + ahead[0], monotonic=time.monotonic)
    )
    _before_looks(bed, lambda: ahead.__setitem__(0, 7200.0))
    found, code = _run(bed)
    assert (code, found["verdict"]) == (12, "inconclusive")
    assert found["reason"].startswith("the wall clock moved by +7200 s")
    assert {run["verdict"] for run in found["runs"]} == {"confirmed"}
    assert found["clock_jump"] == pytest.approx(7200, abs=1)
    assert any("wall clock moved by +7200 s" in note for note in found["notes"])
    assert found["seconds"] < 600


@pytest.mark.parametrize("moved", [-3600.0, 7200.0])
def test_a_clock_in_the_vm_that_jumps_leaves_nothing_settled(bed: Bed, moved: float) -> None:
    _before_looks(bed, lambda: setattr(bed.world, "l1_ahead", moved))
    found, code = _run(bed)
    assert (code, found["verdict"]) == (12, "inconclusive")
    told = re.match(r"the VM's clock moved by ([+-]\d+) s during the night: ", found["reason"])
    assert told and float(told[1]) == pytest.approx(moved, abs=2), found["reason"]
    assert found["reason"][:30] in found["notes"][0]
    assert {claim["verdict"] for claim in found["claims"]} & {"confirmed", "refuted"} == set()


def test_a_clock_in_the_vm_that_is_off_all_night_is_told_by_its_rung_alone(bed: Bed) -> None:
    bed.world.l1_ahead = -3600.0
    found, code = _run(bed)
    assert (code, found["verdict"], found["notes"]) == (0, "confirmed", [])
    boot = next(rung for rung in found["runs"][0]["rungs"] if rung["rung"] == "vm.boot")
    assert "its clock -3" in boot["observed"]


def _limited(bed: Bed, lifted: Callable[[], bool]) -> None:
    """The night's history may not grow once its runs begin, until `lifted`: SQLite's own full disk."""
    opened: list[History] = []

    class Limited(History):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            opened.append(self)

        def add(self, key: int, found: ClimbRecord) -> None:
            self.limit(0 if not lifted() else 1 << 20)
            super().add(key, replace(found, reason=found.reason + "x" * 50_000))

        def end(self, key: int, ending: Any) -> None:
            self.limit(0 if not lifted() else 1 << 20)
            super().end(key, replace(ending, reason=ending.reason + "x" * 50_000))

        def limit(self, more: int) -> None:
            pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
            self._connection.execute(f"PRAGMA max_page_count = {pages + more}")

    bed.patch.setattr(night, "History", Limited)


def test_a_full_disk_under_the_history_is_no_success(bed: Bed) -> None:
    _limited(bed, lambda: False)
    with pytest.raises(HistoryError, match="full") as caught:
        run(_session(bed))
    assert caught.value.exit_code != 0
    bed.patch.undo()
    with History(bed.folder / "state" / "history.db") as past:
        (found,) = past.nights()
    assert (found.state, found.verdict) == ("running", "")  # whoever looks next says inconclusive


def test_a_night_that_could_not_be_written_down_and_its_end_in_the_history_are_one_night(bed: Bed) -> None:
    with sinks.http() as sink:
        bed.patch.setenv("LAB_WEBHOOK_URL", sink.url)
        with bed.patch.context() as patch:
            patch.setattr(bed, "patch", patch)
            _limited(bed, lambda: False)
            with pytest.raises(HistoryError, match="full"):
                run(_session(bed, webhook="json"))
        _run(bed, runs=1, webhook="json")
    first, again, tonight = (request.headers[webhook.DELIVERY] for request in sink.requests)
    assert first == again != tonight
    assert [post.json["verdict"] for post in sink.requests] == ["inconclusive", "inconclusive", "confirmed"]


def test_a_disk_that_has_room_again_once_the_lab_is_gone(bed: Bed) -> None:
    _limited(bed, lambda: bed.world.state is State.ABSENT and bed.world.l1_boots > 0)
    found, code = _run(bed, compare=False)
    assert (found["verdict"], code, len(found["runs"])) == ("confirmed", 0, 3)


def test_a_history_that_cannot_be_written_at_all_is_told_and_is_no_success(bed: Bed) -> None:
    (bed.folder / "state").mkdir()
    bed.session().history_file.mkdir()
    with sinks.http() as sink:
        bed.patch.setenv("LAB_WEBHOOK_URL", sink.url)
        with pytest.raises(HistoryError):
            run(_session(bed, webhook="json"))
        (request,) = sink.requests
    assert request.json["verdict"] == "inconclusive"
    assert "could not be recorded" in request.json["reason"]


def test_a_damaged_history_costs_no_night(bed: Bed) -> None:
    (bed.folder / "state").mkdir()
    bed.session().history_file.write_bytes(b"no database")
    _, code = _run(bed)
    assert code == 0
    document = checked(history(bed.session()))
    assert len(document["events"]) == len(document["nights"]) == 1


def test_settings_that_are_refused_cost_nothing_that_a_night_left(bed: Bed) -> None:
    lab = bed.session().store.place("nightly")
    (lab.folder / night.MARK).touch()
    session = bed.session(emulator={"kind": "docker-android", "image": "Not An Image"})
    found = checked(run(session))["night"]
    assert found["verdict"] == "inconclusive" and "not an image's name" in found["reason"]
    assert bed.session().store.find("nightly") is not None


def test_a_nights_lab_whose_record_was_torn_is_removed_with_its_vm(bed: Bed) -> None:
    def tear() -> None:
        bed.lab("nightly").record_file.write_text("{")

    _before_looks(bed, tear)
    found, _ = _run(bed, runs=2, compare=False)
    assert bed.world.calls.count("destroy") == 1 and bed.world.state is State.ABSENT
    assert not any("could not be removed" in note for note in found["notes"])


def test_the_user_is_heard_though_the_budget_is_spent_by_then(bed: Bed) -> None:
    budget = clock.Budget(600.0)

    def hang() -> None:
        budget.spent = True
        deadline.cancelled.set(budget)
        deadline.cancelled.set()  # Ctrl-C, in the moment in which the budget ends the look
        deadline.check_cancelled()

    bed.patch.setattr(night, "Budget", lambda _seconds: budget)
    _before_looks(bed, hang)
    with pytest.raises(InterruptedByUser):
        run(_session(bed))
    deadline.cancelled.clear()
    assert "the night was stopped" in _past(bed)[0]["reason"]


def test_a_lab_that_somebody_else_made_is_left_alone(bed: Bed) -> None:
    up(bed.session(), "nightly")
    record = bed.lab("nightly").record()
    found, code = _run(bed)
    assert (found["verdict"], code) == ("blocked", 11)
    assert bed.lab("nightly").record() == record
    assert bed.world.state is State.RUNNING


def test_a_lab_that_cannot_be_removed_is_said(bed: Bed) -> None:
    bed.world.broken["destroy"] = LabError("it does not let go")
    found, code = _run(bed)
    assert code == 0
    assert any("could not be removed: it does not let go" in note for note in found["notes"])


def test_a_report_that_cannot_be_written_is_said(bed: Bed) -> None:
    def broken(*_: object) -> Path:
        raise RuntimeError("no ink")

    bed.patch.setattr(following, "report", broken)
    found, code = _run(bed)
    assert (code, found["report"]) == (0, "")
    assert "the report could not be written: no ink" in found["notes"]


# --- telling ----------------------------------------------------------------------------------------


def test_a_webhook_that_is_down_costs_neither_night_nor_verdict(bed: Bed) -> None:
    with sinks.http() as sink:
        url = sink.url + "/a-secret-path-of-a-webhook"
    bed.patch.setenv("LAB_WEBHOOK_URL", url)
    bed.patch.setattr(
        telling,
        "Webhook",
        lambda *words: telling_webhook(*words, Patience(attempts=2, backoff=0.01, read=1.0)),
    )
    found, code = _run(bed, webhook="json")
    assert (found["verdict"], code) == ("confirmed", 0)
    (told,) = found["deliveries"]
    assert (told["channel"], told["delivered"]) == ("webhook", False)
    assert "could not be reached" in told["said"]
    everything = "".join(
        file.read_text(errors="replace") for file in (bed.folder / "state").rglob("*") if file.is_file()
    )
    assert "a-secret-path" not in everything


telling_webhook = telling.Webhook


@pytest.mark.parametrize("recorded", [True, False])
def test_a_keyring_that_breaks_costs_neither_night_nor_its_reason(bed: Bed, recorded: bool) -> None:
    import keyring

    def broken(*_: object) -> str:
        raise RuntimeError("the bus is gone")  # backends have errors of their own

    bed.patch.setattr(keyring, "get_password", broken)
    if recorded:
        found, code = _run(bed, webhook="json")
        assert (found["verdict"], code) == ("confirmed", 0)
        assert "there is no address" in found["deliveries"][0]["said"]
    else:
        (bed.folder / "state").mkdir()
        bed.session().history_file.mkdir()
        with pytest.raises(HistoryError, match="could not be used"):
            _run(bed, webhook="json")


def test_an_address_that_is_missing_is_said(bed: Bed) -> None:
    bed.patch.setattr(telling, "secret", lambda _name: "")
    found, _ = _run(bed, webhook="json")
    assert "LAB_WEBHOOK_URL" in found["deliveries"][0]["said"]


@pytest.mark.parametrize(("notify", "expected"), [("always", 3), ("changes", 2), ("never", 0)])
def test_when_somebody_is_told(bed: Bed, notify: str, expected: int) -> None:
    with sinks.http() as sink:
        bed.patch.setenv("LAB_WEBHOOK_URL", sink.url)
        for kvm_ok in (True, True, False):
            bed.world.kvm_ok = kvm_ok
            _run(bed, webhook="json", notify=notify)
        assert len(sink.requests) == expected
        if expected:
            assert sink.requests[-1].json["findings"][0]["worse"]


def test_the_same_regression_has_the_same_marker_every_night(bed: Bed) -> None:
    _run(bed)
    bed.world.kvm_ok = False
    markers = []
    for version in ("8.0", "8.1"):
        bed.world.facts = replace(bed.world.facts, version=version)
        _run(bed)
        with History(bed.session().history_file) as past:
            (found,) = telling.notice_of(past.nights(1)[0]).findings
        markers.append(found.marker)
    assert markers[0] == markers[1]


def test_every_channel_is_made_from_its_settings_and_secrets(bed: Bed) -> None:
    bed.patch.setattr(telling, "secret", lambda name: f"the {name}")
    mail = {"mail_to": "me@example.com", "mail_server": "127.0.0.1:2525", "mail_user": "me"}
    made = telling.channels(_session(bed, webhook="slack", github="me/lab", **mail))
    assert [channel.name for channel in made] == ["slack", "github", "mail"]
    assert telling.channels(_session(bed)) == []


# --- every day --------------------------------------------------------------------------------------


@pytest.fixture
def systemctl(tmp_path: Path, bed: Bed) -> Path:
    """A home of its own whose systemctl knows what it was given (tests/unit/test_schedule.py has others)."""
    tool = tmp_path / "tools" / "systemctl"
    tool.parent.mkdir()
    known = tmp_path / "known"
    tool.write_text(
        f"""#!/bin/sh
case "$2" in
enable) touch {known};;
stop) rm -f {known};;
status) [ ! -e {tmp_path}/no-bus ] || exit 1; [ -e {known} ] || exit 4; echo active;;
esac
"""
    )
    tool.chmod(0o755)
    bed.patch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    bed.patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    bed.patch.setattr(timetable.schedule, "scheduler", Systemd)
    return tmp_path / "home"


def test_print_writes_nothing(bed: Bed, systemctl: Path) -> None:
    found = checked(install(_session(bed), print_only=True))
    assert [Path(unit["path"]).name for unit in found["units"]] == [
        "lab-nightly.service",
        "lab-nightly.timer",
    ]
    assert "bin/invoke" in found["units"][0]["content"]
    assert not systemctl.exists()
    assert not (bed.folder / "state").exists()


def test_install_status_uninstall(bed: Bed, systemctl: Path) -> None:
    found = checked(install(_session(bed), at="04:05"))
    assert found["changed"]
    assert len(found["installed"]) == 2
    assert not checked(install(_session(bed), at="04:05"))["changed"]
    with pytest.raises(UsageError):
        install(_session(bed), at="4 o'clock")
    _run(bed, runs=1, compare=False)
    said = checked(status(bed.session()))
    assert (said["active"], said["running"], said["last"]["verdict"]) == (True, None, "confirmed")
    with lock.hold(lock_file(bed.session()), "nightly.run", "the night"):
        assert checked(status(bed.session()))["running"]["pid"] == os.getpid()
    (bed.folder / "no-bus").touch()
    assert checked(status(bed.session()))["active"] is None
    with pytest.raises(LabError, match="nothing was removed"):
        uninstall(bed.session())
    (bed.folder / "no-bus").unlink()
    assert len(checked(status(bed.session()))["installed"]) == 2
    assert checked(uninstall(bed.session()))["installed"] == []
    assert checked(status(bed.session()))["active"] is False
    assert not checked(uninstall(bed.session()))["changed"]
    assert len(_past(bed)) == 1


@pytest.mark.parametrize("bus", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("files", [True, False])
def test_status_says_what_is_installed_and_what_is_at_work(
    bed: Bed, systemctl: Path, capsys: pytest.CaptureFixture[str], files: bool, known: bool, bus: bool
) -> None:
    from rich.console import Console

    install(_session(bed))
    if not files:
        for path in Systemd().paths():
            path.unlink()
    if not known:
        (bed.folder / "known").unlink()
    if not bus:
        (bed.folder / "no-bus").touch()
    reply = status(bed.session())
    assert checked(reply)["active"] == (known if bus else None)
    assert reply.show
    reply.show(Console(width=200))
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("systemd: written" if files and not (known and bus) else "systemd: ")
    assert ("it cannot be asked" in said) is not bus
    assert ("files are gone" in said) is (known and bus and not files)


# --- keeping ----------------------------------------------------------------------------------------


def test_forgotten_nights_take_their_evidence_along_and_nothing_else(bed: Bed) -> None:
    up(bed.session(), "other")
    for _ in range(3):
        _run(bed, keep_nights=2)
    assert len(_past(bed)) == 2
    kept = {Path(look["evidence"]).name for one in _past(bed) for look in one["runs"]}
    left = {path.name for path in (bed.session().store.evidence_folder / "nightly").iterdir()}
    assert kept <= left
    assert len([name for name in left if name.endswith("-night")]) == 2
    assert len([name for name in left if name.endswith("-destroy")]) == 2
    assert bed.runs("other")


def test_history_shows_as_many_as_asked_for(bed: Bed) -> None:
    for _ in range(3):
        _run(bed, runs=1, compare=False)
    assert len(history(bed.session(), 2).document["nights"]) == 2
    assert len(history(bed.session(), 0).document["nights"]) == 3
    with pytest.raises(UsageError):
        history(bed.session(), -1)


# --- judging, as a function -------------------------------------------------------------------------


def test_history_knows_the_ladders_verdicts() -> None:
    assert [verdict.value for verdict in Verdict] == list(figures.VERDICTS)


WORDS = [Verdict.CONFIRMED, Verdict.REFUTED, Verdict.BLOCKED, Verdict.INCONCLUSIVE]


def _climb(number: int, verdict: Verdict, broken: bool, kind: str = "validate") -> ClimbRecord:
    if broken:
        return ClimbRecord(number, kind, AT, 1.0, "inconclusive", "", "it broke", error="it broke")
    claims = [Claimed(claim.value, verdict.value, "because") for claim in Claim]
    return ClimbRecord(
        number, kind, AT, 1.0, verdict.value, "nesting", "because", cell=COLUMNS, claims=claims
    )


@given(
    looks=st.lists(st.tuples(st.sampled_from(WORDS), st.booleans()), max_size=6),
    missing=st.integers(0, 3),
    claim=st.sampled_from(["", "nesting", "android"]),
)
def test_green_means_every_planned_run_was(
    looks: list[tuple[Verdict, bool]], missing: int, claim: str
) -> None:
    runs = [_climb(number, *look) for number, look in enumerate(looks, 1)]
    found = judge(runs, missing, "out of time", claim)
    good = bool(runs) and not missing and all(look == (Verdict.CONFIRMED, False) for look in looks)
    assert (found.verdict is Verdict.CONFIRMED) is good
    refuted = bool(runs) and not missing and all(look == (Verdict.REFUTED, False) for look in looks)
    assert (found.verdict is Verdict.REFUTED) is refuted
    assert found.reason
    for one in found.claims:
        assert sum(one.counts.values()) == len(runs) + missing


def test_runs_of_two_cells_confirm_nothing() -> None:
    runs = [_climb(1, Verdict.CONFIRMED, False), _climb(2, Verdict.CONFIRMED, False)]
    runs[1] = replace(runs[1], cell=COLUMNS | {"engine_version": "other"})
    found = judge(runs, 0, "")
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "engine_version" in found.reason


def test_a_column_one_run_did_not_get_to_know_is_no_other_cell() -> None:
    runs = [_climb(1, Verdict.CONFIRMED, False), _climb(2, Verdict.BLOCKED, False)]
    runs[1] = replace(runs[1], cell=COLUMNS | {"acceleration": ""})
    assert "do not agree" in judge(runs, 0, "").reason


def test_a_night_shows_itself(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    bed.world.kvm_ok = False
    for reply in (run(_session(bed)), history(bed.session())):
        assert reply.show
        reply.show(Console(width=100))
    said = capsys.readouterr().out
    assert "nesting: refuted" in said
    assert "report.html" in said


def _night_of(**more: Any) -> Night:
    return Night(**({"id": 1, "uuid": "u", "state": "ended", "started": AT, "planned": 1, "evidence": "e",
                     "lab_version": "0"} | more))  # fmt: skip


def test_a_night_without_a_cell_is_still_told(bed: Bed) -> None:
    notice = telling.notice_of(_night_of(verdict="blocked", reason="no disk"))
    assert notice.title.endswith("the night blocked")
    assert any("no disk" in line for line in notice.lines)
