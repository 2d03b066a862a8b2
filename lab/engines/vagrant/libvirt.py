"""A machine of Vagrant's libvirt provider: QEMU, run by the user's own libvirt session.

It has QEMU's user network, as lab's own engine has: no bridge, no root, forwards on the loopback only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import CommandError, LabError
from lab.engines.protocol import LOOPBACK, Forward, State
from lab.engines.qemu import readback
from lab.engines.qemu.command import NETWORK
from lab.engines.qemu.forwarding import listed
from lab.engines.qemu.launching import IO_ERROR
from lab.engines.qemu.qmp import Monitor, QmpRefusedError

URI = "qemu:///session"
VIRSH = "virsh"

_SECONDS = 60.0
_NOT_THERE = re.compile(r"failed to get domain|Domain not found")
_NETWORK_LINE = re.compile(r"^(?:Hub|VLAN) -?\d+ \((.+)\):", re.MULTILINE)
_PORT_TAKEN = re.compile(r"could not set up host forwarding rule", re.IGNORECASE)
"""What QEMU says when it cannot bind a port; all else that it says is about the rule or the network."""

_STATES = {
    "running": State.RUNNING,
    "idle": State.RUNNING,
    "paused": State.PAUSED,
    "pmsuspended": State.PAUSED,
    "in shutdown": State.RUNNING,
    "shut off": State.STOPPED,
    "crashed": State.CRASHED,
}


class VagrantLibvirt:
    """`uuid` is the domain's."""

    def __init__(self, uuid: str, virsh: Callable[..., str] | None = None) -> None:
        """`virsh` gives what that program prints, asked with some words of its own."""
        self._uuid = uuid
        self._virsh = virsh or _virsh

    def state(self) -> State:
        try:
            known = state(self._virsh("dominfo", self._uuid))
        except CommandError as error:
            if _NOT_THERE.search(error.tail):
                return State.ABSENT
            raise
        return State.DISK_FULL if known is State.PAUSED and self._is_full() else known

    def _is_full(self) -> bool:
        try:
            return bool(self._monitor.execute("query-status")["status"] == IO_ERROR)
        except (QmpRefusedError, CommandError):
            return False  # it does not say

    def settings(self) -> dict[str, str]:
        # libvirt starts QEMU, and not in a network namespace.
        return readback.settings(self._monitor) | {"host_loopback": "within reach"}

    def forwards(self, names: Mapping[tuple[int, int], str]) -> list[Forward]:
        asked = [Forward(name, *ports) for ports, name in names.items()]
        return listed(self._told("info usernet"), asked)

    def why_no_forwards(self) -> str:
        networks = _NETWORK_LINE.findall(self._told("info usernet"))
        if NETWORK in networks:
            return ""
        there = f"those there are called {', '.join(networks)}" if networks else "there is none"
        return f"it has no user network of QEMU's called {NETWORK}: {there}"

    def add_forward(self, forward: Forward) -> str:
        rule = f"tcp:{LOOPBACK}:{forward.host_port}-:{forward.guest_port}"
        answer = self._told(f"hostfwd_add {NETWORK} {rule}")
        if answer and not _PORT_TAKEN.search(answer):
            raise LabError(f"QEMU opens no forward of host port {forward.host_port}: {answer}")
        return answer

    def remove_forward(self, forward: Forward) -> None:
        self._told(f"hostfwd_remove {NETWORK} tcp:{LOOPBACK}:{forward.host_port}")

    def screenshot(self, target: Path) -> None:
        readback.screenshot(self._monitor, target)

    def logs(self) -> list[Path]:
        name = self._virsh("domname", self._uuid).strip()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        log = cache / "libvirt" / "qemu" / "log" / f"{name}.log"
        return [log] if log.is_file() else []

    @property
    def _monitor(self) -> Monitor:
        return cast(Monitor, _Monitor(self))

    def _told(self, line: str) -> str:
        return readback.monitor_command(self._monitor, line)

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """QEMU's answer to a QMP command."""
        answer: dict[str, Any] = json.loads(
            self._virsh("qemu-monitor-command", self._uuid, json.dumps(command))
        )
        return answer


def _virsh(*words: str) -> str:
    return proc.run([VIRSH, "-c", URI, *words], deadline=Deadline.after(_SECONDS)).out


class _Monitor:
    """The part of lab.engines.qemu.qmp.Monitor that reading back needs, through libvirt."""

    def __init__(self, machine: VagrantLibvirt) -> None:
        self._machine = machine

    def execute(self, command: str, /, **arguments: Any) -> Any:
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        answer = self._machine.ask({"execute": command} | ({"arguments": words} if words else {}))
        if "error" in answer:
            raise QmpRefusedError(f"QEMU refuses `{command}`: {answer['error'].get('desc', '')}")
        return answer["return"]


def state(dominfo: str) -> State:
    """The state in `virsh dominfo`. Raises LabError for one lab does not know."""
    fields = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in dominfo.splitlines())
    }
    known = _STATES.get(fields.get("State", ""))
    if known is None:
        raise LabError("libvirt tells a state that lab does not know", tail=proc.tail(dominfo))
    if known is State.STOPPED and fields.get("Managed save") == "yes":
        return State.SUSPENDED
    return known
