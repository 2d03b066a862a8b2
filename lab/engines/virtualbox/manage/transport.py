"""VirtualBox asked through VBoxManage: each operation is one or a few commands of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.core.deadline import Deadline
from lab.engines.virtualbox.manage import machine, media, power, text
from lab.engines.virtualbox.manage.command import Program
from lab.engines.virtualbox.manage.talk import Talk
from lab.engines.virtualbox.transport import WorkerLostError
from lab.engines.virtualbox.worker.operations import operations

ANSWER_SECONDS = 60.0

_OPERATIONS = operations(machine, media, power)


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
        **words: Any,
    ) -> Any:
        talk = Talk(self._program, self._installed(), deadline or Deadline.after(ANSWER_SECONDS))
        perform = self._describe if operation == "describe" else _OPERATIONS[operation]
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
