"""What history knows of a night. Times are UTC, ISO 8601; durations are seconds of the monotonic clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.model.domain import Verdict

_HOST = ("system", "os", "kernel", "cpu", "pc")
_FLAGS = ("emulated", "android")
CELL = (
    *_HOST,
    *("engine", "engine_version", "acceleration", "nesting", "emulated", "paravirt"),
    *("image", "emulator", "emulator_image", "android"),
)
"""The columns of a cell: those of lab.validation/1's `cell`, its `host` flattened into the first five."""

RUNNING, ENDED = "running", "ended"

NESTED_BOOT = "nested boot"
"""Seconds from L2's launch to its last word, on the way up: beside other work, so a figure of its own."""
NESTED_BOOT_KVM = "nested boot, KVM"
NESTED_BOOT_TCG = "nested boot, no KVM"
NESTED_RATIO = "no KVM against KVM"
"""The comparison's figures: the same L2 with nothing beside it, and their ratio."""
SLOWER_IS_WORSE = (NESTED_BOOT, NESTED_BOOT_KVM)
"""The figures, all in seconds, that regressions are looked for in."""


@dataclass(frozen=True)
class Figure:
    """One measured value; `unit` is `s` or `ratio`."""

    name: str
    unit: str
    value: float


@dataclass(frozen=True)
class RungRecord:
    """What came of one rung in one run, as lab.validation/1 has it."""

    rung: str
    status: str
    inconclusive: bool
    seconds: float
    observed: str


@dataclass(frozen=True)
class Claimed:
    """A verdict on a claim; `counts` is how many runs came to which verdict (empty for a single run)."""

    claim: str
    verdict: str
    reason: str
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ClimbRecord:
    """One climb of a night. `kind` is `up`, `validate` or `compare`.

    `error` is what ended it before it had an answer, empty otherwise, and `cut` whether that was the
    night's budget; `cell` has the columns of CELL, or is None when the climb did not get as far as
    knowing it.
    """

    number: int
    kind: str
    started: str
    seconds: float
    verdict: str
    claim: str
    reason: str
    error: str = ""
    evidence: str = ""
    cell: Mapping[str, Any] | None = None
    claims: Sequence[Claimed] = ()
    rungs: Sequence[RungRecord] = ()
    figures: Sequence[Figure] = ()
    cut: bool = False


KNOWN = "known: "
"""What the key of a finding begins with that is no news: a failure that somebody has looked into."""


@dataclass(frozen=True)
class NightFinding:
    """Something that differs from the nights before, in words.

    `key` names the same thing every night it is found; `worse` is False for a turn to the better.
    """

    key: str
    text: str
    worse: bool = True

    @property
    def known(self) -> bool:
        """It is no news."""
        return self.key.startswith(KNOWN)


@dataclass(frozen=True)
class Delivery:
    """One attempt to tell somebody: over which channel, whether it arrived, and what came of it."""

    channel: str
    delivered: bool
    said: str


@dataclass(frozen=True)
class Ending:
    """How a night ended, for `History.end`. `claim` is empty when no run came far enough to name one."""

    verdict: str
    claim: str
    reason: str
    claims: Sequence[Claimed] = ()
    cell: Mapping[str, Any] | None = None
    seconds: float = 0.0
    clock_jump: float = 0.0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Night:
    """One night. `verdict` is empty only while `state` is running; `clock_jump` is in seconds."""

    id: int
    uuid: str
    state: str
    started: str
    planned: int
    evidence: str
    lab_version: str
    ended: str | None = None
    seconds: float | None = None
    verdict: str = ""
    claim: str = ""
    reason: str = ""
    clock_jump: float = 0.0
    report: str = ""
    boot_id: str = ""
    cell_id: int | None = None
    cell: Mapping[str, Any] | None = None
    claims: Sequence[Claimed] = ()
    runs: Sequence[ClimbRecord] = ()
    findings: Sequence[NightFinding] = ()
    notes: Sequence[str] = ()
    deliveries: Sequence[Delivery] = ()
    untold: bool = False
    """Somebody is still to be told of it (History.mark_told)."""
    key: str = ""
    """DATE/CELL, of a night that was asked for by it; else empty."""
    host: str = ""
    """Id of the host it ran on (lab.host.identity); empty for a night of before there was one."""

    def samples(self, figure: str) -> list[float]:
        """Every value of a figure, in the order it was taken."""
        return [sample.value for run in self.runs for sample in run.figures if sample.name == figure]

    def verdict_on(self, claim: str) -> str:
        """The night's verdict on a claim; empty when it has none."""
        return next((claimed.verdict for claimed in self.claims if claimed.claim == claim), "")

    def as_dict(self) -> dict[str, Any]:
        """The night as nightly.history/1 has it."""
        document = asdict(self)
        for hidden in ("cell_id", "boot_id", "untold"):
            document.pop(hidden)
        document["verdict"] = self.verdict or None
        document["cell"] = cell_document(self.cell, self.host) if self.cell else None
        for claim in document["claims"]:
            claim["counts"] = counted(claim["counts"])
        for row, run in zip(document["runs"], self.runs, strict=True):
            row["cell"] = cell_document(run.cell, self.host) if run.cell else None
            for claim in row["claims"]:
                del claim["counts"]
        return {name: value for name, value in document.items() if value or name not in ("key", "host")}


def counted(counts: Mapping[str, int]) -> dict[str, int]:
    """Every verdict with its number of runs, 0 for one that none came to."""
    return {verdict.value: counts.get(verdict.value, 0) for verdict in Verdict}


def cell_columns(cell: Mapping[str, Any]) -> dict[str, Any]:
    """lab.validation/1's `cell` as columns; a processor that is not known to be real counts as emulated."""
    host = {"pc": ""} | cell["host"]
    columns = {name: host[name] if name in _HOST else cell[name] for name in CELL}
    return columns | {"emulated": cell["emulated"] is None or bool(cell["emulated"])}


def cell_document(columns: Mapping[str, Any], host_id: str = "") -> dict[str, Any]:
    """Columns as lab.validation/1's `cell`, of the host of that id where it is known."""
    plain = {name: bool(columns[name]) if name in _FLAGS else columns[name] for name in CELL}
    host = {name: value for name in _HOST if (value := plain.pop(name)) or name != "pc"}
    return {"host": host | ({"id": host_id} if host_id else {}), **plain}
