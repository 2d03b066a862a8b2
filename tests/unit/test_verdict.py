"""The verdict rules, over random climbs and cells. A false green is the worst bug."""

from __future__ import annotations

import dataclasses
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import ExitCode
from lab.ladder.rungs import LADDER
from lab.ladder.verdict import exit_code, judge, strongest_claim
from lab.model.domain import Cell, Claim, Host, Nesting, Outcome, Status, Verdict

NAMES = LADDER.names

MAC = Host("macos", "macOS 15.7", "24.6.0", "Intel Core i9")
LINUX = Host("linux", "Debian 12", "6.1.0", "AMD EPYC")
ANDROID_ON_MAC = Cell(
    MAC,
    "virtualbox",
    "7.2.4",
    "hvf",
    Nesting.HARDWARE,
    False,
    "kvm",
    "debian-13-1",
    "redroid",
    "sha256:1",
    True,
)
CANARY_IN_TCG = Cell(
    LINUX, "qemu", "7.2", "tcg", Nesting.EMULATED, True, "none", "debian-13-1", "canary", "sha256:2"
)


def passed(name: str) -> Outcome:
    return Outcome(name, Status.PASSED, "that", "this")


def ended(name: str, status: Status) -> Outcome:
    return Outcome(name, status, "that", "something else")


def ways_not_to_pass(name: str) -> list[Outcome | None]:
    """Every way for a rung not to pass, absence included."""
    return [
        None,
        ended(name, Status.FAILED),
        ended(name, Status.INCONCLUSIVE),
        ended(name, Status.BLOCKED),
        ended(name, Status.SKIPPED),
    ]


# Any climb, consistent or not: mostly passes, so that verdicts of all kinds come up.
outcomes = st.tuples(*(st.sampled_from([passed(name)] * 15 + ways_not_to_pass(name)) for name in NAMES)).map(
    lambda found: [outcome for outcome in found if outcome is not None]
)


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    nesting = draw(st.sampled_from(Nesting))
    emulator = draw(st.sampled_from(["canary", "none", "redroid"]))
    return dataclasses.replace(
        ANDROID_ON_MAC,
        host=draw(st.sampled_from([MAC, LINUX])),
        engine=draw(st.sampled_from(["qemu", "virtualbox"])),
        nesting=nesting,
        emulated=nesting is Nesting.EMULATED or draw(st.booleans()),
        emulator=emulator,
        android=emulator == "redroid",
    )


@given(outcomes, cells())
def test_nothing_is_confirmed_without_every_rung_it_needs(climbed: list[Outcome], cell: Cell) -> None:
    by_name = {outcome.rung: outcome for outcome in climbed}
    for claim, found in judge(climbed, cell).items():
        if found.verdict is Verdict.CONFIRMED:
            assert all(name in by_name and by_name[name].passed for name in LADDER.required(claim))
            assert cell.nesting is not Nesting.NONE
            assert claim is Claim.NESTING or (cell.android and not cell.emulated)
            assert claim is not Claim.THEORY or "guest.paravirt" in by_name


@given(outcomes, cells())
def test_only_a_decisive_rung_seen_to_fail_above_passed_ones_refutes(
    climbed: list[Outcome], cell: Cell
) -> None:
    by_name = {outcome.rung: outcome for outcome in climbed}
    for claim, found in judge(climbed, cell).items():
        if found.verdict is Verdict.REFUTED:
            (name,) = found.rungs
            assert name in LADDER.decisive and by_name[name].status is Status.FAILED
            assert all(by_name[below].passed for below in LADDER.prerequisites(name))
            assert claim is Claim.NESTING or (cell.android and not cell.emulated)
            assert "something else" in found.reason and name in found.reason


@given(st.data(), st.sampled_from(Claim))
def test_no_required_rung_can_be_spared(data: st.DataObject, claim: Claim) -> None:
    assert judge(map(passed, NAMES), ANDROID_ON_MAC)[claim].verdict is Verdict.CONFIRMED
    missing = data.draw(st.sampled_from(LADDER.required(claim)))
    instead = data.draw(st.sampled_from(ways_not_to_pass(missing)))
    climbed = [passed(name) for name in NAMES if name != missing] + ([instead] if instead else [])
    found = judge(climbed, ANDROID_ON_MAC)[claim]
    assert found.verdict is not Verdict.CONFIRMED
    assert found.rungs == (missing,) and missing in found.reason


@given(outcomes, cells())
def test_a_stronger_claim_is_never_confirmed_without_the_weaker(climbed: list[Outcome], cell: Cell) -> None:
    found = {claim: verdict.verdict for claim, verdict in judge(climbed, cell).items()}
    if found[Claim.THEORY] is Verdict.CONFIRMED:
        assert found[Claim.ANDROID] is Verdict.CONFIRMED
    if found[Claim.ANDROID] is Verdict.CONFIRMED:
        assert found[Claim.NESTING] is Verdict.CONFIRMED


@given(outcomes, cells())
def test_the_claim_chosen_by_default_is_one_that_can_be_tested(climbed: list[Outcome], cell: Cell) -> None:
    claim = strongest_claim(cell)
    found = judge(climbed, cell)[claim]
    assert found.verdict is not Verdict.NOT_APPLICABLE
    assert claim is Claim.NESTING or "not tested here" not in found.reason or cell.nesting is Nesting.NONE


@given(outcomes, cells())
def test_another_emulator_than_the_one_asked_for_settles_nothing(climbed: list[Outcome], cell: Cell) -> None:
    for found in judge(climbed, cell, "some other").values():
        assert found.verdict not in (Verdict.CONFIRMED, Verdict.REFUTED)


@pytest.mark.parametrize(
    ("rung", "status", "verdict"),
    [
        ("host.cpu", Status.FAILED, Verdict.CONFIRMED),
        ("guest.paravirt", Status.FAILED, Verdict.CONFIRMED),
        ("host.engine", Status.FAILED, Verdict.BLOCKED),
        ("vm.settings", Status.FAILED, Verdict.BLOCKED),
        ("docker.engine", Status.FAILED, Verdict.BLOCKED),
        ("guest.cpu", Status.FAILED, Verdict.REFUTED),
        ("guest.kvm", Status.FAILED, Verdict.REFUTED),
        ("guest.kvm", Status.BLOCKED, Verdict.BLOCKED),
        ("nested.boot", Status.SKIPPED, Verdict.BLOCKED),
        ("nested.adb", Status.FAILED, Verdict.REFUTED),
    ],
)
def test_nesting_when_one_rung_ends_otherwise(rung: str, status: Status, verdict: Verdict) -> None:
    climbed = [ended(name, status) if name == rung else passed(name) for name in NAMES]
    assert judge(climbed, CANARY_IN_TCG)[Claim.NESTING].verdict is verdict


@pytest.mark.parametrize("rung", LADDER.required(Claim.NESTING))
def test_a_timeout_refutes_nothing(rung: str) -> None:
    climbed = [ended(name, Status.INCONCLUSIVE) if name == rung else passed(name) for name in NAMES]
    found = judge(climbed, CANARY_IN_TCG)[Claim.NESTING]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.reason == f"{rung} could not be settled: something else"


def test_what_a_full_climb_of_the_canary_says() -> None:
    climbed = [ended(name, Status.SKIPPED) if name.startswith("android.") else passed(name) for name in NAMES]
    found = judge(climbed, CANARY_IN_TCG, "canary")
    assert found[Claim.NESTING].verdict is Verdict.CONFIRMED
    assert found[Claim.NESTING].reason == "every rung it needs passed, up to nested.adb: this"
    assert found[Claim.ANDROID].verdict is Verdict.BLOCKED
    assert found[Claim.ANDROID].reason == "not tested here: canary is not Android"
    assert found[Claim.THEORY].verdict is Verdict.NOT_APPLICABLE
    assert strongest_claim(CANARY_IN_TCG) is Claim.NESTING


def test_android_in_an_emulated_processor_settles_only_nesting() -> None:
    cell = dataclasses.replace(CANARY_IN_TCG, emulator="redroid", android=True)
    found = judge(map(passed, NAMES), cell)
    assert found[Claim.NESTING].verdict is Verdict.CONFIRMED
    assert found[Claim.ANDROID].verdict is Verdict.BLOCKED
    # A real engine on a host that is itself emulated is no better.
    on_mac = dataclasses.replace(ANDROID_ON_MAC, emulated=True)
    assert judge(map(passed, NAMES), on_mac)[Claim.THEORY].verdict is Verdict.BLOCKED


def test_a_processor_that_nothing_shows_to_be_real_settles_only_nesting() -> None:
    unknown = dataclasses.replace(ANDROID_ON_MAC, emulated=None)
    verdicts = judge(map(passed, NAMES), unknown)
    assert verdicts[Claim.NESTING].verdict is Verdict.CONFIRMED
    for claim in (Claim.ANDROID, Claim.THEORY):
        assert verdicts[claim].verdict is Verdict.BLOCKED
        assert "nothing shows that the processor is a real one" in verdicts[claim].reason
    refuted = [ended(name, Status.FAILED) if name == "android.boot" else passed(name) for name in NAMES]
    assert judge(refuted, unknown)[Claim.ANDROID].verdict is Verdict.BLOCKED
    assert strongest_claim(unknown) is Claim.NESTING


def test_theory_wants_paravirt_looked_at_but_not_passed() -> None:
    def theory(*paravirt: Outcome) -> Verdict:
        rest = [passed(name) for name in NAMES if name != "guest.paravirt"]
        return judge([*rest, *paravirt], ANDROID_ON_MAC)[Claim.THEORY].verdict

    assert theory(ended("guest.paravirt", Status.FAILED)) is Verdict.CONFIRMED
    assert theory(ended("guest.paravirt", Status.INCONCLUSIVE)) is Verdict.INCONCLUSIVE
    assert theory(ended("guest.paravirt", Status.SKIPPED)) is Verdict.BLOCKED
    assert theory() is Verdict.INCONCLUSIVE


def test_a_cell_without_nesting_contradicts_a_full_climb_and_excuses_a_failed_one() -> None:
    cell = dataclasses.replace(CANARY_IN_TCG, nesting=Nesting.NONE)
    assert judge(map(passed, NAMES), cell)[Claim.NESTING].verdict is Verdict.INCONCLUSIVE
    climbed = [ended(name, Status.FAILED) if name == "guest.cpu" else passed(name) for name in NAMES]
    assert judge(climbed, cell)[Claim.NESTING].verdict is Verdict.BLOCKED


def test_nothing_looked_at_is_inconclusive_and_a_rung_has_one_outcome() -> None:
    assert judge([], CANARY_IN_TCG)[Claim.NESTING].verdict is Verdict.INCONCLUSIVE
    with pytest.raises(ValueError, match="two outcomes"):
        judge([passed("vm.boot"), passed("vm.boot")], CANARY_IN_TCG)


def test_only_confirmed_leaves_with_zero() -> None:
    codes = {verdict: exit_code(verdict) for verdict in Verdict}
    assert codes == {
        Verdict.CONFIRMED: ExitCode.DONE,
        Verdict.REFUTED: ExitCode.REFUTED,
        Verdict.BLOCKED: ExitCode.BLOCKED,
        Verdict.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
        Verdict.NOT_APPLICABLE: ExitCode.BLOCKED,
    }


def test_cells_and_outcomes_that_contradict_themselves_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="not Android"):
        dataclasses.replace(CANARY_IN_TCG, android=True)
    with pytest.raises(ValueError, match="emulated"):
        dataclasses.replace(CANARY_IN_TCG, emulated=False)
    with pytest.raises(ValueError, match="nothing observed"):
        Outcome("vm.boot", Status.PASSED)
    with pytest.raises(ValueError, match="only a failed rung"):
        Outcome.of_row(passed("vm.boot").row() | {"inconclusive": True})
    with pytest.raises(ValueError, match=r"'vm.tea' is not a rung"):
        judge([passed("vm.tea")], CANARY_IN_TCG)


@given(st.sets(st.sampled_from(NAMES)), cells())
def test_nothing_unobserved_can_be_confirmed(looked_at: set[str], cell: Cell) -> None:
    """However good all that was seen is."""
    found = judge(map(passed, looked_at), cell)
    for claim in Claim:
        if found[claim].verdict is Verdict.CONFIRMED:
            assert set(LADDER.required(claim)) <= looked_at
            assert set(found[claim].rungs) <= looked_at


@given(outcomes, cells(), st.sampled_from(["canary", "none", "redroid"]), st.booleans())
def test_neither_the_canary_nor_emulated_nesting_settles_android_or_the_theory(
    climbed: list[Outcome], cell: Cell, emulator: str, emulated: bool
) -> None:
    stand_in = emulator != "redroid"
    changes = {"emulator": emulator, "android": not stand_in}
    if not stand_in or emulated:
        changes |= {"nesting": Nesting.EMULATED, "emulated": True}
    found = judge(climbed, dataclasses.replace(cell, **changes))  # type: ignore[arg-type]
    for claim in (Claim.ANDROID, Claim.THEORY):
        assert found[claim].verdict in (Verdict.BLOCKED, Verdict.NOT_APPLICABLE)


@given(st.data(), outcomes, cells())
def test_a_refutation_falls_with_any_of_its_prerequisites(
    data: st.DataObject, climbed: list[Outcome], cell: Cell
) -> None:
    rung = data.draw(st.sampled_from(sorted(LADDER.decisive)))
    below = data.draw(st.sampled_from(LADDER.prerequisites(rung)))
    instead = data.draw(st.sampled_from(ways_not_to_pass(below)))
    kept = {outcome.rung: outcome for outcome in climbed} | {rung: ended(rung, Status.FAILED)}
    kept.pop(below, None)
    for found in judge([*kept.values(), *([instead] if instead else [])], cell).values():
        assert found.verdict is not Verdict.REFUTED or found.rungs != (rung,)


@given(outcomes, cells(), st.randoms(use_true_random=False))
def test_the_order_of_the_outcomes_does_not_matter(
    climbed: list[Outcome], cell: Cell, random: Random
) -> None:
    shuffled = list(climbed)
    random.shuffle(shuffled)
    assert judge(shuffled, cell) == judge(climbed, cell)


@given(st.data(), outcomes, cells(), st.sampled_from(Claim))
def test_what_stands_above_the_deciding_rung_changes_nothing(
    data: st.DataObject, climbed: list[Outcome], cell: Cell, claim: Claim
) -> None:
    found = judge(climbed, cell)[claim]
    if len(found.rungs) != 1:
        return
    place = NAMES.index(found.rungs[0])
    below = [outcome for outcome in climbed if NAMES.index(outcome.rung) <= place]
    higher = (st.sampled_from([passed(name), *ways_not_to_pass(name)]) for name in NAMES[place + 1 :])
    above = [data.draw(ways) for ways in higher]
    assert judge([*below, *filter(None, above)], cell)[claim] == found


@given(outcomes, cells(), st.sampled_from(["host.cpu", "guest.paravirt"]))
def test_the_rungs_that_inform_do_not_touch_nesting_or_android(
    climbed: list[Outcome], cell: Cell, informs: str
) -> None:
    without = [outcome for outcome in climbed if outcome.rung != informs]
    before, after = judge(climbed, cell), judge(without, cell)
    assert before[Claim.NESTING] == after[Claim.NESTING] and before[Claim.ANDROID] == after[Claim.ANDROID]
