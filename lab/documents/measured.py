"""What comparisons, experiments, benchmarks and tests print."""

from __future__ import annotations

from enum import StrEnum
from operator import not_
from typing import Annotated, Literal

from pydantic import Field

from lab.documents.host import NamedFacts
from lab.model.document import (
    FILLED,
    GIVEN,
    Count,
    Factor,
    JsonDocument,
    JsonPart,
    Limited,
    MemberRule,
    Moment,
    Number,
    Ordinal,
    Seconds,
    Text,
)
from lab.model.domain import Nesting
from lab.theory import conclusion
from lab.theory.experiment import AskedCell, TrialEntry

Route = Literal["nested-kvm", "no-acceleration", "arm"]


class MeasuredHost(JsonPart):
    os: str
    cpu: str
    arch: Text
    pc: Text = Field(default="", exclude_if=not_)
    """the emulated PC that this host is; absent where it is none"""


class MeasuredPlace(JsonPart):
    """Where it was measured"""

    host: MeasuredHost
    engine: Text
    engine_version: str
    """empty when the engine cannot be asked"""
    acceleration: str
    """how L1's instructions run: tcg is emulation"""
    nesting: Nesting
    """what provides L1's virtualization extensions"""
    image: str
    """the VM image's id"""


class ComparedLab(JsonPart):
    name: Text
    uuid: Text
    boot_id: str
    """of the one boot of L1 in which all was measured"""


class ComparedEmulator(JsonPart):
    name: Text
    image: str
    android: bool


class ComparedRoute(JsonPart):
    route: Route
    title: Text
    why_not: str
    """why it was not measured; empty when it was tried"""
    image: str = Field(default="", exclude_if=not_)
    """of the ARM machine, which is not the emulator's own; absent where none was tried"""


class MeasurementOutcome(StrEnum):
    MEASURED = "measured"
    FAILED = "failed"
    """L2 did not boot, or lab could not tell."""
    TIMEOUT = "timeout"
    """Nothing was heard in the time it was given: it takes longer, or never ends."""
    BLOCKED = "blocked"
    """Something it needs is absent."""
    NOT_TAKEN = "not taken"
    """Planned, and the run ended before its turn."""


class MeasurementEntry(JsonPart):
    number: Ordinal
    round: Ordinal
    emulator: Text
    route: Route
    outcome: MeasurementOutcome
    seconds: Seconds | None
    """from the launch of L2's monitor to adbd listening in it, on L1's clock"""
    waited: Seconds
    """seconds of the whole attempt"""
    why: str
    """why there is no figure"""

    rules = (
        MemberRule({"outcome": "measured"}, {"seconds": GIVEN, "why": ""}, {"seconds": None, "why": FILLED}),
    )


class RouteSummary(JsonPart):
    emulator: Text
    route: Route
    planned: Count
    n: Count
    values: tuple[Seconds, ...]
    median: Seconds | None
    min: Seconds | None
    max: Seconds | None
    without: tuple[Text, ...]
    """what has no figure, counted by outcome"""


class RatioEntry(JsonPart):
    emulator: Text
    over: Route
    under: Route
    value: Factor
    n_over: Ordinal
    n_under: Ordinal
    low: Seconds | None
    high: Seconds | None
    how: Text
    """what low and high are"""


class LabCompare(JsonDocument):
    """Boots of L2, timed in one VM with nested KVM, without acceleration, and of an emulated ARM machine"""

    tag = "lab.compare/1"

    lab: ComparedLab
    where: MeasuredPlace
    seed: Count
    """of the order, and of the resampling"""
    emulators: Annotated[tuple[ComparedEmulator, ...], Limited(min_length=1)]
    routes: tuple[ComparedRoute, ...]
    measurements: tuple[MeasurementEntry, ...]
    """one for each that was planned, in the order of the plan"""
    summary: tuple[RouteSummary, ...]
    ratios: tuple[RatioEntry, ...]
    started: Moment
    seconds: Seconds
    evidence: Text
    lab_version: Text


class ExperimentCell(JsonPart):
    asked: AskedCell
    planned: Count
    observed: Count
    worked: Count


class TheoryExperiment(JsonDocument):
    """Paravirtualization by nesting: which makes /dev/kvm work in the VM"""

    tag = "theory.experiment/1"

    where: MeasuredPlace
    seed: Count
    """of the order"""
    finding: conclusion.Rule
    sentence: Text
    """what follows, with the counts it rests on"""
    cells: Annotated[tuple[ExperimentCell, ...], Limited(min_length=6, max_length=6)]
    trials: tuple[TrialEntry, ...]
    """one for each that was planned, in the order of the plan"""
    started: Moment
    seconds: Seconds
    evidence: Text
    lab_version: Text


class BenchMeasure(JsonPart):
    name: Text
    unit: Literal["s", "MiB", "ratio"]
    n: Count
    values: tuple[Number, ...]
    median: Number | None
    min: Number | None
    max: Number | None
    limit: Number | None
    """what it is meant to stay within"""
    within: bool | None
    """null without a limit or a value"""
    note: str


class Bench(JsonDocument):
    """Measured times and sizes"""

    tag = "bench/1"

    host: NamedFacts
    """facts of this machine, by name"""
    lab_version: Text
    started: Moment
    seconds: Seconds
    measures: tuple[BenchMeasure, ...]


Tier = Literal[
    "unit",
    "integration",
    "e2e",
    "e2e-android",
    "e2e-nightly",
    "e2e-rehearsal",
    "e2e-rehearsal-mac",
    "e2e-virtualbox",
    "e2e-vagrant",
    "e2e-published",
    "e2e-attach",
    "e2e-fleet",
    "all",
]


class FailedTest(JsonPart):
    test: Text
    message: str


class TestReport(JsonDocument):
    """What the tests did"""

    tag = "test/1"

    tier: Tier
    passed: Count
    failed: Count
    errors: Count
    skipped: Count
    failures: tuple[FailedTest, ...]
    """each failed test"""
    left_out: tuple[Text, ...] = ()
    """what did not run here, and why: whole folders, and skipped tests counted by reason"""
    report: str | None
    """pytest's own report file"""
    seconds: Seconds
