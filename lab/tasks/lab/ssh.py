"""lab.ssh and lab.exec: a shell and a command in L1."""

from __future__ import annotations

import signal
import sys

from lab.core import proc, screen
from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.guest.ssh import ssh_command
from lab.workflow.answers import captured
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_DAY = 86400.0
_READER_GONE = 128 + signal.SIGPIPE
"""A shell's word for a command whose reader went away."""


def ssh(session: Session, name: str) -> Reply:
    """A person's shell: ssh itself, on this terminal. Its exit status is ours."""
    bench = Workbench.open(session, name)
    bench.require_running("a shell")
    return Reply(code=proc.passthrough(ssh_command(bench.guest)))


def execute(session: Session, name: str, argv: list[str], capture: bool = False) -> Reply:
    """Run a command in L1 on our own standard streams. Its exit status is ours.

    `capture` keeps its output for the answer instead, and gives it no input.
    """
    if not argv:
        raise UsageError("no command was given", hint="invoke lab.exec -- uname -a")
    bench = Workbench.open(session, name)
    try:
        bench.require_running("a command")
        deadline = Deadline.after(_DAY)
        if not capture:
            return Reply(code=_streamed(bench, argv, deadline))
        result = bench.guest.run(argv, check=False, deadline=deadline)
    finally:
        bench.close()
    sys.stderr.write(result.err)
    return captured(argv, result)


def _streamed(bench: Workbench, argv: list[str], deadline: Deadline) -> int:
    try:
        return bench.guest.stream(argv, deadline)
    except screen.ReaderGoneError:
        return _READER_GONE  # it was ended for that, and nobody knows what it would have come to
