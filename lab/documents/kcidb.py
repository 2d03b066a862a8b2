"""A night in kernel CI's words: what `nightly.export --format kcidb-like` writes.

The words and their layout are those of KCIDB's schema 5.3 (kernelci/kcidb-io); `schema` is lab's own member.
"""

from __future__ import annotations

from typing import Literal

from lab.ladder.document import CellEntry
from lab.model.document import Count, JsonDocument, JsonPart, Moment, Number, Ordinal, Seconds, Text

KcidbStatus = Literal["PASS", "FAIL", "ERROR", "MISS", "SKIP", "DONE"]
"""PASS: confirmed, passed. FAIL: refuted, failed. ERROR: inconclusive. MISS: blocked. SKIP: not applicable,
skipped. DONE: done, and judged by nobody: a figure, or a rung that only informs."""


class KcidbVersion(JsonPart):
    major: Literal[5]
    minor: Literal[3]


class KcidbEnvironment(JsonPart):
    """Where a test ran"""

    comment: str
    """the cell in one phrase"""
    misc: CellEntry
    """the cell"""


class KcidbNumber(JsonPart):
    value: Number
    unit: Text


class KcidbTest(JsonPart):
    """A claim of the night, a rung of one of its runs, or a figure"""

    id: Text
    """`lab:` and the night's uuid, and what it is of"""
    origin: Text
    path: Text
    """lab.claims.NAME, lab.rungs.NAME, lab.figures.NAME"""
    status: KcidbStatus
    comment: str
    """the reason, or what was observed"""
    start_time: Moment
    duration: Seconds | None
    number: KcidbNumber | None
    environment: KcidbEnvironment | None
    """null where the cell did not come to be known"""


class KcidbCulprit(JsonPart):
    """Who is at fault, as kernel CI has it"""

    code: bool
    """what is tested: here lab's code, or the theory itself"""
    tool: bool
    harness: bool
    """the machine"""


class KcidbIssue(JsonPart):
    id: Text
    version: Ordinal
    origin: Text
    report_url: str
    report_subject: Text
    culprit: KcidbCulprit
    comment: Text
    """open or closed, by whom, since when; and lab's own word for the culprit"""


class KcidbIncident(JsonPart):
    """A test that failed by an issue"""

    id: Text
    origin: Text
    issue_id: Text
    issue_version: Ordinal
    test_id: Text
    present: Literal[True]


class KcidbLike(JsonDocument):
    """One night in kernel CI's words"""

    tag = "nightly.kcidb-like/1"

    version: KcidbVersion
    tests: tuple[KcidbTest, ...]
    issues: tuple[KcidbIssue, ...]
    incidents: tuple[KcidbIncident, ...]
    runs: Count
    """of the night; this member is lab's own"""
