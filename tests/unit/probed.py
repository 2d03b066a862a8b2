"""What lab's probes print in L1, and what the program in a proof's image says."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any

KVM = "KVMKVMKVM"


def word_in(image: bytes) -> str:
    """What the program in a proof's image would say: its text is the end of the file."""
    program = program_in(image)
    return program[program.rindex(b"lab-container-") :].decode().strip()


def program_in(image: bytes) -> bytes:
    """The program in a proof's image."""
    with tarfile.open(fileobj=io.BytesIO(image)) as archive:
        layers = [member for member in archive if member.name.endswith(".tar")]
        layer = gzip.decompress(archive.extractfile(layers[0]).read())  # type: ignore[union-attr]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tree:
        return tree.extractfile("proof").read()  # type: ignore[union-attr]


def kvm_entry(ok: bool = True, **changes: Any) -> dict[str, Any]:
    return {
        "started": True,
        "entered": ok,
        "ok": ok,
        "exits": ["io", "io", "hlt"] if ok else [],
        "exit_reason": 5 if ok else 9,
        "hardware_entry_failure_reason": None,
        "failure": "" if ok else "kvm",
        "error": "" if ok else "entry failed",
        "seconds": 0.1,
    } | changes


def kvm_probe(ok: bool = True, **changes: Any) -> dict[str, Any]:
    """What kvm_probe.py prints."""
    device = {"exists": True, "opened": True, "api_version": 12, "mode": "0660"}
    device |= {"owner": "root", "group": "kvm", "failure": "", "error": ""}
    return {
        "schema": "lab.kvm_probe/1",
        "device": device,
        "real_mode": kvm_entry(ok),
        "long_mode": kvm_entry(ok),
    } | changes


def cpu_facts(**changes: Any) -> dict[str, Any]:
    """What cpu_facts.py prints."""
    cpu = {"model": "A CPU", "count": 2, "flags": ["svm", "hypervisor"]}
    return {
        "schema": "lab.cpu_facts/1",
        "kernel": "6.12",
        "machine": "x86_64",
        "cpu": cpu | {"nested_paging": True, "hypervisor": KVM},
        "clocksource": "kvm-clock",
        "clocksources": ["kvm-clock", "tsc"],
        "modules": {},
        "kernel_lines": None,
    } | changes
