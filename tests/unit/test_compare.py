"""lab.compare: every measurement is kept, whatever came of it, and no ratio is made of what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline
from lab.core.deadline import cancelled, cleaning_up
from lab.core.errors import BlockedError, DeadlineError, InterruptedByUser, UsageError
from lab.core.journal import Journal
from lab.emulators import Place
from lab.emulators.canary import Canary
from lab.emulators.protocol import NestedFailedError
from lab.engines.protocol import State
from lab.experiments import measuring
from lab.experiments.measuring import ARM, KVM, TCG
from lab.experiments.turns import plan
from lab.guest.ssh import Guest, Result
from lab.images.canary_recipe import EMULATED_ARM
from lab.tasks.lab import power
from lab.tasks.lab.compare import compare
from lab.tasks.lab.up import up
from lab.workflow.session import Reply
from tests import schema
from tests.unit.bed import Bed, checked
from tests.unit.fakes import FakeEmulator

NAME = "default"
Boot = Callable[[FakeEmulator, str], float]


def boots(bed: Bed, boot: Boot) -> list[tuple[str, str]]:
    """Have L2 boot as `boot` says; the emulator and acceleration of each boot, as they come."""
    seen: list[tuple[str, str]] = []

    def boots(emulator: FakeEmulator, acceleration: str, _deadline: object) -> float:
        seen.append((emulator.name, acceleration))
        return boot(emulator, acceleration)

    bed.world.boots = boots
    return seen


def run_of(reply: Reply) -> Path:
    return Path(reply.document["evidence"])


def outcomes(document: dict[str, Any]) -> list[str]:
    return [row["outcome"] for row in document["measurements"]]


@given(st.integers(1, 8), st.integers(0, 2**32), st.lists(st.integers(), min_size=1, unique=True))
def test_each_round_has_every_cell_once(runs: int, seed: int, cells: list[int]) -> None:
    turns = plan(cells, runs, seed)
    assert turns == plan(cells, runs, seed)
    assert [turn.number for turn in turns] == list(range(1, len(turns) + 1))
    for number in range(1, runs + 1):
        assert sorted(turn.cell for turn in turns if turn.round == number) == sorted(cells)


def test_seeds_give_other_orders_and_a_seed_its_own() -> None:
    assert len({tuple(turn.cell for turn in plan("abcdef", 1, seed)) for seed in range(20)}) > 10
    assert "".join(turn.cell for turn in plan("abcdef", 2, 7)) == "eafdbccdbfea"


def test_the_ratio_has_n_and_spread_and_the_files_are_there(ready: Bed) -> None:
    with ready.untouched("compare", "prepare", "load"):
        reply = compare(ready.session(), NAME, runs=2, seed=7)
    document = checked(reply)
    assert reply.code == 0
    assert [
        (ratio["over"], ratio["under"], ratio["value"], ratio["n_over"], ratio["n_under"], ratio["low"])
        for ratio in document["ratios"]
    ] == [(TCG, KVM, 10.0, 2, 2, 10.0), (ARM, KVM, 15.0, 2, 2, 15.0), (ARM, TCG, 1.5, 2, 2, 1.5)]
    assert outcomes(document) == ["measured"] * 6
    assert [(row["route"], row["n"]) for row in document["summary"]] == [(KVM, 2), (TCG, 2), (ARM, 2)]
    run = Path(document["evidence"])
    assert json.loads((run / "compare.json").read_text())["ratios"] == document["ratios"]
    assert (run / "compare.png").read_bytes().startswith(b"\x89PNG")
    for page in ("compare.html", "compare.md"):
        text = (run / page).read_text()
        assert "10.0 times" in text and "15.0 times" in text and "ARM image" in text


def test_the_order_is_that_of_the_seed(ready: Bed) -> None:
    seen = boots(ready, lambda *_: 5.0)
    first = checked(compare(ready.session(), NAME, runs=3, seed=11))
    order = list(seen)
    seen.clear()
    assert checked(compare(ready.session(), NAME, runs=3, seed=11))["seed"] == first["seed"] == 11
    assert seen == order
    assert checked(compare(ready.session(), NAME, runs=1))["seed"] != 0  # one of its own


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DeadlineError("nothing was heard in 900 s"), "timeout"),
        (NestedFailedError("kvm: entry failed"), "failed"),
        (BlockedError("the VM has no /dev/kvm"), "blocked"),
    ],
)
def test_a_boot_that_gives_no_figure_is_recorded(ready: Bed, error: Exception, outcome: str) -> None:
    left = [error]

    def boot(_self: FakeEmulator, acceleration: str) -> float:
        if acceleration == "tcg" and left:
            raise left.pop()
        return {"kvm": 5.0, "tcg": 50.0}[acceleration]

    boots(ready, boot)
    reply = compare(ready.session(), NAME, runs=3, arm=False)
    document = checked(reply)
    assert sorted(outcomes(document)) == sorted(["measured"] * 5 + [outcome])
    (lost,) = (row for row in document["measurements"] if row["outcome"] == outcome)
    assert (lost["why"], lost["seconds"]) == (error.what, None)  # type: ignore[attr-defined]
    (ratio,) = document["ratios"]
    assert (ratio["n_over"], ratio["n_under"], reply.code) == (2, 3, 0)
    assert document["summary"][1]["without"] == [f"1 {outcome}"]
    assert "1 of 6 gave no figure" in (Path(document["evidence"]) / "compare.html").read_text()


def test_without_one_side_there_is_no_ratio(ready: Bed) -> None:
    def boot(_self: FakeEmulator, acceleration: str) -> float:
        if acceleration == "kvm":
            raise NestedFailedError("kvm: entry failed")
        return 50.0

    boots(ready, boot)
    reply = compare(ready.session(), NAME, runs=2, arm=False)
    assert (checked(reply)["ratios"], reply.code) == ([], 12)
    assert "no ratio" in (Path(reply.document["evidence"]) / "compare.html").read_text()


def test_a_vm_that_dies_ends_the_run_and_nothing_is_dropped(ready: Bed) -> None:
    def boot(_self: FakeEmulator, _acceleration: str) -> float:
        ready.world.state = State.CRASHED
        raise DeadlineError("the connection broke")

    seen = boots(ready, boot)
    document = checked(compare(ready.session(), NAME, runs=3))
    assert len(seen) == 1
    assert outcomes(document) == ["timeout"] + ["not taken"] * 8
    assert document["measurements"][-1]["why"] == "the VM is crashed"


@pytest.mark.parametrize("error", [InterruptedByUser("interrupted"), KeyboardInterrupt()])
def test_an_interruption_keeps_what_was_measured(ready: Bed, error: BaseException) -> None:
    count = iter(range(10))

    def boot(_self: FakeEmulator, _acceleration: str) -> float:
        if next(count) == 3:
            cancelled.set()
            raise error
        return 5.0

    boots(ready, boot)
    session = ready.session()
    with pytest.raises(type(error)):
        compare(session, NAME, runs=4)
    assert session.evidence is not None
    document = json.loads((session.evidence / "compare.json").read_text())
    schema.validate(document)
    assert outcomes(document) == ["measured"] * 3 + ["not taken"] * 9
    assert {row["why"] for row in document["measurements"][3:]} == {"interrupted"}
    assert (session.evidence / "compare.png").exists()


def test_what_an_interruption_broke_is_no_failure(ready: Bed) -> None:
    def boot(_self: FakeEmulator, _acceleration: str) -> float:
        cancelled.set()
        raise DeadlineError("the command was killed")

    boots(ready, boot)
    session = ready.session()
    with pytest.raises(InterruptedByUser):
        compare(session, NAME, runs=1)
    assert session.evidence is not None
    assert outcomes(json.loads((session.evidence / "compare.json").read_text())) == ["not taken"] * 3


def test_cleaning_up_waits_although_all_waiting_was_cancelled() -> None:
    cancelled.set()
    try:
        with cleaning_up():
            deadline.check_cancelled()
        assert cancelled.is_set()
    finally:
        cancelled.clear()
    with cleaning_up():
        pass
    assert not cancelled.is_set()


def test_an_interrupted_boot_leaves_no_container_that_burns_the_vms_processor(tmp_path: Path) -> None:
    ran: list[str] = []

    class Interrupted:
        """L1 as it is when Ctrl-C is pressed while L2 boots: whatever waits is cancelled."""

        def run(self, argv: list[str], **_: Any) -> Result:
            deadline.check_cancelled()
            ran.append(" ".join(argv))
            if "follow" in argv:
                cancelled.set()
                raise InterruptedByUser("interrupted")
            named = {"Id": "f00", "Image": "1", "State": {"Running": True}}
            named["Config"] = {"Labels": {"io.lab.uuid": "u-1"}}
            return Result(argv, json.dumps([named]), "", 0, 0.0)

    place = Place(
        lab_uuid="u-1", cache=tmp_path, secrets=tmp_path, state=tmp_path, journal=Journal(tmp_path / "j")
    )
    canary = Canary(place)
    canary._reference = lambda: "lab/canary:1"  # type: ignore[method-assign]
    try:
        with pytest.raises(InterruptedByUser):
            canary.time_boot(cast(Guest, Interrupted()), "tcg", deadline.Deadline.after(5))
        assert cancelled.is_set()
    finally:
        cancelled.clear()
    assert ran[-1] == "docker rm --force --volumes f00"


def test_a_lab_without_an_emulator_is_compared_with_the_canary(bed: Bed) -> None:
    assert up(bed.session(emulator="none"), NAME).code == 0
    document = checked(compare(bed.session(), NAME, runs=1))
    assert [item["name"] for item in document["emulators"]] == ["canary"]
    assert {"prepare", "load"} <= set(bed.world.calls)


def test_android_is_compared_beside_the_canary(bed: Bed) -> None:
    up(bed.session(emulator="docker-android"), NAME)
    seen = boots(bed, lambda emulator, accel: {"kvm": 5.0, "tcg": 50.0}[accel] * (1 + emulator.android))
    reply = compare(bed.session(), NAME, runs=2)
    document = checked(reply)
    assert {name for name, _ in seen} == {"canary", "docker-android", EMULATED_ARM.name}
    assert [item["android"] for item in document["emulators"]] == [False, True]
    pairs = [(ratio["emulator"], ratio["over"], ratio["under"]) for ratio in document["ratios"]]
    arm = [("canary", ARM, KVM), ("canary", ARM, TCG)]
    assert pairs == [("canary", TCG, KVM), *arm, ("docker-android", TCG, KVM)]
    assert "an ARM image of Android is not measured" in (run_of(reply) / "compare.md").read_text()


def test_an_image_that_cannot_be_had_blocks_its_own_boots_only(bed: Bed) -> None:
    up(bed.session(emulator="docker-android"), NAME)
    boots(bed, lambda *_: 5.0)
    for absent, other in (("canary", "docker-android"), ("docker-android", "canary")):

        def load(self: FakeEmulator, *_: object, absent: str = absent) -> None:
            if self.name == absent:
                raise BlockedError("the VM's disk is full")

        bed.patch.setattr(FakeEmulator, "load", load)
        reply = compare(bed.session(), NAME, runs=1, arm=False)
        rows = {(row["emulator"], row["outcome"], row["why"]) for row in checked(reply)["measurements"]}
        assert rows == {(absent, "blocked", "the VM's disk is full"), (other, "measured", "")}
        assert reply.code == 12


@pytest.mark.parametrize(
    ("machine", "arm", "words"),
    [
        ("aarch64", True, "the VM is an ARM machine itself"),
        ("riscv64", True, "alone, and the VM is riscv64"),
        ("x86_64", False, "not asked for"),
    ],
)
def test_the_arm_route_is_never_pretended(ready: Bed, machine: str, arm: bool, words: str) -> None:
    ready.world.l1_machine = machine
    seen = boots(ready, lambda *_: 5.0)
    reply = compare(ready.session(), NAME, runs=1, arm=arm)
    document = checked(reply)
    assert len(seen) == 2 and all(row["route"] != ARM for row in document["measurements"])
    assert document["routes"][-1]["route"] == ARM and words in document["routes"][-1]["why_not"]
    assert "image" not in document["routes"][-1] and len(document["ratios"]) == 1
    assert words in (run_of(reply) / "compare.md").read_text() and reply.code == 0


@pytest.mark.parametrize("call", ["prepare", "load"])
def test_without_an_arm_image_the_other_two_stand(ready: Bed, call: str) -> None:
    def fail(self: FakeEmulator, *_: object) -> None:
        if self.name == EMULATED_ARM.name:
            raise BlockedError("no mirror answers")

    ready.patch.setattr(FakeEmulator, call, fail)
    reply = compare(ready.session(), NAME, runs=2)
    document = checked(reply)
    assert [ratio["over"] for ratio in document["ratios"]] == [TCG] and reply.code == 0
    assert document["routes"][-1]["why_not"] == "no mirror answers"
    assert document["summary"][-1]["without"] == ["2 blocked"]
    assert "no mirror answers" in (run_of(reply) / "compare.html").read_text()


def test_an_arm_boot_that_fails_is_recorded_and_costs_the_others_nothing(ready: Bed) -> None:
    def boot(emulator: FakeEmulator, acceleration: str) -> float:
        if emulator.name == EMULATED_ARM.name:
            raise DeadlineError("nothing was heard in 900 s")
        return {"kvm": 5.0, "tcg": 50.0}[acceleration]

    boots(ready, boot)
    reply = compare(ready.session(), NAME, runs=2)
    document = checked(reply)
    assert [ratio["value"] for ratio in document["ratios"]] == [10.0] and reply.code == 0
    assert document["routes"][-1]["why_not"] == "", "it was tried"
    assert document["summary"][-1]["without"] == ["2 timeout"]


def test_arm_is_compared_with_x86_without_kvm_where_nested_kvm_gave_no_figure(ready: Bed) -> None:
    def boot(emulator: FakeEmulator, acceleration: str) -> float:
        if acceleration == "kvm":
            raise NestedFailedError("kvm: entry failed")
        return 75.0 if emulator.name == EMULATED_ARM.name else 50.0

    boots(ready, boot)
    reply = compare(ready.session(), NAME, runs=1)
    assert [(ratio["over"], ratio["value"]) for ratio in checked(reply)["ratios"]] == [(ARM, 1.5)]
    assert reply.code == 12, "what nested KVM is worth is not known"
    said = (run_of(reply) / "compare.md").read_text()
    assert "no ratio" in said and "an emulated ARM L2 took 1.5 times as long as x86 without KVM" in said


def test_a_vm_without_memory_for_an_arm_machine_is_told_before_it_boots(ready: Bed) -> None:
    ready.world.l1_memory_mib = 300
    seen = boots(ready, lambda *_: 5.0)
    document = checked(compare(ready.session(), NAME, runs=1))
    assert len(seen) == 2 and "out of memory" in document["routes"][-1]["why_not"]


def test_what_the_arm_image_needs_is_said_before_it_is_made(ready: Bed) -> None:
    session, told = ready.session(), []
    session.steps.subscribe(lambda event: told.append(str(event)))
    ready.world.before["prepare"] = lambda: told.append("made")
    compare(session, NAME, runs=1)
    needs = next(index for index, event in enumerate(told) if "90 MB of packages" in event)
    assert "made" in told[needs:]


def test_bad_usage_and_a_stopped_vm(ready: Bed) -> None:
    with pytest.raises(UsageError, match="measures nothing"):
        compare(ready.session(), NAME, runs=0)
    power.halt(ready.session(), NAME)
    with pytest.raises(BlockedError, match="stopped"):
        compare(ready.session(), NAME)


def test_each_boot_has_its_own_deadline(ready: Bed) -> None:
    seconds: list[float] = []

    def boots(_emulator: object, _acceleration: str, until: deadline.Deadline) -> float:
        seconds.append(until.seconds)
        return 5.0

    ready.world.boots = boots
    session = ready.session()
    compare(session, NAME, runs=1)
    assert seconds == [session.settings.deadlines.nested_boot] * 3
    assert set(measuring.TITLES) == {KVM, TCG, ARM}
