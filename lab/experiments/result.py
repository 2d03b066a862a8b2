"""What came of the experiment: which of the two settings makes /dev/kvm work in L1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lab.core.errors import ExitCode
from lab.documents.measured import ExperimentCell, TheoryExperiment
from lab.experiments.series import Series, counted
from lab.reports.html.charts import Chart, Kind, Tile, tiles
from lab.reports.html.measured import PageTable
from lab.theory.conclusion import Conclusion, conclude
from lab.theory.experiment import CELLS, PARAVIRT, AskedCell, TrialEntry, TrialOutcome

_ROWS = {True: "nested on", False: "nested off"}


class Experiment(Series[TheoryExperiment]):
    """theory.experiment/1 and how it is shown to a person."""

    name = "experiment"
    title = "What makes /dev/kvm work in the VM: nesting, or paravirtualization?"
    caption = "Each cell"
    head = ("asked for", "/dev/kvm worked", "reached the guest", "without an answer", "observed")

    @classmethod
    def of(cls, trials: Sequence[TrialEntry], **known: Any) -> Experiment:
        """The result of these trials, one for each turn that was planned: what follows is concluded here.

        `known` are the members of TheoryExperiment that do not follow from the trials.
        """
        concluded = conclude(trials)
        cells = []
        for asked in CELLS:
            mine = [trial for trial in trials if trial.asked == asked]
            cells.append(
                ExperimentCell(
                    asked=asked,
                    planned=len(mine),
                    observed=sum(trial.outcome is TrialOutcome.OBSERVED for trial in mine),
                    worked=sum(trial.worked is True for trial in mine),
                )
            )
        members = known | {"finding": concluded.finding, "sentence": concluded.sentence, "cells": cells}
        return cls(TheoryExperiment(trials=trials, **members))

    @property
    def conclusion(self) -> Conclusion:
        """What the trials show."""
        return conclude(self.document.trials)

    @property
    def sentence(self) -> str:
        """What the trials show, with the counts it rests on."""
        return self.document.sentence

    @property
    def code(self) -> ExitCode:
        """BLOCKED when no cell could be tried, INCONCLUSIVE when nothing follows."""
        if self.conclusion.decided:
            return ExitCode.DONE
        blocked = all(trial.outcome is TrialOutcome.BLOCKED for trial in self.document.trials)
        return ExitCode.BLOCKED if blocked else ExitCode.INCONCLUSIVE

    def rows(self) -> list[list[str]]:
        """A row a cell."""
        rows = []
        for cell in self.document.cells:
            mine = self._of(cell.asked)
            lost = counted(trial.outcome for trial in mine if trial.outcome is not TrialOutcome.OBSERVED)
            worked = f"{cell.worked} of {cell.observed}" if cell.observed else ""
            whys = "; ".join(dict.fromkeys(trial.why for trial in mine if trial.why))
            rows.append([str(cell.asked), worked, self._got(cell.asked), "; ".join(lost), whys])
        return rows

    def turns(self) -> PageTable:
        """Each trial."""
        return PageTable(
            "Each trial, in the order it was taken",
            ("", "round", "asked for", "outcome", "/dev/kvm", "seconds"),
            [
                [
                    str(trial.number),
                    str(trial.round),
                    str(trial.asked),
                    trial.outcome,
                    trial.why,
                    f"{trial.seconds:.1f}",
                ]
                for trial in self.document.trials
            ],
        )

    def notes(self) -> list[str]:
        """Engine, nesting and order, and what `worked` means."""
        where = self.document.where
        return [
            f"a fresh VM for every trial ({where.engine} {where.engine_version}, "
            f"{where.acceleration or 'not started'}, nesting: {where.nesting}), in random order, "
            f"seed {self.document.seed}",
            "worked: a tiny guest ran to its halt under the VM's /dev/kvm, entered in real and in long mode",
        ]

    def picture(self, width: float) -> Chart:
        """Grid of tiles, nesting by paravirtualization, one per cell."""
        columns = {paravirt: f"paravirt {paravirt}" for paravirt in PARAVIRT}
        return tiles(
            self.title,
            list(_ROWS.values()),
            list(columns.values()),
            {
                (_ROWS[cell.asked.nested], columns[cell.asked.paravirt]): self._tile(cell)
                for cell in self.document.cells
            },
            "rows and columns: what the engine was asked for; in each tile: what the guest found",
            width,
        )

    def _of(self, asked: AskedCell) -> list[TrialEntry]:
        return [trial for trial in self.document.trials if trial.asked == asked]

    def _got(self, asked: AskedCell) -> str:
        """What reached the guests of a cell, each different answer once."""
        return "; or ".join(
            dict.fromkeys(trial.delivered.words for trial in self._of(asked) if trial.delivered is not None)
        )

    def _tile(self, cell: ExperimentCell) -> Tile:
        if not cell.observed:
            kinds = dict.fromkeys(trial.outcome.value for trial in self._of(cell.asked))
            return Tile("unknown", ", ".join(kinds))
        kind: Kind = "yes" if cell.worked == cell.observed else "mixed" if cell.worked else "no"
        return Tile(kind, f"worked {cell.worked} of {cell.observed}", self._got(cell.asked).split(", "))
