"""What a running QEMU says of its machine, and its screen."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from lab.engines.qemu import network
from lab.engines.qemu.qmp import Monitor, QmpRefusedError


def settings(monitor: Monitor) -> dict[str, str]:
    """The settings as QEMU has them: no word of this comes from lab's own configuration."""
    cpus = monitor.execute("query-cpus-fast")
    memory = monitor.execute("query-memory-size-summary")
    kvm = bool(monitor.execute("query-kvm")["enabled"])
    version = monitor.execute("query-version")["qemu"]
    cpu = cpus[0]["qom-path"]
    extensions = [name for name in ("svm", "vmx") if _property(monitor, cpu, name) is True]
    hidden = _property(monitor, cpu, "kvm") is False
    return {
        "cpus": str(len(cpus)),
        "memory_mib": str((memory["base-memory"] + memory.get("plugged-memory", 0)) >> 20),
        "nested": "on" if extensions else "off",
        "nested_extension": ",".join(extensions) or "none",
        "paravirt": "kvm" if kvm and not hidden else "none",
        "acceleration": "kvm" if kvm else "tcg",
        "cpu_type": str(_property(monitor, cpu, "type") or ""),
        "uuid": str(monitor.execute("query-uuid")["UUID"]),
        "version": f"{version['major']}.{version['minor']}.{version['micro']}",
    }


def monitor_command(monitor: Monitor, line: str) -> str:
    """The answer of QEMU's monitor for people: QMP has no words for forwards."""
    return str(monitor.execute("human-monitor-command", command_line=line)).strip()


def host_loopback(pid: int) -> dict[str, str]:
    """Whether the VM can reach the services on the host's loopback, by where its process runs."""
    return {"host_loopback": "out of reach" if network.is_apart(pid) else "within reach"}


def _property(monitor: Monitor, path: str, name: str) -> Any:
    try:
        return monitor.execute("qom-get", path=path, property=name)
    except QmpRefusedError:
        return None  # this QEMU's CPU has no such property


def screenshot(monitor: Monitor, target: Path) -> None:
    """The screen as PNG, by QEMU itself or, where it was built without, converted from PPM."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        try:
            monitor.execute("screendump", filename=str(part), format="png")
        except QmpRefusedError:
            monitor.execute("screendump", filename=str(part))
            _to_png(part)
        part.replace(target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


def _to_png(picture: Path) -> None:
    from PIL import Image  # only here: it takes a while to load

    with Image.open(picture) as image:
        image.load()
        image.save(picture, format="PNG")
