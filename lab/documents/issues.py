"""What nightly.issues prints."""

from __future__ import annotations

from typing import Literal

from lab.model.document import JsonDocument, JsonPart, Moment, Ordinal, Text


class KnownIssueEntry(JsonPart):
    id: Text
    title: Text
    url: str
    culprit: Literal["code", "tool", "host", "theory"]
    """at fault: lab's code, another program, this machine, or the theory itself"""
    state: Literal["open", "closed"]
    by: str
    since: Text
    """YYYY-MM-DD"""
    closed: str | None
    nights: tuple[Ordinal, ...]
    """those on record that failed by it, newest first"""
    last: Moment | None
    """when the newest of them began"""


class NightlyIssues(JsonDocument):
    """The known issues, and which nights failed by them"""

    tag = "nightly.issues/1"

    issues: tuple[KnownIssueEntry, ...]
