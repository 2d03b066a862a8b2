"""What came of a rehearsal: its document, and what a person sees."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from lab import __version__
from lab.core.showing import show
from lab.core.tell import show_error
from lab.documents.rehearsals import RehearsedPc, RehearsedTask, TheoryRehearse
from lab.ladder import report
from lab.model.domain import Claim
from lab.rehearsal.pc import PcFacts
from lab.rehearsal.rehearsal import MEMORY_MIB, Rehearsed, name
from lab.tasks.theory.rehearse_answer import RehearsalAnswer

_SHOWS = (
    "What VirtualBox itself does with KVM paravirtualization and nested {extension}, and whether KVM, Docker "
    "and L2 work above that, on a processor that is emulated in software."
)
_SHOWS_NOT = (
    "Nothing of Apple's Hypervisor.framework, on which VirtualBox runs its VMs on a Mac, of real silicon, of "
    "Android, or of speed."
)


@dataclass(frozen=True)
class RehearsalResult:
    cpu: str
    pc: PcFacts
    image: str
    extension: str
    """Of the processor, by which it runs VMs; empty where it has none."""
    rehearsed: Rehearsed
    answer: RehearsalAnswer
    started: datetime
    seconds: float
    evidence: Path

    def document(self) -> dict[str, Any]:
        """The result as theory.rehearse/1."""
        trouble, climbing, experiment = self.rehearsed.trouble, self.answer.climbing, self.answer.experiment
        return TheoryRehearse(
            pc=RehearsedPc(
                cpu=self.cpu,
                **asdict(self.pc),
                memory_mib=MEMORY_MIB,
                image=self.image,
                trouble=trouble.what if trouble else None,
                seconds=self.rehearsed.seconds,
            ),
            tasks=[
                RehearsedTask(words=result.words, status=result.status, error=result.err)
                for result in self.rehearsed.results
            ],
            cell=climbing and climbing.cell,
            claims=climbing and {claim.value: verdict for claim, verdict in climbing.claims.items()},
            rungs=[outcome.row() for outcome in climbing.outcomes] if climbing else [],
            verdict=self.answer.verdict,
            reason=self.answer.reason,
            experiment=experiment and experiment.document,
            shows=self.shows,
            shows_not=_SHOWS_NOT,
            report=str(self.answer.report) if self.answer.report else None,
            started=self.started.isoformat(timespec="milliseconds"),
            seconds=self.seconds,
            evidence=str(self.evidence),
            lab_version=__version__,
        ).as_json()

    @property
    def shows(self) -> str:
        return _SHOWS.format(extension=self.extension or "virtualization")

    def show(self, console: Console) -> None:
        def line(text: str) -> None:
            show(console, text)

        climbing, experiment = self.answer.climbing, self.answer.experiment
        if climbing:
            summary = report.summary(climbing.cell, climbing.claims, Claim.NESTING)
            show(console, report.table(climbing.outcomes, Claim.NESTING), "", *summary)
        elif experiment:
            experiment.show(console)
        else:
            line(f"{self.answer.verdict or 'experiment'}: {self.answer.reason}")
            if self.answer.error:
                show_error(console, self.answer.error, label="in the PC")
        if self.rehearsed.trouble:
            show_error(console, self.rehearsed.trouble, label="the PC")
        for task in self.rehearsed.results:
            if task.status is None and not self.rehearsed.trouble:
                line(f"{task.words[0]} did not end there: {task.err or 'it said nothing'}")
        console.print()
        minutes = f"{self.rehearsed.seconds / 60:.1f} min"
        line(f"on an emulated PC: {name(self.pc)}, {MEMORY_MIB} MiB; {minutes} from power-on to its end")
        line(f"shows: {self.shows}")
        line(f"does not show: {_SHOWS_NOT}")
        line(f"evidence: {self.evidence}")
        if self.answer.report:
            line(f"report:   {self.answer.report}")
