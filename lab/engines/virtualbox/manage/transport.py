"""The operations of worker/__main__.py by name, each as VBoxManage does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.deadline import Deadline
from lab.engines.virtualbox.manage import machine, media, power, snapshots, text
from lab.engines.virtualbox.manage.command import Program
from lab.engines.virtualbox.manage.talk import Talk
from lab.engines.virtualbox.transport import WorkerLostError

ANSWER_SECONDS = 60.0

OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "look": machine.look,
    "convert": media.convert,
    "create": machine.create,
    "settings": machine.settings,
    "destroy": machine.destroy,
    "launch": power.launch,
    "forwards": power.forwards,
    "forward": power.forward,
    "unforward": power.unforward,
    "press": power.press,
    "power_off": power.power_off,
    "pause": power.pause_vm,
    "resume": power.resume,
    "save": power.save,
    "discard": power.discard,
    "screenshot": power.screenshot,
    "snapshots": snapshots.listing,
    "take": snapshots.take,
    "restore": snapshots.restore,
    "delete": snapshots.delete,
}


class Manage:
    """lab.engines.virtualbox.transport.Transport over the VBoxManage in the program folder `home`."""

    name = "VBoxManage"

    def __init__(self, home: Path) -> None:
        self._program = Program(home / "VBoxManage")
        self._version = ("", "")

    def call(
        self,
        operation: str,
        deadline: Deadline | None = None,
        tell: Callable[[int], None] | None = None,  # noqa: ARG002 - VBoxManage draws its percentages
        **words: Any,
    ) -> Any:
        talk = Talk(self._program, self._installed(), deadline or Deadline.after(ANSWER_SECONDS))
        perform = self._describe if operation == "describe" else OPERATIONS[operation]
        try:
            return perform(talk, **words)
        except WorkerLostError:  # VBoxSVC died; the next command starts a new one
            return perform(talk, **words)

    def close(self) -> None:
        """Nothing is held: each command is a process of its own."""

    def _installed(self) -> tuple[str, str]:
        if not self._version[0]:
            deadline = Deadline.after(ANSWER_SECONDS)
            self._version = text.version(
                self._program.run("asking for its version", "--version", deadline=deadline)
            )
        return self._version

    def _describe(self, talk: Talk) -> dict[str, Any]:
        """As worker/host.py has it: the features are VirtualBox's word, no proof."""
        version, build = self._installed()
        return {
            "version": version,
            "build": build,
            "api": ".".join(map(str, talk.version)),
            "glue": str(self._program.path),
            "python": "",
            "features": text.features(talk.run("asking what the host can do", "list", "hostinfo")),
        }
