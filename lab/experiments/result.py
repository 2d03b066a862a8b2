"""What came of the experiment: its document, its table, its picture and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab import __version__
from lab.core.errors import ExitCode
from lab.core.files import write_atomic
from lab.documents.measured import ExperimentCell, TheoryExperiment, TrialEntry
from lab.records.evidence import write_text
from lab.reports import markdown
from lab.reports.figures.page import PageTable, page
from lab.reports.figures.picture import Kind, Tile, tiles
from lab.theory.conclusion import Conclusion, conclude
from lab.theory.experiment import CELLS, PARAVIRT, Asked, Delivered, PlannedRun, TrialOutcome, TurnResult

_TITLE = "What makes /dev/kvm work in the VM: nesting, or paravirtualization?"
_HEAD = ("asked for", "/dev/kvm worked", "reached the guest", "without an answer", "observed")
_ROWS = {True: "nested on", False: "nested off"}


@dataclass(frozen=True)
class Experiment:
    """`trials` holds one for each turn that was planned, in order."""

    where: Mapping[str, Any]
    """Host, engine, acceleration, image."""
    seed: int
    trials: Sequence[TurnResult]
    started: datetime
    seconds: float
    evidence: Path

    @property
    def conclusion(self) -> Conclusion:
        return conclude(self.trials)

    @classmethod
    def of(cls, document: TheoryExperiment) -> Experiment:
        return cls(
            where=document.where.as_json(),
            seed=document.seed,
            trials=[_trial(entry) for entry in document.trials],
            started=datetime.fromisoformat(document.started),
            seconds=document.seconds,
            evidence=Path(document.evidence),
        )

    @property
    def code(self) -> ExitCode:
        """BLOCKED when no cell could be tried, INCONCLUSIVE when nothing follows."""
        if self.conclusion.decided:
            return ExitCode.DONE
        blocked = all(trial.outcome is TrialOutcome.BLOCKED for trial in self.trials)
        return ExitCode.BLOCKED if blocked else ExitCode.INCONCLUSIVE

    def document(self) -> dict[str, Any]:
        """The result as theory.experiment/1."""
        conclusion = self.conclusion
        return TheoryExperiment(
            where=self.where,
            seed=self.seed,
            finding=conclusion.finding,
            sentence=conclusion.sentence,
            cells=[
                ExperimentCell(asked=asked, planned=len(self._of(asked)), **self._counts(asked))
                for asked in CELLS
            ],
            trials=[
                TrialEntry(
                    number=trial.turn.number,
                    round=trial.turn.round,
                    asked=trial.turn.asked,
                    accepted=trial.accepted,
                    delivered=trial.delivered,
                    worked=trial.worked,
                    outcome=trial.outcome,
                    why=trial.why,
                    seconds=trial.seconds,
                )
                for trial in self.trials
            ],
            started=self.started.isoformat(timespec="milliseconds"),
            seconds=self.seconds,
            evidence=str(self.evidence),
            lab_version=__version__,
        ).as_json()

    def show(self, console: Console) -> None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in _HEAD:
            table.add_column(column, overflow="fold")
        for row in self._table():
            table.add_row(*row)
        console.print(table)
        console.print()
        for line in (self.conclusion.sentence, *self._notes(), f"evidence: {self.evidence}"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def draw(self, folder: Path) -> None:
        """Write experiment.png, experiment.html and experiment.md into `folder`."""
        columns = {paravirt: f"paravirt {paravirt}" for paravirt in PARAVIRT}
        picture = tiles(
            _TITLE,
            list(_ROWS.values()),
            list(columns.values()),
            {(_ROWS[asked.nested], columns[asked.paravirt]): self._tile(asked) for asked in CELLS},
            "rows and columns: what the engine was asked for; in each tile: what the guest found",
        )
        write_atomic(folder / "experiment.png", picture.png)
        sentence = self.conclusion.sentence
        tables = [
            PageTable("Each cell", _HEAD, self._table()),
            PageTable(
                "Each trial, in the order it was taken",
                ("", "round", "asked for", "outcome", "/dev/kvm", "seconds"),
                [_row(trial) for trial in self.trials],
            ),
        ]
        drawn = page(_TITLE, sentence, picture, f"A grid. {sentence}", tables, self._notes())
        write_text(folder / "experiment.html", drawn)
        write_text(folder / "experiment.md", markdown.page(_TITLE, sentence, tables, self._notes()))

    def _of(self, asked: Asked) -> list[TurnResult]:
        return [trial for trial in self.trials if trial.turn.asked == asked]

    def _counts(self, asked: Asked) -> dict[str, int]:
        mine = self._of(asked)
        return {
            "observed": sum(trial.outcome is TrialOutcome.OBSERVED for trial in mine),
            "worked": sum(trial.worked is True for trial in mine),
        }

    def _table(self) -> list[list[str]]:
        rows = []
        for asked in CELLS:
            mine, counts = self._of(asked), self._counts(asked)
            lost = [trial.outcome for trial in mine if trial.outcome is not TrialOutcome.OBSERVED]
            without = "; ".join(f"{lost.count(kind)} {kind}" for kind in dict.fromkeys(lost))
            worked = f"{counts['worked']} of {counts['observed']}" if counts["observed"] else ""
            whys = "; ".join(dict.fromkeys(trial.why for trial in mine if trial.why))
            rows.append([str(asked), worked, self._got(asked), without, whys])
        return rows

    def _got(self, asked: Asked) -> str:
        """What reached the guests of a cell, each different answer once."""
        return "; or ".join(
            dict.fromkeys(trial.delivered.words for trial in self._of(asked) if trial.delivered is not None)
        )

    def _tile(self, asked: Asked) -> Tile:
        counts, lines = self._counts(asked), self._got(asked).split(", ")
        worked, observed = counts["worked"], counts["observed"]
        if not observed:
            kinds = dict.fromkeys(trial.outcome.value for trial in self._of(asked))
            return Tile("unknown", ", ".join(kinds))
        kind: Kind = "yes" if worked == observed else "mixed" if worked else "no"
        return Tile(kind, f"worked {worked} of {observed}", lines)

    def _notes(self) -> list[str]:
        where = self.where
        return [
            f"a fresh VM for every trial ({where['engine']} {where['engine_version']}, "
            f"{where['acceleration'] or 'not started'}, nesting: {where['nesting']}), in random order, "
            f"seed {self.seed}",
            "worked: a tiny guest ran to its halt under the VM's /dev/kvm, entered in real and in long mode",
        ]


def _trial(entry: TrialEntry) -> TurnResult:
    return TurnResult(
        PlannedRun(entry.number, entry.round, Asked(**dict(entry.asked))),
        entry.outcome,
        entry.worked,
        None if entry.delivered is None else Delivered(**dict(entry.delivered)),
        entry.accepted,
        entry.why,
        entry.seconds,
    )


def _row(trial: TurnResult) -> list[str]:
    turn = trial.turn
    where = [str(turn.number), str(turn.round), str(turn.asked)]
    return [*where, trial.outcome, trial.why, f"{trial.seconds:.1f}"]
