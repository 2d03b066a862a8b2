"""What came of a comparison: its document, its table, what the ratios say, its picture and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab import __version__
from lab.core.files import write_atomic
from lab.documents.measured import (
    ComparedRoute,
    LabCompare,
    MeasurementEntry,
    MeasurementOutcome,
    RatioEntry,
    RouteSummary,
)
from lab.experiments.measuring import ARM, KVM, ROUTES, TCG, TITLES, Measurement
from lab.records.evidence import Run
from lab.reports import markdown
from lab.reports.figures import numbers
from lab.reports.figures.page import PageTable, page
from lab.reports.figures.picture import TimesBar, durations

_HEAD = ("emulator", "L2 runs by", "n", "median", "least", "most", "without a figure")
_TITLE = "L2's boot: from the launch of its monitor to adbd listening"


@dataclass(frozen=True)
class Comparison:
    """`measurements` holds one for each turn that was planned, in order."""

    lab: Mapping[str, str]
    where: Mapping[str, Any]
    """The cell: host, engine, acceleration, nesting, image."""
    emulators: Sequence[Mapping[str, Any]]
    """Name, image and `android` of each."""
    seed: int
    measurements: Sequence[Measurement]
    arm: str
    """Why the ARM route was not measured."""
    started: datetime
    seconds: float
    evidence: Path

    @property
    def ratios(self) -> dict[str, numbers.Ratio]:
        """How many times longer L2 boots without nested KVM, by emulator; only where both were measured."""
        found = {
            name: numbers.ratio(self._seconds(name, TCG), self._seconds(name, KVM), self.seed)
            for name in self._names
        }
        return {name: ratio for name, ratio in found.items() if ratio is not None}

    @property
    def complete(self) -> bool:
        """Whether every emulator has a ratio."""
        return len(self.ratios) == len(self.emulators)

    def document(self) -> dict[str, Any]:
        """The result as lab.compare/1."""
        return LabCompare(
            lab=self.lab,
            where=self.where,
            seed=self.seed,
            emulators=self.emulators,
            routes=[
                *(ComparedRoute(route=route, title=TITLES[route], why_not="") for route in ROUTES),
                ComparedRoute(route=ARM, title=TITLES[ARM], why_not=self.arm),
            ],
            measurements=[
                MeasurementEntry(
                    **asdict(found.turn),
                    outcome=found.outcome,
                    seconds=found.seconds,
                    waited=found.waited,
                    why=found.why,
                )
                for found in self.measurements
            ],
            summary=[self._summary(name, route) for name, route in self._rows],
            ratios=[
                RatioEntry(emulator=name, over=TCG, under=KVM, **ratio.as_dict())
                for name, ratio in self.ratios.items()
            ],
            started=self.started.isoformat(timespec="milliseconds"),
            seconds=self.seconds,
            evidence=str(self.evidence),
            lab_version=__version__,
        ).as_json()

    def sentence(self) -> str:
        """What the ratios say, and of which emulator nothing can be said."""
        said = []
        for name in self._names:
            ratio = self.ratios.get(name)
            if ratio is None:
                said.append(f"{name}: no ratio, because one side was never measured.")
            elif ratio.low is None:
                said.append(f"{name}: without nested KVM L2 took {ratio} as long to boot ({ratio.how}).")
            else:
                said.append(
                    f"{name}: without nested KVM L2 took {ratio} as long to boot; "
                    f"n = {ratio.over} and {ratio.under}, in brackets the {ratio.how}."
                )
        return " ".join(said)

    def notes(self) -> list[str]:
        where = self.where
        found = [
            f"measured in one VM ({where['engine']} {where['engine_version']}, {where['acceleration']}, "
            f"nesting: {where['nesting']}), in random order, seed {self.seed}",
            f"{TITLES[ARM]}: {self.arm}",
        ]
        lost = sum(item.outcome is not MeasurementOutcome.MEASURED for item in self.measurements)
        if lost:
            found.append(
                f"{lost} of {len(self.measurements)} gave no figure and are in no median and no ratio; "
                "if they were the slow ones, the ratio is too small"
            )
        return found

    def show(self, console: Console) -> None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in _HEAD:
            table.add_column(column)
        for row in self._table():
            table.add_row(*row)
        console.print(table)
        console.print()
        for line in (self.sentence(), *self.notes(), f"evidence: {self.evidence}"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def keep(self, run: Run) -> None:
        """compare.json, compare.png, compare.html and compare.md in the run's folder."""
        run.json("compare.json", self.document())
        bars = [
            TimesBar(
                TITLES[route],
                self._seconds(name, route),
                marks=[found.waited for found in self._of(name, route) if _waited_in_vain(found)],
                note="; ".join(self._summary(name, route).without),
                group=name,
            )
            for name, route in self._rows
        ]
        picture = durations(_TITLE, bars)
        write_atomic(run.path / "compare.png", picture.png)
        tables = [
            PageTable("Each way to run L2", _HEAD, self._table()),
            PageTable(
                "Each measurement, in the order it was taken",
                ("", "round", "emulator", "L2 runs by", "outcome", "seconds", "why"),
                [_told(found) for found in self.measurements],
            ),
        ]
        sentence = self.sentence()
        run.text("compare.html", page(_TITLE, sentence, picture, f"Bars. {sentence}", tables, self.notes()))
        run.text("compare.md", markdown.page(_TITLE, sentence, tables, self.notes()))

    @property
    def _names(self) -> list[str]:
        return [str(item["name"]) for item in self.emulators]

    @property
    def _rows(self) -> list[tuple[str, str]]:
        return [(name, route) for name in self._names for route in ROUTES]

    def _of(self, name: str, route: str) -> list[Measurement]:
        wanted = (name, route)
        return [found for found in self.measurements if (found.turn.emulator, found.turn.route) == wanted]

    def _seconds(self, name: str, route: str) -> list[float]:
        return [found.seconds for found in self._of(name, route) if found.seconds is not None]

    def _summary(self, name: str, route: str) -> RouteSummary:
        """One row of the table. `without` counts what has no figure, by outcome."""
        mine = self._of(name, route)
        counts = {kind: sum(found.outcome is kind for found in mine) for kind in MeasurementOutcome}
        del counts[MeasurementOutcome.MEASURED]
        return RouteSummary(
            emulator=name,
            route=route,
            planned=len(mine),
            **numbers.Spread(tuple(self._seconds(name, route))).as_dict(),
            without=[f"{count} {kind}" for kind, count in counts.items() if count],
        )

    def _table(self) -> list[list[str]]:
        rows = []
        for name, route in self._rows:
            row = self._summary(name, route)
            figures = [
                "" if figure is None else f"{figure:.1f} s" for figure in (row.median, row.min, row.max)
            ]
            count = f"{row.n} of {row.planned}"
            rows.append([name, TITLES[route], count, *figures, "; ".join(row.without)])
        return rows


def _waited_in_vain(found: Measurement) -> bool:
    """It was tried and waited for: the picture shows for how long."""
    return found.outcome in (MeasurementOutcome.FAILED, MeasurementOutcome.TIMEOUT)


def _told(found: Measurement) -> list[str]:
    turn = found.turn
    seconds = "" if found.seconds is None else f"{found.seconds:.1f}"
    where = [str(turn.number), str(turn.round), turn.emulator, TITLES[turn.route]]
    return [*where, found.outcome, seconds, found.why]
