"""The sentence of the experiment: it never says what a single trial denies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.probes.kvm import CpuFacts
from lab.theory import experiment
from lab.theory.conclusion import Conclusion, Rule, conclude
from lab.theory.experiment import CELLS, AskedCell, DeliveredEntry, TrialEntry, TrialOutcome, delivered
from tests.unit.probed import cpu_facts


def trial(
    nested: bool,
    paravirt: bool | None,
    worked: bool,
    *,
    asked: AskedCell = CELLS[0],
    number: int = 1,
) -> TrialEntry:
    got = DeliveredEntry(
        paravirt=paravirt,
        nested=nested,
        signature="",
        clocksources=(),
        extensions=("svm",) if nested else (),
    )
    return experiment.trial(number, 1, asked, TrialOutcome.OBSERVED, "seen", worked=worked, delivered=got)


def lost(outcome: TrialOutcome, asked: AskedCell = CELLS[0]) -> TrialEntry:
    return experiment.trial(1, 1, asked, outcome, "for a reason")


def world(
    works: Callable[[bool, bool], bool], gives: Callable[[AskedCell], tuple[bool, bool]]
) -> list[TrialEntry]:
    """One trial of each cell, in a world where `gives` is what reaches the guest."""
    return [trial(*gives(asked), works(*gives(asked)), asked=asked) for asked in CELLS]


def as_asked(asked: AskedCell) -> tuple[bool, bool]:
    return asked.nested, asked.paravirt != "none"


def emulation(asked: AskedCell) -> tuple[bool, bool]:
    """An engine that emulates the processor offers no paravirtualization, whatever is asked."""
    return asked.nested, False


@pytest.mark.parametrize(
    ("works", "finding"),
    [
        (lambda nested, _: nested, Rule.NESTING),
        (lambda _, paravirt: paravirt, Rule.PARAVIRT),
        (lambda nested, paravirt: nested and paravirt, Rule.BOTH),
        (lambda nested, paravirt: nested or paravirt, Rule.EITHER),
        (lambda *_: False, Rule.NEVER),
        (lambda *_: True, Rule.ALWAYS),
        (lambda nested, paravirt: nested is not paravirt, Rule.OTHER),
        (lambda nested, _: not nested, Rule.OTHER),
    ],
)
def test_where_everything_is_delivered_the_rule_is_found(
    works: Callable[[bool, bool], bool], finding: Rule
) -> None:
    assert conclude(world(works, as_asked)).finding is finding


def test_what_decides_is_said_with_its_counts() -> None:
    assert conclude(world(lambda nested, _: nested, as_asked)).sentence == (
        "/dev/kvm worked in every run with nesting (3 of 3) and in no other (0 of 3), "
        "with KVM's paravirtual interface and without it: nesting decides."
    )


def test_under_emulation_only_what_was_delivered_is_spoken_of() -> None:
    found = conclude(world(lambda nested, _: nested, emulation))
    assert found.finding is Rule.NESTING_SEEN
    assert "nesting decides" not in found.sentence.split("“")[0]
    assert "is not needed with nesting" in found.sentence
    assert "No guest was seen with both or with KVM's paravirtual interface alone" in found.sentence
    assert "was asked for in 2 runs, and reached the guest in none" in found.sentence


def test_accepted_but_not_delivered_nesting_says_nothing_of_nesting() -> None:
    """As on a host whose engine takes the setting and passes nothing on."""
    found = conclude(world(lambda nested, _: nested, lambda asked: (False, asked.paravirt != "none")))
    assert found.finding is Rule.NEVER
    assert "nesting alone is not enough" not in found.sentence
    assert "Nesting was asked for in 3 runs, and reached the guest in none." in found.sentence


def test_one_kind_of_guest_decides_nothing() -> None:
    assert conclude([trial(False, False, False)] * 3).finding is Rule.INSUFFICIENT
    assert conclude([trial(True, True, True)] * 3).finding is Rule.INSUFFICIENT
    # Delivered only together: which of them it is cannot be told.
    together = conclude([trial(True, True, True), trial(False, False, False)])
    assert together.finding is Rule.INSUFFICIENT
    for name in ("nesting decides", "paravirtualization decides", "both are needed", "either is enough"):
        assert f"“{name}”" in together.sentence


def test_runs_that_disagree_give_no_rule() -> None:
    trials = world(lambda nested, _: nested, as_asked)
    found = conclude([*trials, trial(True, True, False)])
    assert (found.finding, found.decided) == (Rule.MIXED, False)
    assert "with both 2 of 3" in found.sentence


def test_what_was_not_observed_is_counted_and_decides_nothing() -> None:
    trials = world(lambda nested, _: nested, as_asked)
    without = [
        lost(TrialOutcome.BLOCKED),
        lost(TrialOutcome.INCONCLUSIVE),
        lost(TrialOutcome.NOT_TAKEN),
        trial(True, None, False),
    ]
    found = conclude([*trials, *without])
    assert found.finding is Rule.NESTING
    assert (
        "4 of 10 runs gave no answer (1 blocked, 1 inconclusive, 1 not taken, 1 unclear)." in found.sentence
    )
    nothing = conclude(without)
    assert (nothing.finding, nothing.decided) == (Rule.INSUFFICIENT, False)


TRIALS = st.lists(
    st.one_of(
        st.builds(
            trial,
            st.booleans(),
            st.sampled_from([True, False, True, False, None]),
            st.booleans(),
            asked=st.sampled_from(CELLS),
        ),
        st.builds(
            lost, st.sampled_from([kind for kind in TrialOutcome if kind is not TrialOutcome.OBSERVED])
        ),
    ),
    max_size=10,
)
LAWS = st.sampled_from(
    [
        lambda nested, _: nested,
        lambda _, paravirt: paravirt,
        lambda nested, paravirt: nested and paravirt,
        lambda nested, paravirt: nested or paravirt,
        lambda nested, paravirt: nested is not paravirt,
        lambda *_: True,
        lambda *_: False,
    ]
)


@st.composite
def lawful(draw: st.DrawFn) -> list[TrialEntry]:
    """Trials that obey a law, some of them turned round: chance alone seldom gives a rule."""
    law, trials = draw(LAWS), draw(TRIALS)
    kept = [
        item.model_copy(update={"worked": law(item.delivered.nested, bool(item.delivered.paravirt))})
        if item.delivered
        else item
        for item in trials
    ]
    return kept + draw(st.lists(st.sampled_from(trials), max_size=1)) if trials else kept


def observed(trials: list[TrialEntry]) -> list[tuple[bool, bool, bool]]:
    """(nesting, paravirtualization, worked) of each trial that counts, found without the code under test."""
    return [
        (item.delivered.nested, item.delivered.paravirt, bool(item.worked))
        for item in trials
        if item.outcome is TrialOutcome.OBSERVED and item.delivered and item.delivered.paravirt is not None
    ]


MUST: dict[Rule, Callable[[bool, bool, bool], bool]] = {
    Rule.NESTING: lambda nested, _, worked: worked is nested,
    Rule.NESTING_SEEN: lambda nested, _, worked: worked is nested,
    Rule.PARAVIRT: lambda _, paravirt, worked: worked is paravirt,
    Rule.PARAVIRT_SEEN: lambda _, paravirt, worked: worked is paravirt,
    Rule.BOTH: lambda nested, paravirt, worked: worked is (nested and paravirt),
    Rule.EITHER: lambda nested, paravirt, worked: worked is (nested or paravirt),
    Rule.NEVER: lambda _, __, worked: not worked,
    Rule.ALWAYS: lambda _, __, worked: worked,
}
WHOLE = (Rule.NESTING, Rule.PARAVIRT, Rule.BOTH, Rule.EITHER)


@given(st.one_of(TRIALS, lawful()))
def test_no_trial_contradicts_the_finding(trials: list[TrialEntry]) -> None:
    found, seen = conclude(trials), observed(trials)
    if found.finding in MUST:
        assert seen
        assert all(MUST[found.finding](*row) for row in seen)
    groups = {row[:2] for row in seen}
    if found.finding in WHOLE:
        assert len(groups) == 4
    if found.finding in (Rule.NESTING, Rule.NESTING_SEEN):
        assert {nested for nested, _ in groups} == {True, False}
    if found.finding in (Rule.PARAVIRT, Rule.PARAVIRT_SEEN):
        assert {paravirt for _, paravirt in groups} == {True, False}
    if found.finding is Rule.MIXED:
        assert any({(*group, True), (*group, False)} <= set(seen) for group in groups)


@given(st.one_of(TRIALS, lawful()), st.booleans(), st.booleans())
def test_a_single_contrary_trial_takes_the_finding_back(
    trials: list[TrialEntry], nested: bool, paravirt: bool
) -> None:
    found = conclude(trials)
    for worked in (True, False):
        if found.finding in MUST and not MUST[found.finding](nested, paravirt, worked):
            assert conclude([*trials, trial(nested, paravirt, worked)]).finding is not found.finding


@given(st.one_of(TRIALS, lawful()))
def test_each_clause_of_the_sentence_holds(trials: list[TrialEntry]) -> None:
    """The words are read back and compared with the trials, whichever rule wrote them."""
    sentence, seen = conclude(trials).sentence, observed(trials)

    def worked(rows: list[tuple[bool, bool, bool]]) -> str:
        return f"{sum(row[2] for row in rows)} of {len(rows)}"

    whats: dict[str, Callable[[bool, bool], bool]] = {
        "nesting": lambda nested, _: nested,
        "KVM's paravirtual interface": lambda _, paravirt: paravirt,
        "nesting and KVM's paravirtual interface": lambda nested, paravirt: nested and paravirt,
        "nesting or KVM's paravirtual interface": lambda nested, paravirt: nested or paravirt,
    }
    everywhere = re.search(
        r"in every run with (.+?) \((\d+ of \d+)\) and in no other \((\d+ of \d+)\)", sentence
    )
    if everywhere:
        on = whats[everywhere[1]]
        assert everywhere[2] == worked([row for row in seen if on(*row[:2])])
        assert everywhere[3] == worked([row for row in seen if not on(*row[:2])])
        assert all(row[2] is on(*row[:2]) for row in seen)
    called = {
        "with both": (True, True),
        "with nesting alone": (True, False),
        "with KVM's paravirtual interface alone": (False, True),
        "with neither": (False, False),
    }
    for name, group in called.items():
        for count in re.findall(rf"{name} (\d+ of \d+)", sentence):
            assert count == worked([row for row in seen if row[:2] == group])
    for name, group in {
        "KVM's paravirtual interface is not needed with nesting": (True, False),
        "nesting is not needed with KVM's paravirtual interface": (False, True),
        "neither nesting nor KVM's paravirtual interface is needed": (False, False),
    }.items():
        if name in sentence:
            assert [row for row in seen if row[:2] == group]
            assert all(row[2] for row in seen if row[:2] == group)
    for name, group in {
        "nesting alone is not enough": (True, False),
        "KVM's paravirtual interface alone is not enough": (False, True),
        "together are not enough": (True, True),
    }.items():
        if name in sentence:
            assert [row for row in seen if row[:2] == group]
            assert not any(row[2] for row in seen if row[:2] == group)
    if unseen := re.search(r"[Nn]o guest was seen (.+?)(?:, so |\.)", sentence):
        named = {called[words] for words in unseen[1].split(" or ")}
        assert named == set(called.values()) - {row[:2] for row in seen}
    if nowhere := re.search(r"(\d+) of (\d+) runs gave no answer", sentence):
        assert (int(nowhere[1]), int(nowhere[2])) == (len(trials) - len(seen), len(trials))
    else:
        assert len(seen) == len(trials)


@given(st.one_of(TRIALS, lawful()), st.randoms())
def test_the_order_of_the_trials_does_not_matter(trials: list[TrialEntry], chance) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(trials)
    chance.shuffle(shuffled)
    first, second = conclude(trials), conclude(shuffled)
    assert first.finding is second.finding
    counts = re.compile(
        r" \([^)]*(?:blocked|inconclusive|not taken|unclear)[^)]*\)"
    )  # in order of appearance
    assert counts.sub("", first.sentence) == counts.sub("", second.sentence)


@pytest.mark.parametrize(
    ("signature", "clocks", "paravirt"),
    [
        ("KVMKVMKVM", ["kvm-clock", "tsc"], True),
        ("TCGTCGTCGTCG", ["tsc"], False),
        ("", ["tsc"], False),
        ("KVMKVMKVM", ["tsc"], None),
        ("VBoxVBoxVBox", ["kvm-clock"], None),
        (None, ["tsc"], None),  # it could not be read
    ],
)
def test_what_reached_the_guest_is_its_own_word(
    signature: str | None, clocks: list[str], paravirt: bool | None
) -> None:
    cpu = cpu_facts()["cpu"] | {"hypervisor": signature, "flags": ["hypervisor"]}
    facts = CpuFacts.model_validate(cpu_facts(cpu=cpu, clocksources=clocks))
    found = delivered(facts)
    assert (found.paravirt, found.nested, found.signature) == (paravirt, False, signature or "")


@pytest.mark.parametrize(
    "change", [{"worked": None}, {"delivered": None}, {"outcome": TrialOutcome.BLOCKED}, {"asked": None}]
)
def test_a_trial_that_contradicts_itself_is_not_read(change: dict[str, Any]) -> None:
    whole = trial(True, True, True)
    assert TrialEntry.model_validate_json(whole.model_dump_json()) == whole
    with pytest.raises(ValueError, match="TrialEntry"):
        TrialEntry.model_validate_json(json.dumps(whole.as_json() | change))


def test_nothing_is_decided_by_nothing() -> None:
    assert conclude([]) == Conclusion(Rule.INSUFFICIENT, "Nothing was observed, so nothing follows.")
