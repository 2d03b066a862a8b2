"""What there is to say of a night, as data and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.core import redact
from lab.core.characters import one_line, printable
from lab.documents.nights import NightlyNotice, NoticeFinding
from lab.history.model import counted


@dataclass(frozen=True)
class Notice:
    """One night for people and machines elsewhere. `cell` is a phrase; paths are of the host's disk.

    `counts` has every verdict, as of lab.history.model.counted.
    """

    night: int
    uuid: str
    host: str
    started: str
    claim: str
    verdict: str
    reason: str
    cell: str
    counts: Mapping[str, int] = field(default_factory=lambda: counted({}))
    findings: Sequence[NoticeFinding] = ()
    notes: Sequence[str] = ()
    report: str = ""
    evidence: str = ""
    changed: str = ""
    """What differs from the last good night; empty where nothing is known of that."""

    @property
    def title(self) -> str:
        """One line: verdict first."""
        worse = sum(finding.worse for finding in self.findings)
        more = f", {worse} regression{'s' if worse != 1 else ''}" if worse else ""
        known = ", known" if any(finding.known for finding in self.findings) else ""
        return as_line(f"lab on {self.host}: {self.claim or 'the night'} {self.verdict}{known}{more}")

    @property
    def lines(self) -> list[str]:
        """The whole of it in sentences, without markup."""
        counts = ", ".join(f"{number} {verdict}" for verdict, number in self.counts.items() if number)
        lines = [
            f"{self.claim or 'the night'}: {self.verdict}: {self.reason}",
            f"for {self.cell}" if self.cell else "",
            f"runs: {counts}" if counts else "",
            *(f"{_word(item)}: {item.text}" for item in self.findings),
            f"since the last good night: {self.changed}" if self.changed else "",
            *(f"note: {note}" for note in self.notes),
            f"night {self.night}, begun {self.started}",
            f"report: {self.report}" if self.report else "",
            f"evidence: {self.evidence}" if self.evidence else "",
        ]
        return [as_line(line) for line in lines if line]

    def document(self) -> dict[str, Any]:
        """nightly.notice/1."""
        return NightlyNotice(
            night=self.night,
            uuid=self.uuid,
            host=self.host,
            started=self.started,
            claim=self.claim,
            verdict=self.verdict,
            reason=_safe(self.reason),
            cell=_safe(self.cell),
            counts=self.counts,
            findings=[item.model_copy(update={"text": _safe(item.text)}) for item in self.findings],
            notes=[_safe(note) for note in self.notes],
            report=self.report,
            evidence=self.evidence,
            changed=_safe(self.changed),
        ).as_json()


def _word(finding: NoticeFinding) -> str:
    return "known issue" if finding.known else "worse" if finding.worse else "better"


def _safe(text: str) -> str:
    return printable(redact.clean(text))


def as_line(text: str) -> str:
    """`text` as it is told elsewhere: one line, without secrets and control characters."""
    return one_line(_safe(text))
