"""The runs of one night, each kept as history keeps it, whichever way it ends."""

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

from lab.core import redact, system
from lab.core.deadline import USER, cancelled
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.history import model as figures
from lab.history.model import Claimed, ClimbRecord, Figure, RungRecord, cell_columns
from lab.ladder.facts import Facts
from lab.model.domain import Verdict
from lab.nights.clock import JUMP_SECONDS, Budget
from lab.records import evidence
from lab.workflow.session import Reply, Session

UP, VALIDATE, COMPARE = "up", "validate", "compare"


@dataclass
class NightRuns:
    """The runs of one night so far."""

    session: Session
    folder: evidence.Run
    budget: Budget
    records: list[ClimbRecord] = field(default_factory=list)
    reachable: bool = False
    """Whether lab.up ended with a VM that can be looked at again."""
    not_compared: str = ""
    """Why the comparison gave no ratio."""
    clock_offsets: list[float] = field(default_factory=list)
    """How far L1's clock was ahead of the host's in each run that read it, in seconds."""
    counted_boots: set[str] = field(default_factory=set)
    """Boot ids of the L2s whose boot time is on record: each look repeats the boot time; count it once."""

    @property
    def over(self) -> bool:
        """Whether the budget is spent."""
        return self.budget.spent or any(run.cut for run in self.records)

    @property
    def vm_clock_jump(self) -> float:
        """How far L1's clock moved against the host's between runs; 0.0 below JUMP_SECONDS."""
        moves = (later - earlier for earlier, later in pairwise(self.clock_offsets))
        largest = max(moves, key=abs, default=0.0)
        return largest if abs(largest) >= JUMP_SECONDS else 0.0

    def run_once(self, kind: str, command: Callable[[Session], Reply]) -> ClimbRecord:
        """Run lab.up or lab.validate once. Raises InterruptedByUser where the user asked for it."""
        number = len(self.records) + 1
        session = replace(self.session, steps=self.session.steps.branch(), evidence=None, interactive=False)
        started, began = datetime.now(UTC), time.monotonic()
        with self.session.steps.step(f"night.{kind}", f"run {number}") as step:
            try:
                document = command(session).document
            except Exception as error:  # a fault of lab's is a result of the night, too
                cut = isinstance(error, InterruptedByUser)
                if cut and (not self.budget.spent or cancelled.asked_by(USER)):
                    raise
                members = self._of_error(number, error, session.evidence) | {"cut": cut}
            else:
                members = self._of_document(kind, document)
            run = ClimbRecord(
                number=number,
                kind=kind,
                started=started.isoformat(timespec="milliseconds"),
                seconds=round(time.monotonic() - began, 3),
                evidence=str(session.evidence or ""),
                **members,
            )
            step.result = f"{run.verdict}: {run.reason}"
        self.records.append(run)
        return run

    def _of_document(self, kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
        facts = Facts.read(document["facts"])
        if kind == UP:
            self.reachable = document["access"] is not None
        if facts.vm_boot is not None and facts.vm_boot.clock_ahead_seconds is not None:
            self.clock_offsets.append(facts.vm_boot.clock_ahead_seconds)
        if kind == COMPARE and facts.nested_compare:
            self.not_compared = facts.nested_compare.why
        return {
            "verdict": str(document["verdict"]),
            "claim": str(document["claim"]),
            "reason": document["reason"],
            "cell": cell_columns(document["cell"]),
            "claims": [
                Claimed(str(name), str(claim["verdict"]), claim["reason"])
                for name, claim in document["claims"].items()
            ],
            "rungs": [_rung(row) for row in document["rungs"]],
            "figures": self._figures(facts),
        }

    def _of_error(self, number: int, error: Exception, folder: Path | None) -> dict[str, Any]:
        """A run without a document: blocked by what is missing, such as room on the disk, else inconclusive.

        The rungs it had tried by then are on record all the same.
        """
        settings = self.session.settings
        plain = system.explain(error, (settings.state_dir,)) if isinstance(error, OSError) else None
        if isinstance(error, InterruptedByUser):
            what = f"the budget of {self.budget.seconds / 60:.0f} minutes was spent"
        else:
            with contextlib.suppress(OSError):  # the error may be that the disk is full
                self.folder.text(f"error-{number}.txt", "".join(traceback.format_exception(error)))
            if plain:
                what = f"{plain.what}; {plain.hint}"
            else:
                unexpected = f"unexpected {type(error).__name__}: {error}"
                what = error.what if isinstance(error, LabError) else unexpected
        blocked = isinstance(plain or error, BlockedError)
        return {
            "verdict": (Verdict.BLOCKED if blocked else Verdict.INCONCLUSIVE).value,
            "claim": "",
            "reason": redact.clean(what),
            "error": redact.clean(what),
            "rungs": _rungs_in(folder),
        }

    def _figures(self, facts: Facts) -> list[Figure]:
        measured: list[tuple[str, str, float | None]] = []
        boot, boot_id = facts.nested_boot, facts.nested_adb.boot_id if facts.nested_adb else ""
        if boot is not None and boot_id and boot_id not in self.counted_boots:
            self.counted_boots.add(boot_id)
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


def _rungs_in(folder: Path | None) -> list[RungRecord]:
    """The rungs that a climb left in its evidence when it was ended."""
    try:
        rows = json.loads((folder / "rungs.json").read_text()) if folder else []
        return [_rung(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []
