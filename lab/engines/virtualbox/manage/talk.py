"""One operation's talk with VBoxManage: its program, its version, the time it has."""

from __future__ import annotations

from pathlib import Path

from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.engines.virtualbox.manage import text
from lab.engines.virtualbox.manage.command import Program
from lab.engines.virtualbox.transport import ForeignError, MissingError


class Talk:
    def __init__(self, program: Program, installed: tuple[str, str], deadline: Deadline) -> None:
        self.program = program
        self.normalized = installed[0]
        self.deadline = deadline

    @property
    def version(self) -> tuple[int, int]:
        """VirtualBox's, such as (7, 2). Raises LabError when VBoxManage told none."""
        numbers = self.normalized.split(".")
        if len(numbers) < 2:
            raise LabError(f"{self.program.path} does not tell its version", hint="does it run by itself?")
        return int(numbers[0]), int(numbers[1])

    def run(self, doing: str, *words: str | Path) -> str:
        """As Program.run, within the operation's deadline."""
        return self.program.run(doing, *words, deadline=self.deadline)

    def describe(self, uuid: str) -> dict[str, str]:
        """All VBoxManage tells of the machine. Raises MissingError when VirtualBox does not know it."""
        return text.fields(self.run(f"asking for the VM {uuid}", "showvminfo", uuid, "--machinereadable"))

    def find(self, uuid: str) -> dict[str, str] | None:
        """As `describe`; None for a machine VirtualBox does not know."""
        try:
            return self.describe(uuid)
        except MissingError:
            return None

    def state(self, uuid: str) -> str:
        """The API's name of the machine's state. Raises MissingError; LabError for an unknown word."""
        return state_of(self.describe(uuid))

    def ours(self, uuid: str, folder: str) -> dict[str, str]:
        """As `describe`, if the machine's settings lie in `folder`. Raises ForeignError otherwise."""
        described = self.describe(uuid)
        must_be_ours(described, uuid, folder)
        return described


def must_be_ours(described: dict[str, str], uuid: str, folder: str) -> None:
    """Raises ForeignError unless the settings of the machine that was described lie in `folder`."""
    settings = described.get("CfgFile", "")
    if not inside(settings, folder):
        raise ForeignError(
            f"the machine {uuid} is not lab's: its settings are in {settings}", hint="it is left alone"
        )


def state_of(described: dict[str, str]) -> str:
    word = described.get("VMState", "")
    if word not in text.STATES:
        raise LabError(f"VirtualBox tells a state that lab does not know: {word or 'none'}")
    return text.STATES[word]


def is_accessible(described: dict[str, str]) -> bool:
    """Whether VirtualBox can read the machine's settings."""
    return "VMState" in described


def inside(path: str, folder: str) -> bool:
    """Whether a file lies in a folder, links resolved."""
    return bool(path) and Path(path).resolve().is_relative_to(Path(folder).resolve())
