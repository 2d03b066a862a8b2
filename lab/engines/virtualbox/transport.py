"""How VirtualBox is spoken to: operations by name, over its bindings or VBoxManage, with the same answers."""

from __future__ import annotations

from typing import Any, Protocol

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, BusyError, LabError
from lab.engines.protocol import NestingRefusedError


class WorkerLostError(LabError):
    """VBoxSVC, or who spoke to it, died. The operation may be begun again."""


class MissingError(LabError):
    """VirtualBox does not know the object."""


class GlueError(BlockedError):
    """VirtualBox's Python bindings are missing, or do not fit: another transport may do."""


class ForeignError(LabError):
    """The object is not lab's own."""


_KINDS: dict[str, type[LabError]] = {
    "dead": WorkerLostError,
    "missing": MissingError,
    "busy": BusyError,
    "nesting": NestingRefusedError,
    "blocked": BlockedError,
    "foreign": ForeignError,
    "glue": GlueError,
}
"""Kinds of fault (worker/faults.py) and what they are to lab; any other is a LabError."""


def as_error(kind: str, what: str, tail: str = "", hint: str = "") -> LabError:
    """The error for a fault of that kind, with VirtualBox's own words as its tail."""
    return _KINDS.get(kind, LabError)(what, tail=tail, hint=hint)


class Transport(Protocol):
    """Its operations: `describe`, and those of worker/operations.py. One cut short may be begun again."""

    name: str
    """`vboxapi` or `VBoxManage`."""

    def call(
        self,
        operation: str,
        deadline: Deadline | None = None,
        **words: Any,
    ) -> Any:
        """The operation's result.

        Raises LabError of the kind the fault is, DeadlineError, InterruptedByUser.
        """

    def close(self) -> None:
        """Let go of what the transport holds; a later call begins anew."""
