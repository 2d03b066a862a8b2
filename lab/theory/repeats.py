"""Several runs of one cell as one verdict. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lab.model.domain import Verdict


@dataclass(frozen=True)
class Combined:
    """`counts` has the verdicts that came up, in the order of Verdict, and how often each did."""

    verdict: Verdict
    counts: Mapping[Verdict, int]

    @property
    def runs(self) -> int:
        return sum(self.counts.values())

    @property
    def reason(self) -> str:
        """One sentence with the counts."""
        if not self.counts:
            return "nothing was run"
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items())
        if len(self.counts) == 1:
            return f"{verdicts} of {self.runs}"
        return f"{self.runs} runs do not agree: {verdicts}"


def combine(verdicts: Iterable[Verdict]) -> Combined:
    """The verdict of all the runs: theirs when they agree, else inconclusive, with counts.

    Agreement is whole: a run that was blocked, or that could not find out, neither adds to a
    confirmation nor leaves a refutation standing alone. No run at all is inconclusive.
    """
    tally = Counter(verdicts)
    counts = {verdict: tally[verdict] for verdict in Verdict if tally[verdict]}
    verdict = next(iter(counts)) if len(counts) == 1 else Verdict.INCONCLUSIVE
    return Combined(verdict, counts)
