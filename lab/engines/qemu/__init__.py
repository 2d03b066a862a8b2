"""The engine that works everywhere: QEMU, by KVM where that really works, else by emulation."""

from lab.engines.qemu.engine import QemuEngine

__all__ = ["QemuEngine"]
