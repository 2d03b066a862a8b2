"""The engine that works everywhere: QEMU, by KVM where that really works, else by emulation."""
