"""What came of a comparison: how many times longer L2 boots without nested KVM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.documents.measured import (
    ComparedRoute,
    LabCompare,
    MeasurementEntry,
    MeasurementOutcome,
    RatioEntry,
    RouteSummary,
)
from lab.experiments import numbers
from lab.experiments.measuring import ARM, KVM, ROUTES, TCG, TITLES
from lab.experiments.series import Series, counted
from lab.reports.html.charts import Chart, TimesBar, durations
from lab.reports.html.measured import PageTable

_OUTCOMES = list(MeasurementOutcome)
_IN_VAIN = (MeasurementOutcome.FAILED, MeasurementOutcome.TIMEOUT)
"""Tried and waited for: the picture shows for how long."""


class Comparison(Series[LabCompare]):
    """lab.compare/1 as people see it."""

    name = "compare"
    title = "L2's boot: from the launch of its monitor to adbd listening"
    caption = "Each way to run L2"
    head = ("emulator", "L2 runs by", "n", "median", "least", "most", "without a figure")

    @classmethod
    def of(
        cls,
        measurements: Sequence[MeasurementEntry],
        *,
        emulators: Sequence[Mapping[str, Any]],
        seed: int,
        arm: str,
        **known: Any,
    ) -> Comparison:
        """The result of these measurements, one for each turn that was planned.

        `arm` is why the ARM route was not measured; `known` are further members of LabCompare.
        """
        rows = [
            _summary(
                name, route, [item for item in measurements if (item.emulator, item.route) == (name, route)]
            )
            for name in (str(item["name"]) for item in emulators)
            for route in ROUTES
        ]
        pairs = zip(rows[::2], rows[1::2], strict=True)
        ratios = [(kvm.emulator, numbers.ratio(tcg.values, kvm.values, seed)) for kvm, tcg in pairs]
        routes = [(route, "") for route in ROUTES] + [(ARM, arm)]
        return cls(
            LabCompare(
                emulators=emulators,
                seed=seed,
                routes=[
                    ComparedRoute(route=route, title=TITLES[route], why_not=why) for route, why in routes
                ],
                measurements=measurements,
                summary=rows,
                ratios=[
                    RatioEntry(emulator=name, over=TCG, under=KVM, **ratio.as_dict())
                    for name, ratio in ratios
                    if ratio
                ],
                **known,
            )
        )

    @property
    def complete(self) -> bool:
        """Whether every emulator has a ratio."""
        return len(self.document.ratios) == len(self.document.emulators)

    @property
    def sentence(self) -> str:
        """What the ratios say, and of which emulator nothing can be said."""
        ratios = {ratio.emulator: ratio for ratio in self.document.ratios}
        return " ".join(_sentence(each.name, ratios.get(each.name)) for each in self.document.emulators)

    def notes(self) -> list[str]:
        """The cell and the order, why the ARM route is missing, and how many boots gave no figure."""
        where, measurements = self.document.where, self.document.measurements
        notes = [
            f"measured in one VM ({where.engine} {where.engine_version}, {where.acceleration}, "
            f"nesting: {where.nesting}), in random order, seed {self.document.seed}",
            *(f"{route.title}: {route.why_not}" for route in self.document.routes if route.why_not),
        ]
        lost = sum(item.outcome is not MeasurementOutcome.MEASURED for item in measurements)
        if lost:
            notes.append(
                f"{lost} of {len(measurements)} gave no figure and are in no median and no ratio; "
                "if they were the slow ones, the ratio is too small"
            )
        return notes

    def rows(self) -> list[list[str]]:
        """A row an emulator and a route."""
        return [
            [
                row.emulator,
                TITLES[row.route],
                f"{row.n} of {row.planned}",
                *("" if figure is None else f"{figure:.1f} s" for figure in (row.median, row.min, row.max)),
                "; ".join(row.without),
            ]
            for row in self.document.summary
        ]

    def turns(self) -> PageTable:
        """Each measurement."""
        return PageTable(
            "Each measurement, in the order it was taken",
            ("", "round", "emulator", "L2 runs by", "outcome", "seconds", "why"),
            [
                [
                    str(item.number),
                    str(item.round),
                    item.emulator,
                    TITLES[item.route],
                    item.outcome,
                    "" if item.seconds is None else f"{item.seconds:.1f}",
                    item.why,
                ]
                for item in self.document.measurements
            ],
        )

    def picture(self, width: float) -> Chart:
        """A bar an emulator and a route."""
        bars = [
            TimesBar(
                TITLES[row.route],
                row.values,
                marks=[
                    item.waited
                    for item in self.document.measurements
                    if (item.emulator, item.route) == (row.emulator, row.route) and item.outcome in _IN_VAIN
                ],
                note="; ".join(row.without),
                group=row.emulator,
            )
            for row in self.document.summary
        ]
        return durations(self.title, bars, width)


def _summary(emulator: str, route: str, mine: Sequence[MeasurementEntry]) -> RouteSummary:
    """One row of the table. `without` counts what has no figure, by outcome."""
    outcomes = sorted((item.outcome for item in mine), key=_OUTCOMES.index)
    values = tuple(item.seconds for item in mine if item.seconds is not None)
    return RouteSummary(
        emulator=emulator,
        route=route,
        planned=len(mine),
        **numbers.spread(values),
        without=counted(each for each in outcomes if each is not MeasurementOutcome.MEASURED),
    )


def _sentence(name: str, ratio: RatioEntry | None) -> str:
    if ratio is None:
        return f"{name}: no ratio, because one side was never measured."
    times = f"{name}: without nested KVM L2 took {ratio.value:.1f} times"
    if ratio.low is None:
        return f"{times} as long to boot ({ratio.how})."
    return (
        f"{times} ({ratio.low:.1f} to {ratio.high:.1f}) as long to boot; "
        f"n = {ratio.n_over} and {ratio.n_under}, in brackets the {ratio.how}."
    )
