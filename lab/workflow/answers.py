"""Answers that several tasks give."""

from __future__ import annotations

from collections.abc import Sequence

from lab.core import proc
from lab.documents.labs import LabAction, LabExec
from lab.engines.protocol import State
from lab.guest.ssh import Result
from lab.workflow.session import Reply
from lab.workflow.workbench import Workbench


def lab_action(
    name: str, action: str, state: State, changed: bool, notes: Sequence[str], is_now: str
) -> Reply:
    """What was done with a lab: a person is told what it `is_now`, and each note."""
    done = LabAction(lab=name, action=action, state=state, changed=changed, notes=notes)
    return Reply.of(done, f"lab {name} is {is_now}", *notes)


def acted(bench: Workbench, action: str, changed: bool, notes: Sequence[str]) -> Reply:
    """What was done with a lab, and its state after that; its connection is closed."""
    state = bench.machine_state()
    bench.close()
    return lab_action(bench.lab.name, action, state, changed, notes, state.value)


def captured(argv: Sequence[str], result: Result | proc.Completed) -> Reply:
    """The answer of a command whose output was kept for it; its exit status is lab's."""
    done = LabExec(
        argv=argv, status=result.status, out=result.out, err=result.err, seconds=round(result.seconds, 3)
    )
    return Reply(done.as_json(), code=result.status)
