"""What a running QEMU says of its machine, and its screen."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.engines.protocol import LOOPBACK, Forward
from lab.engines.qemu.qmp import Monitor, RefusedError

_FORWARD_LINE = re.compile(r"TCP\[HOST_FORWARD\]\s+-?\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)")


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


def _property(monitor: Monitor, path: str, name: str) -> Any:
    try:
        return monitor.execute("qom-get", path=path, property=name)
    except RefusedError:
        return None  # this QEMU's CPU has no such property


def forwards(monitor: Monitor, asked: Sequence[Forward]) -> list[Forward]:
    """The forwards QEMU listens on, by the names they were asked under.

    One that was not asked for is told too, as `port-N`.
    """
    names = {(item.host_port, item.guest_port): item.name for item in asked}
    listing = monitor.execute("human-monitor-command", command_line="info usernet")
    found = []
    for address, outer, inner in _FORWARD_LINE.findall(listing):
        ports = (int(outer), int(inner))
        if address == LOOPBACK:
            found.append(Forward(names.get(ports, f"port-{outer}"), *ports))
    order = {item.name: number for number, item in enumerate(asked)}
    return sorted(found, key=lambda item: (order.get(item.name, len(order)), item.host_port))


def screenshot(monitor: Monitor, target: Path) -> None:
    """The screen as PNG, by QEMU itself or, where it was built without, converted from PPM."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        try:
            monitor.execute("screendump", filename=str(part), format="png")
        except RefusedError:
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
