"""What is to run and when, and what a scheduler must be able to do."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lab.core import caller
from lab.core.errors import UsageError

MARKER = "Made by lab nightly.install; nightly.uninstall removes it."
"""In every file lab installs: one without it is never changed or removed."""
SERVICE_MARKER = "Made by lab fleet.join; fleet.leave removes it."
"""The same, of a program that is to run always."""

_AT = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_PLAIN = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
_TOOLS = ("python3", "ssh", "adb", "qemu-system-x86_64", "qemu-img", "VBoxManage")
"""What a night may call: the folders they are found in now belong on the night's PATH."""
_PYTHON = "LAB_PYTHON"
_TAKEN_ALONG = ("LAB_STATE_DIR", "LAB_CACHE_DIR", "LAB_CONFIG")
"""Variables that say where lab's files are. But for LAB_PYTHON no other goes into an installed file, secrets
least of all."""


@dataclass(frozen=True)
class Plan:
    """A task for every day. `program` is an argument list, `minutes` what it may take at most."""

    program: Sequence[str]
    folder: Path
    hour: int
    minute: int
    minutes: int
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """A file to be installed, bytes as they are written."""

    path: Path
    content: bytes


class Scheduler(Protocol):
    """One system's scheduler. Commands are argument lists; nothing here runs or writes anything."""

    name: str
    tool: str
    """The program that must be there."""
    remedy: str = ""
    """What to do about a hindrance."""
    absent: frozenset[int]
    """What `query` ends with when it is not known, or not active. Any other failure tells nothing."""

    def units(self, plan: Plan) -> list[Unit]:
        """The files to install."""

    def paths(self) -> list[Path]:
        """Where they are when they are installed."""

    def activate(self) -> list[list[str]]:
        """The commands that make them known, in order; fit to be run again."""

    def deactivate(self) -> list[list[str]]:
        """The commands that end that, before the files go. Each may fail when there is nothing to end."""

    def after_removal(self) -> list[list[str]]:
        """The commands that have it forget the files, once they are gone."""
        return []

    def query(self) -> list[str]:
        """The command that tells whether it is known, and more in words; its status is 0 when it is."""

    def hindrance(self, plan: Plan) -> str:  # noqa: ARG002 - of use to one that has any
        """Why this scheduler could not run that, though it would take it; empty when it can."""
        return ""

    def advice(self) -> str:
        """What else a person should know; may be empty."""


def parse_at(text: str) -> tuple[int, int]:
    """Hour and minute of HH:MM, local time. Raises UsageError."""
    match = _AT.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is not a time of day", hint="for example --at 03:30")
    return int(match[1]), int(match[2])


def environment(more: Sequence[str] = ()) -> dict[str, str]:
    """The least a night needs: a PATH with the tools as they are found now, lab's Python and files."""
    folders = [str(Path(program).parent) for tool in _TOOLS if (program := shutil.which(tool))]
    outside = [item for item in (*more, *folders) if not _of_environment(item)]
    path = os.pathsep.join(dict.fromkeys([*outside, *_PLAIN]))
    kept = {name: os.environ[name] for name in _TAKEN_ALONG if os.environ.get(name)}
    return {"PATH": path, **kept, **_python()}


def _python() -> dict[str, str]:
    """LAB_PYTHON as a path that holds anywhere: it may be a name on PATH, or relative to the caller."""
    if not (chosen := os.environ.get(_PYTHON, "")):
        return {}
    there = str(caller.path(chosen)) if os.sep in chosen else shutil.which(chosen) or chosen
    return {_PYTHON: there}


def _of_environment(folder: str) -> bool:
    """Whether a folder is that of a virtual environment: bin/invoke finds its own."""
    return (Path(folder).parent / "pyvenv.cfg").exists()
