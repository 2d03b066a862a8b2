"""The forwards of a running QEMU: what it listens on, one more, one less."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import psutil

from lab.core.errors import LabError
from lab.engines.protocol import LOOPBACK, Forward
from lab.engines.qemu import readback
from lab.engines.qemu.command import NETWORK
from lab.engines.qemu.launching import Launcher, port_error
from lab.engines.qemu.network import INSIDE, ForwardRefusedError, Namespace
from lab.engines.qemu.qmp import Monitor

_FORWARD_LINE = re.compile(r"TCP\[HOST_FORWARD\]\s+-?\d+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)")


def listed(usernet: str, asked: Sequence[Forward]) -> list[Forward]:
    """The forwards in what `info usernet` says. One that was not asked for is told too, as `port-N`."""
    names = {(item.host_port, item.guest_port): item.name for item in asked}
    forwards = []
    for address, outer, inner in _FORWARD_LINE.findall(usernet):
        ports = (int(outer), int(inner))
        if address in (LOOPBACK, INSIDE):
            forwards.append(Forward(names.get(ports, f"port-{outer}"), *ports))
    order = {item.name: number for number, item in enumerate(asked)}
    return sorted(forwards, key=lambda item: (order.get(item.name, len(order)), item.host_port))


class Forwarding:
    """QEMU keeps no names: those are in the record of the process."""

    def __init__(self, monitor: Monitor, running: psutil.Process, launcher: Launcher) -> None:
        self._monitor = monitor
        self._running = running
        self._launcher = launcher
        launch = launcher.launched()
        self._apart = Namespace(launch.network) if launch and launch.network else None

    def all(self) -> list[Forward]:
        """The forwards QEMU listens on, by the names they were asked under."""
        launch = self._launcher.launched()
        inner = listed(
            readback.monitor_command(self._monitor, "info usernet"), launch.forwards if launch else []
        )
        if self._apart is None:
            return inner
        outer = self._apart.ports()
        return [item for item in inner if item.host_port in outer]

    def open(self, forward: Forward, log: Path) -> None:
        """Listen for a forward, in the place of one of its name. Raises PortTakenError."""
        if forward in self.all():
            return
        others = self._closed(forward.name)
        self._launcher.amend(
            self._running, [*others, forward]
        )  # first: one that listens is known by its name
        if forward.host_port not in {item.host_port for item in others}:  # half of one that was cut short
            readback.monitor_command(self._monitor, f"hostfwd_remove {NETWORK} {self._inner(forward)}")
        answer = readback.monitor_command(
            self._monitor, f"hostfwd_add {NETWORK} {self._inner(forward)}-:{forward.guest_port}"
        )
        try:
            if self._apart is not None and not answer:
                self._apart.open(forward.host_port)
        except ForwardRefusedError as error:
            readback.monitor_command(self._monitor, f"hostfwd_remove {NETWORK} {self._inner(forward)}")
            self._launcher.amend(self._running, others)
            if not error.port:
                raise
            answer = f"{error.what}: {error.tail}"
        if forward not in self.all():
            self._launcher.amend(self._running, others)
            raise port_error(forward.host_port, [forward], answer, log)

    def close(self, name: str) -> None:
        """Listen no more for the forward of that name. Raises LabError when it stays."""
        self._launcher.amend(self._running, self._closed(name))

    def _closed(self, name: str) -> list[Forward]:
        """Close it; the forwards that are left."""
        for item in self.all():
            if item.name == name:
                if self._apart is not None:
                    self._apart.close(item.host_port)
                answer = readback.monitor_command(
                    self._monitor, f"hostfwd_remove {NETWORK} {self._inner(item)}"
                )
                if item in self.all():
                    raise LabError(f"QEMU still forwards port {item.host_port} of {LOOPBACK}", tail=answer)
        return [item for item in self.all() if item.name != name]

    def _inner(self, forward: Forward) -> str:
        """Where QEMU itself listens for it."""
        return f"tcp:{INSIDE if self._apart else LOOPBACK}:{forward.host_port}"
