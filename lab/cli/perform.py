"""Runs one command for a task: progress, JSON, errors, signals, exit code."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

from lab.cli import refusal
from lab.cli.console import LiveSink, PlainSink
from lab.config import Settings, load
from lab.core import caller, screen
from lab.core.deadline import cancelled
from lab.core.errors import ExitCode, InterruptedByUser
from lab.core.steps import EventStream, Steps
from lab.core.tell import Terminal, show_error
from lab.records.live import LiveEvents
from lab.workflow.factories import REAL, Factories
from lab.workflow.session import Reply, Session


def perform(
    command: Callable[[Session], Reply],
    *,
    as_json: bool = False,
    events: str | bool = "",
    flags: Mapping[str, Any] | None = None,
    settings: Callable[[Mapping[str, Any]], Settings] = load,
    factories: Factories = REAL,
) -> NoReturn:
    """Run `command` and leave with its exit code (the contract is lab.core.errors.ExitCode).

    With `as_json`, standard output carries one JSON document and nothing else: the reply, or
    `lab.error/1`. Progress goes to standard error: as events (lab.core.steps), where `events` is True; where
    it names a file, that has them as well. The code is the command's whatever becomes of its
    answer: what was found out stays found out when nobody can read it. `settings` makes the settings of the
    flags, `factories` are how the command reaches the world.
    """
    code = int(ExitCode.INTERRUPTED)
    given = {key: value for key, value in (flags or {}).items() if value not in (None, "")}
    _listen_to_signals()
    try:
        err = Terminal(sys.stderr)
        reply = _reply(command, err, lambda: settings(given), factories, events)
        code = int(reply.code)
        code = _answer(reply, err, as_json)
    except (KeyboardInterrupt, InterruptedByUser):
        pass  # once more, or while the answer was printed: there is nothing left to stop but that
    sys.exit(code)


def _reply(
    command: Callable[[Session], Reply],
    err: Terminal,
    settings: Callable[[], Settings],
    factories: Factories,
    events: str | bool,
) -> Reply:
    """What the command answers, or the document of the error that ended it, which is shown already."""
    instead = events is True
    on_terminal = sys.stderr.isatty() and not instead
    live = LiveSink(err) if on_terminal else None
    session: Session | None = None
    followed: LiveEvents | None = None
    try:
        with screen.used_by(live) if live else contextlib.nullcontext():
            session = Session(
                settings=settings(),
                steps=Steps(EventStream(2) if instead else live or PlainSink(err), *_events(events)),
                interactive=sys.stdin.isatty() and on_terminal,
                ask=lambda question: _ask_for(err, f"{question} [y/N]").strip().lower() in ("y", "yes"),
                ask_for=lambda question: _ask_for(err, question),
                factories=factories,
            )
            followed = LiveEvents(session.settings.state_dir)
            session.steps.subscribe(followed)
            return command(session)
    except screen.ReaderGoneError as gone:
        return Reply(code=gone.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        folders = (session.settings.state_dir, session.settings.cache_dir) if session else ()
        refused = refusal.known(error, again=session.again if session else "", folders=folders)
        evidence = str(session.evidence) if session and session.evidence else ""
        answer = refusal.document(refused, evidence)
        if instead:
            err.print(json.dumps({"kind": "error", **answer["error"]}), soft_wrap=True)
        else:
            show_error(err, refused, evidence=evidence)
        return Reply(answer, code=refused.exit_code)
    finally:
        if followed:
            followed.close()


def _events(flag: str | bool) -> list[EventStream]:
    """The files or named pipes that LAB_EVENTS and --events name, for a program that follows the work
    (docs/tasks.md)."""
    named = [os.environ.get("LAB_EVENTS", ""), flag if isinstance(flag, str) else ""]
    return [EventStream(caller.path(name, home=True)) for name in dict.fromkeys(named) if name]


def _answer(reply: Reply, err: Terminal, as_json: bool) -> int:
    """Print the answer; the exit code. That it cannot be printed is said, unless its reader went away."""
    code = int(reply.code)
    try:
        if as_json:
            sys.stdout.write(json.dumps(reply.document, indent=2, default=str) + "\n")
        elif reply.show:
            reply.show(Terminal(sys.stdout, soft_wrap=not sys.stdout.isatty()))
        sys.stdout.flush()
    except InterruptedByUser:
        raise
    except Exception as error:
        show_error(err, refusal.known(error))
        code = code or int(ExitCode.INTERNAL)  # a fault of lab's own is never green
    fault: OSError | None = getattr(sys.stdout, "fault", None)
    if fault and fault.errno != errno.EPIPE:
        err.print(f"the answer could not be printed: {fault.strerror}", soft_wrap=True)
    return code


def _ask_for(console: Terminal, question: str) -> str:
    """The line that a person answers; empty for no answer at all (the end of standard input)."""
    with screen.lent():
        *before, last = question.splitlines()
        for line in before:
            console.print(line, soft_wrap=True)
        try:
            return console.input(f"{last} ", markup=False)
        except EOFError:
            console.print()
            return ""


def _listen_to_signals() -> None:
    """Ctrl-C, TERM and HUP stop all waiting in every thread, then unwind the main one; Ctrl-Z suspends.

    What was ignored when lab was started stays so: nohup asks for that, and a shell for `&`.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        cancelled.set()
        raise InterruptedByUser(
            "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        )

    def suspend(number: int, _frame: FrameType | None) -> None:
        with screen.lent():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)  # comes back when the person's shell has it go on
            signal.signal(number, suspend)

    handlers = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: stop, signal.SIGTSTP: suspend}
    for number, handler in handlers.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


__all__ = ["ExitCode", "perform"]
