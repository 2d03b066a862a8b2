"""Known issues: failures that somebody has looked into, and the nights that fail by them.

What is known changes no verdict. A night is known when each of its failures matches an open issue; one that
matches a closed issue is news.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lab.core.errors import UsageError
from lab.core.files import read_toml
from lab.history.model import CELL, KNOWN, ClimbRecord, Night, NightFinding
from lab.history.regressions import VERDICT
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim, Verdict
from lab.workflow.session import ROOT, Session

NAME = "known-issues.toml"
"""In the project's folder, and in lab's state folder; the second adds to the first."""
BACK = "back: "
"""What the key of a finding begins with whose closed issue matches again."""

Culprit = Literal["code", "tool", "host", "theory"]


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return value


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IssueMatch(_Table):
    """What a failure must be for it to be this issue: all that is given here."""

    rung: str = ""
    message: Annotated[str, AfterValidator(_pattern)] = ""
    cell: dict[str, str] = {}

    @model_validator(mode="after")
    def _narrow_enough(self) -> IssueMatch:
        if not (self.rung or self.message):
            raise ValueError(
                "a match needs a rung or a message: a cell alone would excuse every failure in it"
            )
        if self.rung and self.rung not in LADDER:
            raise ValueError(f"there is no rung {self.rung}")
        if strange := [name for name in self.cell if name not in CELL]:
            raise ValueError(f"a cell has no {', '.join(strange)}")
        return self

    def takes(self, failure: Failure) -> bool:
        """Whether that failure is one of these."""
        cell = failure.run.cell or {} if failure.run else {}
        return (
            (not self.rung or self.rung == failure.rung)
            and (not self.message or bool(re.search(self.message, failure.message)))
            and all(name in cell and fnmatchcase(str(cell[name]), like) for name, like in self.cell.items())
        )


class KnownIssue(_Table):
    """One issue of known-issues.toml."""

    id: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    title: str = Field(min_length=1)
    url: str = Field("", pattern=r"^(https?://\S+)?$")
    culprit: Culprit
    state: Literal["open", "closed"] = "open"
    by: str = ""
    since: date
    closed: date | None = None
    match: tuple[IssueMatch, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _closed_on_a_day(self) -> KnownIssue:
        if (self.state == "closed") != (self.closed is not None):
            raise ValueError(
                "`closed` is the day on which a closed issue was closed, and of an open one absent"
            )
        return self

    @property
    def words(self) -> str:
        """It in one phrase."""
        by = f" by {self.by}" if self.by else ""
        state = f"closed on {self.closed}{by}" if self.closed else f"open since {self.since}{by}"
        return f"{self.id}: {self.title} ({self.culprit}, {state}{f', {self.url}' if self.url else ''})"


class _File(_Table):
    issue: tuple[KnownIssue, ...] = ()


@dataclass(frozen=True)
class Failure:
    """One thing that kept a night from being confirmed. `run` is None where no run failed."""

    rung: str
    message: str
    run: ClimbRecord | None = None


@dataclass(frozen=True)
class KnownFailures:
    """A night's failures, each with the issues that match it; open ones come first."""

    failures: Sequence[tuple[Failure, Sequence[KnownIssue]]]

    @cached_property
    def issues(self) -> list[KnownIssue]:
        """For each failure that matches any the issue it is put down to, once each."""
        chosen = {matching[0].id: matching[0] for _, matching in self.failures if matching}
        return list(chosen.values())

    @property
    def wholly(self) -> bool:
        """Whether every failure is put down to an open issue; false for a night without one."""
        firsts = [matching[0] if matching else None for _, matching in self.failures]
        return bool(firsts) and all(issue is not None and issue.state == "open" for issue in firsts)


def read(session: Session) -> list[KnownIssue]:
    """The issues of the project's file and of the state folder's. Raises UsageError for a wrong one."""
    issues: dict[str, KnownIssue] = {}
    for path in (ROOT / NAME, session.settings.state_dir / NAME):
        for issue in _read(path):
            if issue.id in issues:
                raise UsageError(f"two known issues are called {issue.id}", evidence=[path])
            issues[issue.id] = issue
    return list(issues.values())


def recognise(night: Night, issues: Sequence[KnownIssue]) -> KnownFailures:
    """Which issues the failures of an ended night are."""
    ordered = sorted(issues, key=lambda issue: issue.state == "closed")
    return KnownFailures(
        [
            (failure, [issue for issue in ordered if any(match.takes(failure) for match in issue.match)])
            for failure in failures(night)
        ]
    )


def findings(recognised: KnownFailures, others: Sequence[NightFinding]) -> list[NightFinding]:
    """The findings of a night with what is known of its failures.

    Of a night that is known as a whole the lost verdicts are no news: they are said within what is known.
    """
    if not recognised.wholly:
        again = [issue for issue in recognised.issues if issue.state == "closed"]
        words = "was thought mended, and matches again"
        return [*(NightFinding(f"{BACK}{issue.id}", f"{issue.words} {words}") for issue in again), *others]
    lost = [finding for finding in others if finding.worse and finding.key.startswith(VERDICT)]
    known = [NightFinding(f"{KNOWN}{issue.id}", issue.words, worse=False) for issue in recognised.issues]
    news = "".join(f"; {finding.text}" for finding in lost)
    known[-1] = replace(known[-1], text=f"{known[-1].text}{news}")
    return [*known, *(finding for finding in others if finding not in lost)]


def partly(recognised: KnownFailures) -> str:
    """What is known of a night that is not known as a whole, in a sentence; empty where nothing is."""
    known = [issue.words for issue in recognised.issues if issue.state == "open"]
    if recognised.wholly or not known:
        return ""
    strange = [failure.rung or "the night" for failure, matching in recognised.failures if not matching]
    rest = f"; not known: {', '.join(dict.fromkeys(strange))}" if strange else ""
    return f"of its failures these are known: {'; '.join(known)}{rest}"


def failures(night: Night) -> list[Failure]:
    """What kept a night from being confirmed: of each run that did not confirm the rungs that failed, without
    those that only inform; else what blocked it; else the error that ended it."""
    if not night.verdict or night.verdict in (Verdict.CONFIRMED, Verdict.NOT_APPLICABLE):
        return []
    red = [run for run in night.runs if run.verdict not in (Verdict.CONFIRMED, Verdict.NOT_APPLICABLE)]
    every = [failure for run in red for failure in _of_run(run, night.claim)]
    return every or [Failure("", night.reason)]


def _of_run(run: ClimbRecord, claim: str) -> list[Failure]:
    required = LADDER.required(Claim(claim)) if claim in list(Claim) else LADDER.names
    needed = [row for row in run.rungs if row.rung in required]
    failed = [row for row in needed if row.status == "failed"]
    failed = failed or [row for row in needed if row.status == "blocked"][:1]
    if run.error or not failed:
        last = failed[0].rung if failed else ""
        return [Failure(last, run.error or run.reason, run)]
    return [Failure(row.rung, row.observed, run) for row in failed]


def _read(path: Path) -> Sequence[KnownIssue]:
    try:
        return _File.model_validate(read_toml(path)).issue
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UsageError(f"{path.name} is wrong at {where}: {first['msg']}", evidence=[path]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is no TOML: {error}", evidence=[path]) from error
