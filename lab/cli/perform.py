"""Runs one command for a task: progress, JSON, errors, signals, exit code."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from lab.cli import refusal
from lab.cli.console import LiveSink, PlainSink
from lab.commands.session import Reply, Session
from lab.config import load
from lab.deadline import cancelled
from lab.errors import ExitCode, InterruptedByUser
from lab.steps import Steps
from lab.tell import show_error


def perform(
    command: Callable[[Session], Reply],
    *,
    as_json: bool = False,
    flags: Mapping[str, Any] | None = None,
) -> NoReturn:
    """Run `command` and leave with its exit code (the contract is lab.errors.ExitCode).

    With `as_json`, standard output carries one JSON document and nothing else: the reply, or
    `lab.error/1`. Progress goes to standard error.
    """
    out = Console(file=sys.stdout, soft_wrap=not sys.stdout.isatty())
    err = Console(file=sys.stderr)
    live = LiveSink(err) if err.is_terminal else None
    steps = Steps(live or PlainSink(err))
    session: Session | None = None
    _listen_to_signals()
    try:
        given = {key: value for key, value in (flags or {}).items() if value not in (None, "")}
        session = Session(
            settings=load(given),
            steps=steps,
            interactive=sys.stdin.isatty() and err.is_terminal,
            ask=lambda question: _ask(err, live, question),
        )
        reply = command(session)
    except (Exception, KeyboardInterrupt) as error:
        again = session.again if session else ""
        folders = (session.settings.state_dir, session.settings.cache_dir) if session else ()
        refused = refusal.known(error, again=again, folders=folders)
        reply = Reply(refusal.document(refused, _evidence(session)), code=refused.exit_code)
        _close(live)
        show_error(err, refused, evidence=_evidence(session))
    _close(live)
    if as_json:
        sys.stdout.write(json.dumps(reply.document, indent=2, default=str) + "\n")
    elif reply.show:
        reply.show(out)
    sys.stdout.flush()
    sys.exit(int(reply.code))


def _evidence(session: Session | None) -> str:
    return str(session.evidence) if session and session.evidence else ""


def _close(live: LiveSink | None) -> None:
    if live:
        live.close()


def _ask(console: Console, live: LiveSink | None, question: str) -> bool:
    if live:
        live.close()
    return console.input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _listen_to_signals() -> None:
    """Ctrl-C, TERM and HUP stop all waiting in every thread, then unwind the main one."""

    def stop(number: int, _frame: FrameType | None) -> None:
        cancelled.set()
        raise InterruptedByUser(
            "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        )

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


__all__ = ["ExitCode", "perform"]
