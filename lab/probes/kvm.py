"""What the probe scripts print, and nothing else: parsed strictly."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import resources
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core.errors import LabError
from lab.core.proc import tail

SECONDS_PER_MODE = 20
"""How long each entry of the tiny guest may take: a fraction of a second where it works."""

Failure = Literal[
    "", "kvm", "absent", "permission", "resource", "killed", "timeout", "tool", "system", "unknown"
]
"""Whose word a failure of the probe is; empty where nothing failed. Only the first two can be KVM's.

`kvm`: KVM ran the guest, and what came of it is not what the guest does: an entry that failed, an
internal error, an unexpected exit, no halt, another byte. `absent`: there is no device, or no driver
behind it. `permission`, `resource` (memory, open files, a processor that another hypervisor holds) and
`system` are errnos, which `error` names; `killed` a signal, `timeout` silence, `tool` a fault of the
probe or of the Python that it ran under. `unknown` is a report from before failures had a kind.
"""


SMCCC_SIGNATURE = "KVM-SMCCC"
"""Stands for CPUID's signature on arm64, where KVM answers a call (SMCCC, vendor hypervisor service UID) with
a UUID of its own, 28b46fb6-2ec5-11e9-a9ca-4b564d003a74. Linux asks as it boots, and logs what came of it
(drivers/firmware/smccc/kvm_guest.c)."""

MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
"""A processor's extension, and KVM's module for it."""


def own_module(extensions: Collection[str]) -> str:
    """KVM's module for the processor that has these extensions; empty where there is none.

    Another vendor's module may be there beside it, or alone: built into the kernel, or loaded by mistake.
    """
    return next((module for extension, module in MODULES.items() if extension in extensions), "")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", serialize_by_alias=True)


_M = TypeVar("_M", bound=_Model)


class GuestRun(_Model):
    """One run of the tiny guest: it writes a byte twice and halts."""

    started: bool
    """KVM accepted the VM, its memory and its registers."""
    entered: bool
    """Guest code really ran."""
    ok: bool
    """It ran to its halt and wrote what it had to."""
    exits: list[str]
    exit_reason: int | None
    """KVM's number of the last exit."""
    hardware_entry_failure_reason: int | None
    failure: Failure = "unknown"
    error: str
    seconds: float


class Device(_Model):
    """/dev/kvm as the probing user meets it. `error` is empty when it opened with API version 12."""

    exists: bool
    opened: bool
    api_version: int | None
    mode: str
    owner: str
    group: str
    failure: Failure = "unknown"
    error: str

    @property
    def absent(self) -> bool:
        """No device, or no driver behind it."""
        return self.failure == "absent" or (self.failure == "unknown" and not self.exists)


class Probe(_Model):
    """What kvm_probe.py prints: two modes on x86, one on arm64. The modes that are the processor's are None
    where the device could not be used at all; the others always.
    """

    schema_: Literal["lab.kvm_probe/1"] = Field(alias="schema")
    device: Device
    real_mode: GuestRun | None
    long_mode: GuestRun | None
    el1: GuestRun | None = None

    @property
    def modes(self) -> dict[str, GuestRun | None]:
        """The modes a guest starts in on this processor, by name; both of x86 where none was tried."""
        if self.el1 is not None:
            return {"EL1": self.el1}
        return {"real mode": self.real_mode, "long mode": self.long_mode}

    @property
    def ok(self) -> bool:
        """A guest runs whichever mode it starts in; firmware needs real mode."""
        return all(mode is not None and mode.ok for mode in self.modes.values())

    @property
    def denied(self) -> bool:
        """KVM itself said no: it ran the tiny guest in some mode, and that did not come out as it must."""
        return any(mode and not mode.ok and mode.failure == "kvm" for mode in self.modes.values())

    @property
    def failure(self) -> Failure:
        """The first failure that is not KVM's own no; empty when there is none."""
        if self.device.error:
            return self.device.failure
        modes = [mode for mode in self.modes.values() if mode is None or not mode.ok]
        kinds: list[Failure] = ["unknown" if mode is None else mode.failure for mode in modes]
        return next((kind for kind in kinds if kind != "kvm"), "")

    @property
    def why(self) -> str:
        """One sentence on what was observed."""
        if self.device.error:
            return self.device.error
        words = [f"{name}: {'runs' if mode.ok else mode.error}" for name, mode in self.modes.items() if mode]
        return "; ".join(words) or "the probe tried no guest"


class ProbedCpu(_Model):
    """The processor as a guest, or the host, sees it."""

    model: str
    count: int
    flags: list[str]
    """Those that matter here: vmx, svm, hypervisor, ept, npt, la57, …"""
    nested_paging: bool | None
    """Whether the CPU offers EPT or NPT; None without vmx and svm."""
    hypervisor: str | None
    """CPUID's hypervisor signature; empty on bare hardware, None where it cannot be read.

    On arm64 SMCCC_SIGNATURE where the kernel says that it runs under KVM, else None: no other hypervisor, nor
    its absence, can be told from user space there."""
    el2: bool | None = None
    """arm64: whether the kernel was started in EL2, which its KVM needs; None where nothing tells."""


class CpuFacts(_Model):
    """What cpu_facts.py prints."""

    schema_: Literal["lab.cpu_facts/1"] = Field(alias="schema")
    kernel: str
    machine: str
    cpu: ProbedCpu
    clocksource: str
    clocksources: list[str]
    modules: dict[str, dict[str, str]]
    """Loaded KVM modules with their parameters, such as {"kvm_amd": {"nested": "1", "npt": "1"}}."""
    kernel_lines: list[str] | None


class KvmFacts(_Model):
    """KVM in L1: the functional probe, and the facts beside it."""

    probe: Probe
    facts: CpuFacts

    @property
    def ok(self) -> bool:
        """The tiny guest ran to its halt in each mode."""
        return self.probe.ok

    @property
    def cpu_flags(self) -> list[str]:
        return self.facts.cpu.flags


class Process(_Model):
    """A process of a container. `started` is seconds of its machine's wall clock."""

    pid: int
    started: float
    command: list[str]
    kvm: list[str]
    """KVM's files it has open: /dev/kvm, anon_inode:kvm-vm, anon_inode:kvm-vcpu."""


class ContainerLook(_Model):
    """What container_look.py prints. `at` is its machine's wall clock, in seconds."""

    schema_: Literal["lab.container_look/1"] = Field(alias="schema")
    at: float
    container: dict[str, Any] | None
    """Docker's description; None when there is no such container, or `error` says why it is not known."""
    error: str
    processes: list[Process]
    files: dict[str, str]
    """Path in the container to the end of that file."""
    memory_kills: int
    kernel: list[str]
    """Lines of the kernel's log about memory, where something was ended for want of it."""
    log: str
    status: int | None
    """Exit status of the command run in it; -1 when it did not end in time, None when none was run."""
    said: str
    stages: dict[str, dict[str, float]]
    """By L2's boot id, the container's own under "": stage to seconds from the container's start.

    All that any look was told of, of the last few boots.
    """


SCRIPTS = ("kvm_probe.py", "cpu_facts.py", "container_look.py", "container_follow.py")


_PART = re.compile(r"^from lab\.probes\.tiny\.(\w+) import (?:\([^)]*\)|[^(\n]*)\n", re.MULTILINE)


def script(name: str) -> str:
    """The text of a script that runs in the guest; the parts that it imports are in it, each once."""
    folder, given = resources.files("lab.probes"), set[str]()

    def whole(text: str) -> str:
        return _PART.sub(lambda match: part(match[1]), text)

    def part(module: str) -> str:
        if module in given:
            return ""
        given.add(module)
        return whole((folder / "tiny" / f"{module}.py").read_text())

    return whole((folder / "scripts" / name).read_text())


def parse_probe(text: str) -> Probe:
    """The line kvm_probe.py printed, checked strictly."""
    return parsed(Probe, text, "")


def parsed(model: type[_M], out: str, err: str) -> _M:
    """What a script printed, as its model. Raises LabError when it is something else."""
    try:
        return model.model_validate_json(out)
    except ValidationError as error:
        raise LabError(
            f"the probe in the VM printed something else than a {model.__name__}: {error.errors()[0]['msg']}",
            tail=tail(f"{out}\n{err}"),
        ) from error
