"""What the probe scripts print, and nothing else: parsed strictly."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.errors import LabError
from lab.proc import tail

SECONDS_PER_MODE = 20
"""How long each entry of the tiny guest may take: a fraction of a second where it works."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", serialize_by_alias=True)


_M = TypeVar("_M", bound=_Model)


class Entry(_Model):
    """One run of the tiny guest: it writes a byte twice to a port and halts."""

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
    error: str


class Probe(_Model):
    """What kvm_probe.py prints. The modes are None where the device could not be used at all."""

    schema_: Literal["lab.kvm_probe/1"] = Field(alias="schema")
    device: Device
    real_mode: Entry | None
    long_mode: Entry | None

    @property
    def ok(self) -> bool:
        """A guest runs whichever mode it starts in; firmware needs real mode."""
        modes = (self.real_mode, self.long_mode)
        return all(mode is not None and mode.ok for mode in modes)

    @property
    def why(self) -> str:
        """One sentence on what was observed."""
        if self.device.error:
            return self.device.error
        modes = {"real mode": self.real_mode, "long mode": self.long_mode}
        said = [f"{name}: {'runs' if mode.ok else mode.error}" for name, mode in modes.items() if mode]
        return "; ".join(said)


class Cpu(_Model):
    model: str
    count: int
    flags: list[str]
    """Those that matter here: vmx, svm, hypervisor, ept, npt, la57, …"""
    nested_paging: bool | None
    """Whether the CPU offers EPT or NPT; None without vmx and svm."""
    hypervisor: str | None
    """CPUID's hypervisor signature; empty on bare hardware, None where it cannot be read."""


class CpuFacts(_Model):
    """What cpu_facts.py prints."""

    schema_: Literal["lab.cpu_facts/1"] = Field(alias="schema")
    kernel: str
    machine: str
    cpu: Cpu
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
        """The tiny guest ran to its halt in both modes."""
        return self.probe.ok

    @property
    def signature(self) -> str:
        return self.facts.cpu.hypervisor or ""

    @property
    def clocksource(self) -> str:
        return self.facts.clocksource

    @property
    def cpu_flags(self) -> list[str]:
        return self.facts.cpu.flags

    def summary(self) -> str:
        """One sentence: how each mode ended, or why none was tried."""
        return self.probe.why


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


def script(name: str) -> str:
    """The text of a script that runs in the guest."""
    return (resources.files("lab.probes") / "scripts" / name).read_text()


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
