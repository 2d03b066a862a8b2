"""A machine of Vagrant's VirtualBox provider, asked through VBoxManage, as Vagrant itself does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lab.core import bounds
from lab.core.deadline import Deadline
from lab.engines.protocol import LOOPBACK, Forward, State
from lab.engines.virtualbox import vboxlog
from lab.engines.virtualbox.manage import power, text
from lab.engines.virtualbox.manage.command import Program
from lab.engines.virtualbox.manage.machine import settings_of
from lab.engines.virtualbox.manage.talk import Talk, state_of

PROGRAM = "VBoxManage"

_SECONDS = 60.0
_WORDS = {
    State.RUNNING: "Running Starting Stopping LiveSnapshotting OnlineSnapshotting DeletingSnapshotOnline "
    "Teleporting TeleportingIn",
    State.PAUSED: "Paused DeletingSnapshotPaused TeleportingPausedVM",
    State.SUSPENDED: "Saved Saving Restoring",
    State.CRASHED: "Stuck",
}
_STATES = {word: state for state, words in _WORDS.items() for word in words.split()}
"""What VirtualBox's states are to lab. In all others no process has the machine: whether its memory is saved
is told once a snapshot's taking, deleting or restoring is over."""


class VagrantVirtualBox:
    """`uuid` is VirtualBox's own of the machine. The program is the one on PATH, which Vagrant takes too."""

    def __init__(self, uuid: str, program: Program | None = None) -> None:
        self._uuid = uuid
        self._program = program or Program(Path(PROGRAM))

    def state(self) -> State:
        described = self._talk.find(self._uuid)
        if described is None:
            return State.ABSENT
        state = _STATES.get(state_of(described), State.STOPPED)
        full = state is State.PAUSED and vboxlog.parse(self._log(described)).disk_full
        return State.DISK_FULL if full else state

    def settings(self) -> dict[str, str]:
        described = self._described()
        read = settings_of(described) | vboxlog.settings(self._log(described))
        return {key: value for key, value in read.items() if value}

    def forwards(self, names: Mapping[tuple[int, int], str]) -> list[Forward]:
        return [
            Forward(names.get((item.host_port, item.guest_port), item.name), item.host_port, item.guest_port)
            for item in forwards(self._described())
        ]

    def why_no_forwards(self) -> str:
        card = self._described().get("nic1", "none")
        return "" if card == "nat" else f"its first network card is not VirtualBox's NAT, but: {card}"

    def add_forward(self, forward: Forward) -> str:
        return power.forward(
            self._talk,
            self._uuid,
            {"name": forward.name, "host_port": forward.host_port, "guest_port": forward.guest_port},
        )

    def remove_forward(self, forward: Forward) -> None:
        for item in forwards(self._described()):  # by the name it has here, which Vagrant may have given
            if (item.host_port, item.guest_port) == (forward.host_port, forward.guest_port):
                power.unforward(self._talk, self._uuid, item.name)

    def screenshot(self, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        power.screenshot(self._talk, self._uuid, str(target.absolute()))

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
        return self._talk.describe(self._uuid)

    @property
    def _talk(self) -> Talk:
        return Talk(self._program, ("", ""), Deadline.after(_SECONDS))


def forwards(described: Mapping[str, str]) -> list[Forward]:
    """The loopback's TCP forwards."""
    return [
        Forward(item["name"], item["host_port"], item["guest_port"])
        for item in text.redirects(described)
        if item["address"] == LOOPBACK
    ]
