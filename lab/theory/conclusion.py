"""What the experiment shows, as a finding and as a sentence: both by rule, from what reached the guests.

Pure: no clock, no files, no processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.theory.experiment import AskedCell, TrialEntry, TrialOutcome


class Rule(StrEnum):
    NESTING = "nesting decides"
    PARAVIRT = "paravirtualization decides"
    BOTH = "both are needed"
    EITHER = "either is enough"
    NESTING_SEEN = "nesting made the difference"
    """As NESTING, but not every combination reached a guest: another rule may fit as well."""
    PARAVIRT_SEEN = "paravirtualization made the difference"
    NEVER = "it never worked"
    ALWAYS = "it always worked"
    OTHER = "no simple rule"
    MIXED = "mixed"
    """Guests that got the same behaved differently."""
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True)
class Conclusion:
    finding: Rule
    sentence: str

    @property
    def decided(self) -> bool:
        """Whether something follows."""
        return self.finding not in (Rule.MIXED, Rule.INSUFFICIENT)


@dataclass(frozen=True)
class _Count:
    worked: int
    runs: int

    def __str__(self) -> str:
        return f"{self.worked} of {self.runs}"


Group = tuple[bool, bool]
"""What reached the guest: (nesting, paravirtualization)."""
_Groups = Mapping[Group, _Count]

_BOTH, _NESTING_ALONE, _PARAVIRT_ALONE, _NEITHER = (True, True), (True, False), (False, True), (False, False)
_CALLED: dict[Group, str] = {
    _BOTH: "with both",
    _NESTING_ALONE: "with nesting alone",
    _PARAVIRT_ALONE: "with KVM's paravirtual interface alone",
    _NEITHER: "with neither",
}
_RULES: dict[Rule, Callable[[bool, bool], bool]] = {
    Rule.NESTING: lambda nested, _: nested,
    Rule.PARAVIRT: lambda _, paravirt: paravirt,
    Rule.BOTH: lambda nested, paravirt: nested and paravirt,
    Rule.EITHER: lambda nested, paravirt: nested or paravirt,
    Rule.NEVER: lambda _, __: False,
    Rule.ALWAYS: lambda _, __: True,
}
_SETTINGS = ("nesting", "KVM's paravirtual interface")
_SEEN = ((Rule.NESTING, Rule.NESTING_SEEN), (Rule.PARAVIRT, Rule.PARAVIRT_SEEN))
"""By setting: the rule, and what it is called while not every combination was seen."""


def conclude(trials: Sequence[TrialEntry]) -> Conclusion:
    """What the trials show, with the counts it rests on.

    Trials are grouped by what reached the guest. A rule is stated only if no trial contradicts it, and
    as the one that decides only if every combination was seen.
    """
    observed = [(trial.asked, group, bool(trial.worked)) for trial in trials if (group := _group(trial))]
    groups: dict[Group, _Count] = {}
    for wanted in _CALLED:
        worked = [ok for _, group, ok in observed if group == wanted]
        if worked:
            groups[wanted] = _Count(sum(worked), len(worked))
    finding = _finding(groups)
    got = [(asked, group) for asked, group, _ in observed]
    return Conclusion(finding, " ".join([_said(finding, groups), *_undelivered(got), *_lost(trials)]))


def _group(trial: TrialEntry) -> Group | None:
    got = trial.delivered
    if trial.outcome is not TrialOutcome.OBSERVED or got is None or got.paravirt is None:
        return None
    return got.nested, got.paravirt


def _finding(groups: _Groups) -> Rule:
    if any(0 < count.worked < count.runs for count in groups.values()):
        return Rule.MIXED
    fits = _fits(groups)
    if len(groups) == len(_CALLED):
        return fits[0] if fits else Rule.OTHER
    if not fits:
        return Rule.OTHER
    if Rule.NEVER in fits and groups.keys() - {_NEITHER}:
        return Rule.NEVER
    if Rule.ALWAYS in fits and groups.keys() - {_BOTH}:
        return Rule.ALWAYS
    for place, (rule, as_far_as_seen) in enumerate(_SEEN):
        if rule in fits and _varied_alone(groups, place):
            return as_far_as_seen
    return Rule.INSUFFICIENT


def _fits(groups: _Groups) -> list[Rule]:
    """The rules that no group contradicts."""
    return [
        name
        for name, rule in _RULES.items()
        if all(rule(*group) is (count.worked == count.runs) for group, count in groups.items())
    ]


def _varied_alone(groups: _Groups, place: int) -> bool:
    """Whether one setting was seen both ways with the other the same."""
    levels = [{group[place] for group in groups if group[1 - place] is other} for other in (True, False)]
    return any(len(values) == 2 for values in levels)


def _said(finding: Rule, groups: _Groups) -> str:
    each = "; ".join(f"{_CALLED[group]} {count}" for group, count in groups.items())
    if not groups:
        return "Nothing was observed, so nothing follows."
    if finding is Rule.MIXED:
        return (
            f"Guests that got the same did not behave the same, so no rule is drawn: /dev/kvm worked {each}."
        )
    if finding is Rule.NEVER:
        return f"/dev/kvm worked in no run ({each}), so {_not_enough(groups)}."
    if finding is Rule.ALWAYS:
        return f"/dev/kvm worked in every run ({each}), so {_not_needed(groups)}."
    if finding is Rule.OTHER:
        return f"No simple rule fits: /dev/kvm worked {each}."
    if finding is Rule.INSUFFICIENT:
        return f"/dev/kvm worked {each}. That decides nothing: {_left_open(groups)}"
    if finding in (Rule.BOTH, Rule.EITHER):
        word, on = ("and", all) if finding is Rule.BOTH else ("or", any)
        return f"{_everywhere(groups, f' {word} '.join(_SETTINGS), on)}: {finding}."
    place = 0 if finding in _SEEN[0] else 1
    sentence = _everywhere(groups, _SETTINGS[place], lambda group: group[place])
    if finding in (Rule.NESTING, Rule.PARAVIRT):
        return f"{sentence}, with {_SETTINGS[1 - place]} and without it: {finding}."
    needless = [f"So {word}." for word in [_not_needed(groups)] if word]
    return " ".join([f"{sentence}: {finding}.", *needless, _capital(_left_open(groups, but=_SEEN[place][0]))])


def _everywhere(groups: _Groups, what: str, on: Callable[[Group], bool]) -> str:
    with_it = _sum(count for group, count in groups.items() if on(group))
    without = _sum(count for group, count in groups.items() if not on(group))
    return f"/dev/kvm worked in every run with {what} ({with_it}) and in no other ({without})"


def _left_open(groups: _Groups, but: Rule | None = None) -> str:
    """What would have to be seen, and which rules fit as well as long as it is not."""
    unseen = " or ".join(words for group, words in _CALLED.items() if group not in groups)
    others = " and ".join(f"“{name}”" for name in _fits(groups) if name is not but)
    return f"no guest was seen {unseen}" + (f", so {others} would fit as well." if others else ".")


def _not_enough(groups: _Groups) -> str:
    """What cannot be enough, if it never worked."""
    if _BOTH in groups:
        return f"{' and '.join(_SETTINGS)} together are not enough"
    alone = [
        _SETTINGS[place] for place, group in enumerate((_NESTING_ALONE, _PARAVIRT_ALONE)) if group in groups
    ]
    return " and ".join(f"{what} alone is not enough" for what in alone)


def _not_needed(groups: _Groups) -> str:
    """What cannot be needed, as it worked without; empty when nothing of the kind was seen."""
    worked = {group for group, count in groups.items() if count.worked == count.runs}
    if _NEITHER in worked:
        return f"neither {' nor '.join(_SETTINGS)} is needed"
    nesting, paravirt = _SETTINGS
    without = [f"{paravirt} is not needed with {nesting}"] if _NESTING_ALONE in worked else []
    without += [f"{nesting} is not needed with {paravirt}"] if _PARAVIRT_ALONE in worked else []
    return " and ".join(without)


def _undelivered(got: Sequence[tuple[AskedCell, Group]]) -> list[str]:
    """Where guests got something else than the engine was asked for, said of each setting."""
    lines = []
    for place, what in enumerate(_SETTINGS):
        wanted = [group[place] for asked, group in got if _wants(asked, place) is True]
        unwanted = [group[place] for asked, group in got if _wants(asked, place) is False]
        if not all(wanted):
            lines.append(f"{_capital(what)} was asked for in {_runs(wanted)}, and {_reached(wanted)}.")
        if any(unwanted):
            lines.append(f"{_capital(what)} was to be absent in {_runs(unwanted)}, and {_reached(unwanted)}.")
    return lines


def _wants(asked: AskedCell, place: int) -> bool | None:
    """What was asked of a setting; None when it was left to the engine."""
    return asked.nested if place == 0 else {"kvm": True, "none": False}.get(asked.paravirt)


def _runs(listed: Sequence[bool]) -> str:
    return "1 run" if len(listed) == 1 else f"{len(listed)} runs"


def _reached(listed: Sequence[bool]) -> str:
    return f"reached the guest in {sum(listed) or 'none'}"


def _lost(trials: Sequence[TrialEntry]) -> list[str]:
    """How many trials are in no group, and why."""
    kinds = Counter(
        "unclear" if trial.outcome is TrialOutcome.OBSERVED else trial.outcome.value
        for trial in trials
        if _group(trial) is None
    )
    if not kinds:
        return []
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return [f"{sum(kinds.values())} of {len(trials)} runs gave no answer ({counts})."]


def _sum(counts: Iterable[_Count]) -> _Count:
    listed = list(counts)
    return _Count(sum(count.worked for count in listed), sum(count.runs for count in listed))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
