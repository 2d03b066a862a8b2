"""What came of a comparison: how many times longer L2 boots without nested KVM, and as an ARM machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from lab.experiments.measuring import ARM, KVM, PAIR, TCG, TITLES
from lab.experiments.series import Series, counted
from lab.reports.html.charts import Chart, TimesBar, durations
from lab.reports.html.measured import PageTable

_OUTCOMES = list(MeasurementOutcome)
_IN_VAIN = (MeasurementOutcome.FAILED, MeasurementOutcome.TIMEOUT)
"""Tried and waited for: the picture shows for how long."""
_EMULATED = "L2 is an ARM machine there, emulated by QEMU in its container, of an image of its own"
_NOT_ITS_OWN = (
    "an ARM image of Android is not measured, only predicted, with its source: `invoke theory.explain`"
)
_PAIRS = ((TCG, KVM), (ARM, KVM), (ARM, TCG))
"""The ratios: what took longer, over what it is compared with."""


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
        arm_image: str = "",
        **known: Any,
    ) -> Comparison:
        """The result of these measurements, one for each turn that was planned.

        `arm` is why no ARM machine was to be measured, `arm_image` else what it is an image of; `known` are
        further members of LabCompare.
        """
        planned = {(item.emulator, item.route) for item in measurements}
        rows = [
            _summary(
                name, route, [item for item in measurements if (item.emulator, item.route) == (name, route)]
            )
            for name in (str(item["name"]) for item in emulators)
            for route in TITLES
            if route in PAIR or (name, route) in planned
        ]
        routes = [ComparedRoute(route=route, title=TITLES[route], why_not="") for route in PAIR]
        why = arm or _why_never([item for item in measurements if item.route == ARM])
        routes.append(ComparedRoute(route=ARM, title=TITLES[ARM], why_not=why, image=arm_image))
        return cls(
            LabCompare(
                emulators=emulators,
                seed=seed,
                routes=routes,
                measurements=measurements,
                summary=rows,
                ratios=list(_ratios(rows, seed)),
                **known,
            )
        )

    @property
    def complete(self) -> bool:
        """Whether of every emulator is known what nested KVM is worth against x86 without it."""
        known = {ratio.emulator for ratio in self.document.ratios if (ratio.over, ratio.under) == (TCG, KVM)}
        return len(known) == len(self.document.emulators)

    @property
    def sentence(self) -> str:
        """What the ratios say, and of which emulator nothing can be said."""
        return " ".join(
            _sentence(each.name, [ratio for ratio in self.document.ratios if ratio.emulator == each.name])
            for each in self.document.emulators
        )

    def notes(self) -> list[str]:
        """The cell and the order, why the ARM route is missing, and how many boots gave no figure."""
        where, measurements = self.document.where, self.document.measurements
        notes = [
            f"measured in one VM ({where.engine} {where.engine_version}, {where.acceleration}, "
            f"nesting: {where.nesting}), in random order, seed {self.document.seed}",
            *(f"{route.title}: {route.why_not}" for route in self.document.routes if route.why_not),
            *(f"{route.title}: {_EMULATED} ({route.image})" for route in self.document.routes if route.image),
            *(f"{each.name}: {_NOT_ITS_OWN}" for each in self.document.emulators if each.android),
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


def _why_never(entries: Sequence[MeasurementEntry]) -> str:
    """Why nothing was tried, where something that was needed was absent each time."""
    if any(item.outcome is not MeasurementOutcome.BLOCKED for item in entries):
        return ""
    return next((item.why for item in entries), "")


def _ratios(rows: Sequence[RouteSummary], seed: int) -> Iterator[RatioEntry]:
    values = {(row.emulator, row.route): row.values for row in rows}
    for name in dict.fromkeys(row.emulator for row in rows):
        for over, under in _PAIRS:
            ratio = numbers.ratio(values.get((name, over), ()), values.get((name, under), ()), seed)
            if ratio:
                yield RatioEntry(emulator=name, over=over, under=under, **ratio.as_dict())


def _sentence(name: str, ratios: Sequence[RatioEntry]) -> str:
    known = {(ratio.over, ratio.under): ratio for ratio in ratios}
    worth, against_arm, arm = (known.get(pair) for pair in _PAIRS)
    parts = [
        f"without nested KVM L2 took {_times(worth)} as long to boot"
        if worth
        else "no ratio, because one side was never measured"
    ]
    against = [(against_arm, "L2 by nested KVM"), (arm, "x86 without KVM")]
    if took := [f"{_times(ratio)} as long as {what}" for ratio, what in against if ratio]:
        parts.append(f"an emulated ARM L2 took {' and '.join(took)}")
    sentence = f"{name}: {', '.join(parts)}"
    if not ratios:
        return f"{sentence}."
    if all(ratio.low is None for ratio in ratios):
        return f"{sentence} ({ratios[0].how})."
    counts = {ratio.over: ratio.n_over for ratio in ratios} | {ratio.under: ratio.n_under for ratio in ratios}
    *first, last = (str(counts[route]) for route in (TCG, KVM, ARM) if route in counts)
    measured = f"{', '.join(first)} and {last}"
    hows = "; ".join(dict.fromkeys(ratio.how for ratio in ratios))
    return f"{sentence}; n = {measured}, in brackets the {hows}."


def _times(ratio: RatioEntry) -> str:
    bounds = "" if ratio.low is None else f" ({ratio.low:.1f} to {ratio.high:.1f})"
    return f"{ratio.value:.1f} times{bounds}"
