"""On what terms lab is in a machine: as in a VM of its own, or as a guest in somebody else's."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from lab.core.deadline import Deadline

AsRoot = bool | Literal["always"]
"""Whether root is to run a command: True where the terms let lab be root, `always` on any terms."""


@dataclass(frozen=True)
class Terms:
    """The defaults are those of a VM that lab made: lab may do everything, and its boot is waited for."""

    somebodys: bool = False
    """It is no VM of lab's: it runs, and nothing in it is changed without being asked for."""
    owner: str = ""
    """The lab's UUID, where what lab makes in there must carry it."""
    dial: Callable[[Deadline], socket.socket] | None = None
    """How its SSH server is reached; None: by a connection to host and port. Raises OSError."""
    agent: str = ""
    """The socket of the SSH agent that has the key; empty: the environment's."""
    command: tuple[str, ...] = ()
    """What gives a person a shell there; empty: `ssh` with the guest's own key."""
    sudo: bool = True
    """Whether a command that is to run as root does. In somebody's machine it runs as the user, who may
    do what is needed."""
    docker_by_sudo: bool = False
    """Docker is root's alone, and the user may be root without a password."""
    kvm_by_sudo: bool = False
    """The same of /dev/kvm."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """For every command."""
    folder: str = ""
    """A folder of lab's own in there, for all files that it puts there; empty: the usual places."""
    python: tuple[str, ...] = ()
    """The words that stand for `python3`, where the machine has none that will do; empty: its own."""
    publish: str = ""
    """The address on which containers publish their ports; empty: the one that SSH came in by."""

    def applied(self, words: Sequence[str], sudo: AsRoot) -> tuple[list[str], bool]:
        """The words of a command and whether root runs it, on these terms."""
        argv = [str(word) for word in words]
        if self.python and argv[:1] == ["python3"]:
            argv = [*self.python, *argv[1:]]
        by_root = sudo == "always" or (sudo and self.sudo)
        by_root = by_root or (self.docker_by_sudo and argv[:1] == ["docker"])
        more = dict(self.environment) | ({"TMPDIR": self.folder} if self.folder else {})
        if more:
            argv = ["env", *(f"{name}={value}" for name, value in more.items()), *argv]
        return argv, by_root


OWN = Terms()
"""Of a VM that lab made."""
