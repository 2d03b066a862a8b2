"""The ladder's words: rungs, what a check observes, what came of a rung, and the cell it holds for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lab.core.errors import ExitCode, LabError


class Status(StrEnum):
    """What can come of a rung: docs/ladder.md."""

    PASSED = "passed"
    FAILED = "failed"
    """Seen not to hold."""
    INCONCLUSIVE = "inconclusive"
    """lab could not find out whether it holds: neither a pass nor evidence against it.

    Documents have it as `failed` with `inconclusive: true`: Outcome.row and Outcome.of_row."""
    BLOCKED = "blocked"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Observation:
    """What a check returns. `ok` False is evidence against the rung: it can refute a claim.

    A check that could not look (a timeout, a lost connection) raises instead of returning.
    """

    ok: bool
    expected: str
    observed: str
    hint: str = ""
    evidence: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.expected.strip() or not self.observed.strip():
            raise ValueError("an observation says what was expected and what was observed")
        object.__setattr__(self, "evidence", tuple(str(item) for item in self.evidence))


class RungFailedError(LabError):
    """Evidence against a rung, raised from deep inside a check: the same as returning it with ok=False.

    It is the only error that can lead to a refutation.
    """

    exit_code = ExitCode.REFUTED

    def __init__(self, observation: Observation) -> None:
        if observation.ok:
            raise ValueError("a rung that holds did not fail")
        super().__init__(observation.observed, hint=observation.hint, evidence=observation.evidence)
        self.observation = observation


@dataclass(frozen=True)
class Outcome:
    """What came of one rung.

    `blocked_by` names the rung below that is at fault, and is None when a missing prerequisite outside
    the ladder is: then `observed` says which. `seconds` is the time of building and checking together.
    """

    rung: str
    status: Status
    expected: str = ""
    observed: str = ""
    seconds: float = 0.0
    evidence: Sequence[str] = ()
    hint: str = ""
    blocked_by: str | None = None

    def __post_init__(self) -> None:
        if self.passed and not self.observed.strip():
            raise ValueError(f"{self.rung} cannot pass with nothing observed")
        if self.blocked_by is not None and self.status is not Status.BLOCKED:
            raise ValueError(f"{self.rung} is {self.status}, blocked by {self.blocked_by!r}")
        object.__setattr__(self, "evidence", tuple(str(item) for item in self.evidence))

    @property
    def passed(self) -> bool:
        """Seen to hold."""
        return self.status is Status.PASSED

    @property
    def seen(self) -> bool:
        """Seen to hold or not to hold."""
        return self.status in (Status.PASSED, Status.FAILED)

    @property
    def tried(self) -> bool:
        """It was built and checked, whatever came of it."""
        return self.seen or self.status is Status.INCONCLUSIVE

    def row(self) -> dict[str, Any]:
        """As lab.validation/1 has it."""
        inconclusive = self.status is Status.INCONCLUSIVE
        status = Status.FAILED if inconclusive else self.status
        return vars(self) | {"status": status, "inconclusive": inconclusive}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Outcome:
        """What lab.validation/1 has. Raises ValueError for a row that contradicts itself."""
        members = dict(row)
        status = Status(members["status"])
        if members.pop("inconclusive"):
            if status is not Status.FAILED:
                raise ValueError(f"{members['rung']} is {status}: only a failed rung can be inconclusive")
            status = Status.INCONCLUSIVE
        return cls(**members | {"status": status})


INFORMS = "informs"
"""What people read in the place of `failed` where the claim does not depend on the rung."""


class Claim(StrEnum):
    """What lab can give a verdict on, weakest first."""

    NESTING = "nesting"
    """KVM works in a container in the VM."""
    ANDROID = "android"
    """x86 Android boots and is usable there, on hardware virtualization."""
    THEORY = "theory"
    """The same on macOS with VirtualBox."""


class Verdict(StrEnum):
    """What lab says of a claim: docs/glossary.md."""

    CONFIRMED = "confirmed"
    REFUTED = "refuted"
    BLOCKED = "blocked"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not applicable"


class Nesting(StrEnum):
    """What provides L1's virtualization extensions."""

    HARDWARE = "hardware"
    EMULATED = "emulated"
    NONE = "none"


ATTACHED = "attached"
"""The engine of a cell whose machine is somebody's: nobody knows what its hypervisor was asked for."""
BARE_METAL = "bare metal"
"""The acceleration of a cell in which L1 is no VM."""


@dataclass(frozen=True)
class Host:
    """L0. `system` is `linux` or `macos`; `os` is its name and release as people say it.

    `pc` is the emulated PC that this host is, such as `Bochs 2.7, corei7_haswell_4770`; empty for a machine
    that is none.
    """

    system: str
    os: str
    kernel: str
    cpu: str
    pc: str = ""
    id: str = field(default="", compare=False)
    """By which this host is told from others (lab.host.identity); a cell is what it is, not whose."""


def engine_title(name: str) -> str:
    """An engine as prose calls it: VirtualBox for `virtualbox`; one that lab did not bring by its name."""
    return {"virtualbox": "VirtualBox", "qemu": "QEMU"}.get(name, name)


@dataclass(frozen=True)
class Cell:
    """The combination a verdict holds for, and no other.

    `emulated` is true when any processor in the chain is emulated in software: that of L1, or the
    host's own; None when nothing shows that they are real. `emulator` is `canary`, `none`, or the name of
    an Android emulator, `emulator_image` its content id (empty when none), and `android` whether it is
    Android: a test double never is.
    """

    host: Host
    engine: str
    engine_version: str
    acceleration: str
    nesting: Nesting
    emulated: bool | None
    paravirt: str
    image: str
    emulator: str
    emulator_image: str = ""
    android: bool = False
    transport: str = field(default="", compare=False)
    """How lab spoke to the engine, and why so; empty where there is one way only. The VM is the same over
    any, so a cell is not another one for it."""

    architecture: str = ""
    """L1's processor where it is no x86: `aarch64`. Its KVM runs such guests, and no x86 ones."""

    @property
    def arm64(self) -> bool:
        """L1's processor, and with it L2's, is a 64-bit Arm."""
        return self.architecture == "aarch64"

    @property
    def nothing_nested(self) -> bool:
        """The machine is no VM: its own processor runs the container's guest."""
        return self.acceleration == BARE_METAL

    def __post_init__(self) -> None:
        object.__setattr__(self, "nesting", Nesting(self.nesting))
        if self.nesting is Nesting.EMULATED and not self.emulated:
            raise ValueError("a cell with emulated nesting is emulated")
        if self.host.pc and not self.emulated:
            raise ValueError("a cell on an emulated PC is emulated")
        if self.android and self.emulator in NOT_ANDROID:
            raise ValueError(f"the emulator {self.emulator!r} is not Android")


MAIN = "main"
"""The name of the emulator `lab.up` starts and the ladder is climbed on; others are started beside it."""
NONE = "none"
"""Stands in the place of an emulator's kind for a lab without one."""
NOT_ANDROID = frozenset({"", NONE, "canary"})
"""Emulators that can never bear on a claim about Android."""
