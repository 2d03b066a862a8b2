"""A machine of Vagrant's VirtualBox provider, asked through VBoxManage, as Vagrant itself does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from lab import bounds, proc
from lab.deadline import Deadline
from lab.engines.protocol import LOOPBACK, Forward, State
from lab.engines.virtualbox import vboxlog
from lab.errors import CommandError, LabError

PROGRAM = "VBoxManage"

_SECONDS = 60.0
_NOT_THERE = "Could not find a registered machine"
_STATES = {
    "running": State.RUNNING,
    "starting": State.RUNNING,
    "stopping": State.RUNNING,
    "livesnapshotting": State.RUNNING,
    "onlinesnapshotting": State.RUNNING,
    "deletingsnapshotlive": State.RUNNING,
    "teleporting": State.RUNNING,
    "teleportingin": State.RUNNING,
    "paused": State.PAUSED,
    "deletingsnapshotlivepaused": State.PAUSED,
    "teleportingpausedvm": State.PAUSED,
    "saved": State.SUSPENDED,
    "saving": State.SUSPENDED,
    "restoring": State.SUSPENDED,
    "poweroff": State.STOPPED,
    "aborted": State.STOPPED,
    "aborted-saved": State.STOPPED,
    "teleported": State.STOPPED,
    # No process has it then; whether its memory is saved is told once this is over.
    "snapshotting": State.STOPPED,
    "deletingsnapshot": State.STOPPED,
    "restoringsnapshot": State.STOPPED,
    "settingup": State.STOPPED,
    "gurumeditation": State.CRASHED,
}
"""VBoxManage's words for VirtualBox's MachineState, 6.1 to 7.2 (machineStateToName, VBoxManageInfo.cpp)."""

_LINE = re.compile(r'^"?([^"=]+)"?="?(.*?)"?$', re.MULTILINE)


class VirtualBox:
    """`uuid` is VirtualBox's own of the machine."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid

    def state(self) -> State:
        try:
            described = self._described()
        except CommandError as error:
            if _NOT_THERE in error.tail:
                return State.ABSENT
            raise
        said = described["VMState"]
        if said not in _STATES:
            raise LabError(f"VirtualBox tells a state that lab does not know: {said}")
        found = _STATES[said]
        full = found is State.PAUSED and vboxlog.parse(self._log(described)).disk_full
        return State.DISK_FULL if full else found

    def settings(self) -> dict[str, str]:
        described = self._described()
        found = settings(described) | vboxlog.settings(self._log(described))
        return {key: value for key, value in found.items() if value}

    def forwards(self, names: Mapping[tuple[int, int], str]) -> list[Forward]:
        return [
            Forward(
                names.get((found.host_port, found.guest_port), found.name), found.host_port, found.guest_port
            )
            for found in forwards(self._described())
        ]

    def why_no_forwards(self) -> str:
        card = self._described().get("nic1", "none")
        return "" if card == "nat" else f"its first network card is not VirtualBox's NAT, but: {card}"

    def add_forward(self, forward: Forward) -> str:
        rule = f"{forward.name},tcp,{LOOPBACK},{forward.host_port},,{forward.guest_port}"
        return self._manage("controlvm", self._uuid, "natpf1", rule)

    def remove_forward(self, forward: Forward) -> None:
        for found in forwards(self._described()):  # by the name it has here, which Vagrant may have given
            if (found.host_port, found.guest_port) == (forward.host_port, forward.guest_port):
                self._manage("controlvm", self._uuid, "natpf1", "delete", found.name)

    def screenshot(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._manage("controlvm", self._uuid, "screenshotpng", str(target.absolute()))

    def logs(self) -> list[Path]:
        log = self._log_file(self._described())
        return [log] if log.is_file() else []

    def _log(self, described: Mapping[str, str]) -> str:
        try:
            return bounds.read_text(self._log_file(described))
        except OSError:
            return ""

    @staticmethod
    def _log_file(described: Mapping[str, str]) -> Path:
        return Path(described.get("LogFldr", "")) / "VBox.log"

    def _described(self) -> dict[str, str]:
        return fields(self._manage("showvminfo", self._uuid, "--machinereadable"))

    @staticmethod
    def _manage(*words: str) -> str:
        return proc.run([PROGRAM, *words], deadline=Deadline.after(_SECONDS)).out


def fields(machinereadable: str) -> dict[str, str]:
    """`showvminfo --machinereadable`: KEY="value" lines, keys and values quoted or not."""
    return dict(_LINE.findall(machinereadable))


def settings(described: Mapping[str, str]) -> dict[str, str]:
    """The settings by lab's names. Accepted is not delivered."""
    return {
        "cpus": described.get("cpus", ""),
        "memory_mib": described.get("memory", ""),
        "nested": described.get("nested-hw-virt", ""),
        "nested_paging": described.get("nestedpaging", ""),
        "paravirt": (described.get("effparavirtprovider") or described.get("paravirtprovider", "")).lower(),
        "uuid": described.get("UUID", ""),
    }


def forwards(described: Mapping[str, str]) -> list[Forward]:
    """The loopback's TCP forwards: Forwarding(N)="name,tcp,address,host port,guest address,guest port"."""
    found = []
    for key, value in described.items():
        words = value.split(",")
        if key.startswith("Forwarding(") and len(words) == 6 and words[1:3] == ["tcp", LOOPBACK]:
            found.append(Forward(words[0], int(words[3]), int(words[5])))
    return found
