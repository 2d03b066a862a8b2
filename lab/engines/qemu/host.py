"""QEMU as this host has it: which program, and which acceleration. Asked once, and only when needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from lab.engines.qemu import network
from lab.engines.qemu.capabilities import Capabilities, capabilities
from lab.engines.qemu.command import Accelerator

Acceleration = Literal["auto", "kvm", "tcg"]


class KvmUse(Protocol):
    """What the functional probe of KVM found."""

    @property
    def usable(self) -> bool: ...

    @property
    def why(self) -> str: ...

    @property
    def nested(self) -> bool:
        """Whether KVM hands the virtualization extension on to its guests."""


@dataclass
class HostQemu:
    """`kvm` is called at most once: the probe boots a kernel, so whoever only looks never waits."""

    binary: str
    image_tool: str
    acceleration: Acceleration
    kvm: Callable[[], KvmUse]

    @cached_property
    def kvm_answer(self) -> KvmUse:
        return self.kvm()

    @property
    def accelerator(self) -> Accelerator:
        if self.acceleration == "auto":
            return "kvm" if self.kvm_answer.usable else "tcg"
        return self.acceleration

    @property
    def _capabilities(self) -> Capabilities:
        return capabilities(self.binary)

    @property
    def machine(self) -> str:
        """The versioned machine type for machines powered on afresh."""
        return self._capabilities.machine

    @property
    def sandbox(self) -> bool:
        """Whether QEMU can confine itself on this host."""
        return self._capabilities.sandbox

    @property
    def why_open(self) -> str:
        """Why a VM here can reach the host's loopback; empty when it cannot."""
        return network.why_open()
