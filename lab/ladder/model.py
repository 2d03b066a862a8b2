"""The ladder's words: rungs, what a check observes, what came of a rung, and the cell it holds for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from lab.errors import ExitCode, LabError


@dataclass(frozen=True)
class Rung:
    """One checked step. `needs` are the rungs that must have passed before it is tried."""

    name: str
    meaning: str
    needs: tuple[str, ...] = ()


RUNGS: tuple[Rung, ...] = (
    # Nothing needs host.cpu: an engine may emulate what the processor lacks, and host.engine says so.
    Rung("host.cpu", "The host's processor has virtualization extensions that this system can use."),
    Rung("host.engine", "The engine is installed and can start a 64-bit x86 VM on this host."),
    Rung(
        "vm.settings",
        "The engine accepted the VM's settings, nested virtualization among them, as read back from it.",
        ("host.engine",),
    ),
    Rung(
        "vm.boot", "The VM boots and answers over SSH with the host key lab gave it (L1).", ("vm.settings",)
    ),
    # Nothing needs guest.paravirt: nesting decides, not paravirtualization. Emulation cannot pass it.
    Rung(
        "guest.paravirt",
        "L1 sees the paravirtualization interface that was asked for: KVM's signature and kvm-clock.",
        ("vm.boot",),
    ),
    Rung("guest.cpu", "L1's processor offers virtualization extensions (vmx or svm).", ("vm.boot",)),
    Rung(
        "guest.kvm",
        "A tiny guest runs to its HLT under L1's /dev/kvm, entered in real mode and in long mode.",
        ("guest.cpu",),
    ),
    Rung("docker.engine", "Docker in L1 runs a container from an image lab made.", ("vm.boot",)),
    Rung(
        "container.kvm",
        "The tiny guest runs to its HLT under /dev/kvm inside a container too.",
        ("guest.kvm", "docker.engine"),
    ),
    Rung(
        "nested.boot",
        "A guest (L2) boots in the container, and says from inside that KVM runs it.",
        ("container.kvm",),
    ),
    Rung(
        "nested.adb",
        "L2 answers over ADB on the host's loopback with the nonce it was given and KVM's CPUID signature.",
        ("nested.boot",),
    ),
    Rung("android.boot", "Android in L2 reports that its boot completed.", ("nested.adb",)),
    Rung(
        "android.usable",
        "Android can be used: an app starts in it and its screen can be seen.",
        ("android.boot",),
    ),
)
"""All rungs, lowest first. A rung's needs always stand below it."""

BY_NAME: Mapping[str, Rung] = MappingProxyType({rung.name: rung for rung in RUNGS})
NAMES: tuple[str, ...] = tuple(BY_NAME)


def prerequisites(name: str) -> tuple[str, ...]:
    """Every rung that must have passed before `name`, directly or not, lowest first."""
    found: set[str] = set()
    todo = list(BY_NAME[name].needs)
    while todo:
        need = todo.pop()
        found.add(need)
        todo.extend(BY_NAME[need].needs)
    return tuple(rung for rung in NAMES if rung in found)


class Status(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
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

    `inconclusive` marks a failed rung of which lab could not find out whether it holds (a timeout,
    an error of lab's own): neither a pass nor evidence against it. `blocked_by` names the rung
    below that is at fault, and is None when a missing prerequisite outside the ladder is: then
    `observed` says which. `seconds` is the time of building and checking together.
    """

    rung: str
    status: Status
    expected: str = ""
    observed: str = ""
    seconds: float = 0.0
    evidence: Sequence[str] = ()
    hint: str = ""
    blocked_by: str | None = None
    inconclusive: bool = False

    def __post_init__(self) -> None:
        if self.rung not in BY_NAME:
            raise ValueError(f"{self.rung!r} is not a rung")
        if self.passed and not self.observed.strip():
            raise ValueError(f"{self.rung} cannot pass with nothing observed")
        if self.inconclusive and self.status is not Status.FAILED:
            raise ValueError(f"{self.rung} is {self.status}: only a failed rung can be inconclusive")
        if self.blocked_by is not None and (
            self.status is not Status.BLOCKED or self.blocked_by not in BY_NAME
        ):
            raise ValueError(f"{self.rung} is {self.status}, blocked by {self.blocked_by!r}")
        object.__setattr__(self, "evidence", tuple(str(item) for item in self.evidence))

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED

    @property
    def contradicted(self) -> bool:
        """Seen not to hold: failed, and not for want of an answer."""
        return self.status is Status.FAILED and not self.inconclusive

    @property
    def seen(self) -> bool:
        """Seen to hold or not to hold."""
        return self.passed or self.contradicted


INFORMS = "informs"
"""Said in the place of `failed` of a rung on which the claim does not depend."""


class Claim(StrEnum):
    """What lab can give a verdict on, weakest first."""

    NESTING = "nesting"
    """KVM works in a container in the VM."""
    ANDROID = "android"
    """x86 Android boots and is usable there, on hardware virtualization."""
    THEORY = "theory"
    """The same on macOS with VirtualBox."""


class Verdict(StrEnum):
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "nesting", Nesting(self.nesting))
        if self.nesting is Nesting.EMULATED and not self.emulated:
            raise ValueError("a cell with emulated nesting is emulated")
        if self.host.pc and not self.emulated:
            raise ValueError("a cell on an emulated PC is emulated")
        if self.android and self.emulator in NOT_ANDROID:
            raise ValueError(f"the emulator {self.emulator!r} is not Android")


NOT_ANDROID = frozenset({"", "none", "canary"})
"""Emulators that can never bear on a claim about Android."""
