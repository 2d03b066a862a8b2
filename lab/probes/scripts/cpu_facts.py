"""What this machine's CPU, hypervisor and KVM modules say of themselves, as one line of JSON.

Needs nothing but Python 3.6; as root it can also read the kernel's log everywhere.
"""

import json
import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

CLOCK = "/sys/devices/system/clocksource/clocksource0"
MODULES = ("kvm", "kvm_intel", "kvm_amd", "kvm_pvm")
PARAMETERS = ("nested", "ept", "npt", "unrestricted_guest", "enable_shadow_vmcs", "vgif", "avic")
FLAGS = {"vmx", "svm", "hypervisor", "npt", "nrip_save", "ept", "vpid", "la57", "constant_tsc"}
WORDS = ("kvm", "hypervisor", "svm:", "vmx", "paravirtualized kernel", "started at el", "nested virtual")
STARTED = "CPU(s) started at EL"  # arm64's kernel, of the exception level that it was entered in

# push rbx; mov eax,edi; xor ecx,ecx; cpuid; mov [rsi],eax; … mov [rsi+12],edx; pop rbx; ret
CPUID_CODE = bytes.fromhex("5389f831c90fa28906895e04894e0889560c5bc3")


def read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def cpuid(leaf: int) -> "tuple[int, ...] | None":
    """(eax, ebx, ecx, edx) of a CPUID leaf, executed here; None where that cannot be done."""
    if os.uname().machine != "x86_64":
        return None
    try:
        import ctypes

        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page[: len(CPUID_CODE)] = CPUID_CODE
        answer = (ctypes.c_uint32 * 4)()
        entry = ctypes.addressof(ctypes.c_char.from_buffer(page))
        call = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_void_p)(entry)
        call(leaf, ctypes.addressof(answer))
        return tuple(answer)
    except (ImportError, OSError, ValueError):
        return None


def signature(log: "list[str]") -> "str | None":
    """What the hypervisor beneath calls itself, such as KVMKVMKVM; empty on bare hardware.

    On arm64 KVM alone can be told, by what the kernel asked as it booted.
    """
    if any("smccc: KVM: hypervisor services detected" in line for line in log):
        return "KVM-SMCCC"
    basic, hypervisor = cpuid(1), cpuid(0x40000000)
    if basic is None or hypervisor is None:
        return None
    if not basic[2] >> 31 & 1:
        return ""
    return struct.pack("<3I", *hypervisor[1:]).rstrip(b"\0 ").decode("latin-1")


def el2(log: "list[str]") -> "bool | None":
    """arm64: whether the kernel was started in EL2; None where nothing tells."""
    if os.uname().machine != "aarch64":
        return None
    levels = [line.split(STARTED)[1][:1] for line in log if STARTED in line]
    if levels:
        return levels[-1] == "2"
    # Its KVM registers a device where it was, and there alone.
    return True if " kvm" in read("/proc/misc") else None


def cpu(log: "list[str]") -> "dict[str, Any]":
    lines = [line.partition(":") for line in read("/proc/cpuinfo").splitlines()]
    values = {name.strip(): value.strip() for name, _, value in reversed(lines)}
    flags = set(values.get("flags", "").split())
    if sys.platform == "linux" and os.uname().machine == "x86_64" and not flags:
        raise SystemExit("/proc/cpuinfo names no flags of the processor")  # nothing is known: no finding
    svm = cpuid(0x8000000A) if "svm" in flags else None
    return {
        "model": values.get("model name", ""),
        "count": os.cpu_count() or 0,
        "flags": sorted(flags & FLAGS),
        # On AMD from CPUID; on Intel /proc/cpuinfo's ept says it.
        "nested_paging": bool(svm[3] & 1) if svm else "ept" in flags if "vmx" in flags else None,
        "hypervisor": signature(log),
        "el2": el2(log),
    }


def modules() -> "dict[str, dict[str, str]]":
    """Loaded KVM modules with those of their parameters that decide about nesting."""
    loaded = {}
    for name in MODULES:
        if Path(f"/sys/module/{name}").is_dir():
            values = {key: read(f"/sys/module/{name}/parameters/{key}") for key in PARAMETERS}
            loaded[name] = {key: value for key, value in values.items() if value}
    return loaded


def kernel_log() -> "list[str] | None":
    """The kernel's log; None where it may not be read."""
    try:
        done = subprocess.run(
            ["dmesg"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").splitlines() if done.returncode == 0 else None


def bearing(log: "list[str]") -> "list[str]":
    """Its last lines about KVM and hypervisors."""
    return [line for line in log if any(word in line.lower() for word in WORDS)][-40:]


def main() -> None:
    log = kernel_log()
    facts = {
        "schema": "lab.cpu_facts/1",
        "kernel": os.uname().release,
        "machine": os.uname().machine,
        "cpu": cpu(log or []),
        "clocksource": read(f"{CLOCK}/current_clocksource"),
        "clocksources": read(f"{CLOCK}/available_clocksource").split(),
        "modules": modules(),
        "kernel_lines": None if log is None else bearing(log),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
