"""What a climb looks like: the lab.validation/1 document, a table for people, and a summary in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lab import __version__
from lab.core import redact
from lab.core.characters import one_line, printable
from lab.ladder.climb import Climb
from lab.ladder.document import ClimbedLab, Validation
from lab.ladder.rungs import LADDER
from lab.ladder.verdict import ClaimVerdict
from lab.model.domain import INFORMS, Cell, Claim, Nesting, Outcome, Status, Verdict

_NESTING = {
    Nesting.HARDWARE: "nesting in hardware",
    Nesting.EMULATED: "nesting emulated in software",
    Nesting.NONE: "no nesting",
}
_LOOKS: dict[str, tuple[str, str]] = {
    Status.PASSED: ("✓", "green"),
    Status.FAILED: ("✗", "bold red"),
    Status.INCONCLUSIVE: ("?", "yellow"),
    Status.BLOCKED: ("■", "yellow"),
    Status.SKIPPED: ("-", "dim"),
    INFORMS: ("i", "blue"),
}


def document(
    *,
    lab_name: str,
    lab_uuid: str,
    cell: Cell,
    climbed: Climb,
    claims: Mapping[Claim, ClaimVerdict],
    claim: Claim,
    started: datetime,
    ended: datetime,
    evidence: Path | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The result of a climb as lab.validation/1: plain JSON values, secrets masked.

    `claim` is the one whose verdict is the document's own; `started` and `ended` carry a time zone;
    `evidence` is the folder of this run; `facts` is what was measured on the way (Facts.document).
    """
    chosen = claims[claim]
    result = Validation(
        lab=ClimbedLab(name=lab_name, uuid=lab_uuid),
        cell=cell,
        rungs=[outcome.row() for outcome in climbed.outcomes],
        claims={name.value: verdict for name, verdict in claims.items()},
        claim=claim,
        verdict=chosen.verdict,
        reason=chosen.reason,
        started=_utc(started),
        ended=_utc(ended),
        seconds=round(max(0.0, (ended - started).total_seconds()), 3),
        evidence=None if evidence is None else str(evidence),
        facts=_plain(facts or {}),
        lab_version=__version__,
    )
    cleaned: dict[str, Any] = _plain(result.as_json())
    return cleaned


def word(outcome: Outcome, claim: Claim) -> str:
    """What came of a rung, for people who ask about this claim: its status, or `informs`."""
    failed = outcome.status is Status.FAILED
    return INFORMS if failed and LADDER.informs(outcome.rung, claim) else outcome.status.value


def table(outcomes: Iterable[Outcome], claim: Claim) -> Table:
    """The rungs for people; what was expected and a hint only where a rung did not pass."""
    shown = Table(box=None, pad_edge=False, header_style="dim")
    shown.add_column("")
    shown.add_column("rung", no_wrap=True)
    shown.add_column("status", no_wrap=True)
    shown.add_column("observed", overflow="fold")
    shown.add_column("seconds", justify="right", no_wrap=True)
    for outcome in outcomes:
        result = word(outcome, claim)
        glyph, style = _LOOKS[result]
        seconds = f"{outcome.seconds:.1f}" if outcome.tried else ""
        shown.add_row(
            Text(glyph, style), outcome.rung, Text(result, style), _details(outcome), Text(seconds, "dim")
        )
    return shown


def summary(cell: Cell, claims: Mapping[Claim, ClaimVerdict], claim: Claim) -> list[str]:
    """The verdict, the other claims, the cell they hold for, and what none of it proves; a line each."""
    others = [
        f"{named(name, cell)}: {other.verdict} ({other.reason})"
        for name, other in claims.items()
        if name != claim
    ]
    chosen = claims[claim]
    return [
        redact.clean(line)
        for line in (
            f"{named(claim, cell)}: {chosen.verdict}, for {describe(cell)}: {chosen.reason}",
            *others,
            *(f"not proven: {limit}" for limit in limits(cell, claim, chosen.verdict)),
            *([f"spoken to over {cell.transport}"] if cell.transport else []),
        )
    ]


def named(claim: Claim, cell: Cell) -> str:
    """The claim by its right name in this cell: where nothing is nested, `nesting` is KVM in a container; on
    arm64 it is about guests of that kind.
    """
    if claim is not Claim.NESTING:
        return claim.value
    name = "kvm in a container" if cell.nothing_nested else claim.value
    return f"arm64 {name}" if cell.arm64 else name


def describe(cell: Cell) -> str:
    """The cell in one phrase."""
    engine = f"{cell.engine} {cell.engine_version}".strip()
    pc = f", all in the emulated PC {cell.host.pc}" if cell.host.pc else ""
    processor = f"{cell.host.cpu}, arm64" if cell.arm64 else cell.host.cpu
    return (
        f"{engine} ({cell.acceleration or 'not started'}, {nesting(cell)}) on {cell.host.os} "
        f"({processor}), VM image {cell.image or 'none'}, emulator {cell.emulator or 'none'}{pc}"
    )


def nesting(cell: Cell) -> str:
    """What provides L1's virtualization extensions, in words."""
    if cell.nothing_nested:
        return "nothing is nested"
    if cell.emulated and cell.nesting is Nesting.HARDWARE:
        return "nesting on an emulated host"
    return _NESTING[cell.nesting]


def limits(cell: Cell, claim: Claim, verdict: Verdict) -> list[str]:
    """What this verdict does not prove, in this cell."""
    gaps = []
    if verdict in (Verdict.BLOCKED, Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE):
        gaps.append(f"anything about {named(claim, cell)}, for or against: it was not settled here")
    else:
        gaps.append("anything about other versions, settings or machines than the ones named above")
    if cell.emulated:
        gaps.append("that real hardware behaves the same: a processor here is emulated in software")
    elif cell.emulated is None:
        gaps.append("that real hardware behaves the same: nothing shows that the processors here are real")
    if cell.arm64:
        gaps.append("anything about x86 guests: KVM on an arm64 processor runs arm64 ones alone")
    if not cell.android:
        gaps.append("that Android boots: no Android ran here")
    elif verdict is Verdict.CONFIRMED:
        gaps.append("how fast Android is, or that every app works in it")
    if cell.host.system != "macos" or cell.engine != "virtualbox":
        gaps.append("the theory about VirtualBox on macOS: this is another host or engine")
    return gaps


def _details(outcome: Outcome) -> Text:
    # Each on its own line, which what a guest said cannot begin another of.
    text = Text(_line(outcome.observed))
    if outcome.tried and not outcome.passed:
        text.append(f"\nexpected: {_line(outcome.expected)}", "dim")
    elif outcome.status is not Status.PASSED:
        text.stylize("dim")
    if outcome.hint and not outcome.passed:
        text.append(f"\nhint: {_line(outcome.hint)}", "cyan")
    return text


def _line(text: str) -> str:
    return one_line(printable(text))


def _utc(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("a time without a zone cannot be reported")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _plain(value: Any) -> Any:
    """`value` in JSON's own types, every text redacted."""
    if isinstance(value, Mapping):
        return {redact.clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact.clean(str(value))
