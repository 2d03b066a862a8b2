"""One climb of a night, kept as history keeps it, whichever way it ends."""

from __future__ import annotations

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from lab.core import redact
from lab.core.deadline import USER, cancelled
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.history import Claimed, ClimbRecord, Figure, RungRecord, cell_columns
from lab.history import model as figures
from lab.ladder.facts import Facts
from lab.model.domain import Verdict
from lab.nights.clock import JUMP_SECONDS, Budget
from lab.records import evidence
from lab.workflow.session import Reply, Session

UP, VALIDATE, COMPARE = "up", "validate", "compare"


@dataclass
class Looks:
    """The climbs of one night so far. `seen` has the boot ids of the L2s whose boot was counted."""

    session: Session
    folder: evidence.Run
    budget: Budget
    runs: list[ClimbRecord] = field(default_factory=list)
    up: Mapping[str, Any] | None = None
    """lab.up/1 of the night's VM, when it came that far."""
    uncompared: str = ""
    """Why the comparison gave no ratio."""
    ahead: list[float] = field(default_factory=list)
    """How far L1's clock was from the host's in each climb that read it, in seconds."""
    seen: set[str] = field(default_factory=set)

    @property
    def cut(self) -> bool:
        """Whether the budget ended a climb."""
        return any(run.cut for run in self.runs)

    @property
    def vm_clock_jump(self) -> float:
        """How far L1's clock moved against the host's between climbs; 0.0 below JUMP_SECONDS."""
        moved = max((later - earlier for earlier, later in pairwise(self.ahead)), key=abs, default=0.0)
        return moved if abs(moved) >= JUMP_SECONDS else 0.0

    def take(self, kind: str, command: Callable[[Session], Reply]) -> ClimbRecord:
        """Climb once. Only an interruption by the user goes on to the caller."""
        number = len(self.runs) + 1
        session = replace(self.session, steps=self.session.steps.branch(), evidence=None, interactive=False)
        started, began = datetime.now(UTC), time.monotonic()
        document: dict[str, Any] | None = None
        error: Exception | None = None
        with self.session.steps.step(f"night.{kind}", f"run {number}") as step:
            try:
                document = command(session).document
            except InterruptedByUser as interruption:
                if not self.budget.spent or cancelled.asked_by(USER):
                    raise
                error = interruption
            except Exception as failure:  # a fault of lab's is a result of the night, too
                error = failure
            run = ClimbRecord(
                number=number,
                kind=kind,
                started=started.isoformat(timespec="milliseconds"),
                seconds=round(time.monotonic() - began, 3),
                evidence=str(session.evidence or ""),
                cut=isinstance(error, InterruptedByUser),
                **(
                    self._of(document)
                    if document is not None
                    else self._without(number, error, session.evidence)
                ),
            )
            step.result = f"{run.verdict}: {run.reason}"
        if kind == UP:
            self.up = document
        facts = Facts.read(document["facts"]) if document is not None else Facts()
        if facts.vm_boot is not None and facts.vm_boot.clock_ahead_seconds is not None:
            self.ahead.append(facts.vm_boot.clock_ahead_seconds)
        if kind == COMPARE:
            self.uncompared = facts.nested_compare.why if facts.nested_compare else ""
        self.runs.append(run)
        return run

    def _of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "verdict": str(document["verdict"]),
            "claim": str(document["claim"]),
            "reason": document["reason"],
            "cell": cell_columns(document["cell"]),
            "claims": [
                Claimed(str(name), str(found["verdict"]), found["reason"])
                for name, found in document["claims"].items()
            ],
            "rungs": [_rung(row) for row in document["rungs"]],
            "figures": self._figures(Facts.read(document["facts"])),
        }

    def _without(self, number: int, error: Exception | None, evidence_of: Path | None) -> dict[str, Any]:
        """A run that came to no document: blocked by what is absent, else nothing is known.

        The rungs it had seen by then are on record all the same.
        """
        what = error.what if isinstance(error, LabError) else f"unexpected {type(error).__name__}: {error}"
        if isinstance(error, InterruptedByUser):
            what = f"the budget of {self.budget.seconds / 60:.0f} minutes was spent"
        elif error is not None:
            with contextlib.suppress(OSError):  # the error may be that the disk is full
                self.folder.text(f"error-{number}.txt", "".join(traceback.format_exception(error)))
        verdict = Verdict.BLOCKED if isinstance(error, BlockedError) else Verdict.INCONCLUSIVE
        return {
            "verdict": verdict.value,
            "claim": "",
            "reason": redact.clean(what),
            "error": redact.clean(what),
            "rungs": _seen(evidence_of),
        }

    def _figures(self, facts: Facts) -> list[Figure]:
        measured: list[tuple[str, str, float | None]] = []
        boot, boot_id = facts.nested_boot, facts.nested_adb.boot_id if facts.nested_adb else ""
        # The same L2 tells of its one boot every time it is looked at.
        if boot is not None and boot_id and boot_id not in self.seen:
            self.seen.add(boot_id)
            measured.append((figures.NESTED_BOOT, "s", boot.seconds))
        if (compared := facts.nested_compare) is not None:
            measured += [
                (figures.NESTED_BOOT_KVM, "s", compared.with_kvm_seconds),
                (figures.NESTED_BOOT_TCG, "s", compared.without_kvm_seconds),
                (figures.NESTED_RATIO, "ratio", compared.ratio),
            ]
        return [Figure(name, unit, value) for name, unit, value in measured if value is not None]


def _rung(row: Mapping[str, Any]) -> RungRecord:
    return RungRecord(row["rung"], str(row["status"]), row["inconclusive"], row["seconds"], row["observed"])


def _seen(folder: Path | None) -> list[RungRecord]:
    """The rungs a climb had looked at when it was ended, as it left them in its evidence."""
    if folder is None:
        return []
    try:
        return [_rung(row) for row in json.loads((folder / "rungs.json").read_text())]
    except (OSError, ValueError, KeyError, TypeError):
        return []
