"""Runs one command for a task: progress, JSON, errors, signals, exit code."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from lab import redact
from lab.cli.console import LiveSink, PlainSink
from lab.commands.session import Reply, Session
from lab.config import load
from lab.deadline import cancelled
from lab.errors import ExitCode, InterruptedByUser, LabError
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
    except (LabError, KeyboardInterrupt) as error:
        known = error if isinstance(error, LabError) else InterruptedByUser("interrupted")
        reply = _refusal(known, session)
        _close(live)
        show_error(err, known, evidence=_evidence(session))
    except Exception as error:  # the last resort: a bug, said as one
        known = LabError(
            f"lab itself failed: {error!r}",
            tail=traceback.format_exc(),
            hint="this is a bug in lab: please report it with the lines above",
        )
        reply = _refusal(known, session)
        _close(live)
        show_error(err, known, evidence=_evidence(session))
    _close(live)
    if as_json:
        sys.stdout.write(json.dumps(reply.document, indent=2, default=str) + "\n")
    elif reply.show:
        reply.show(out)
    sys.stdout.flush()
    sys.exit(int(reply.code))


def _refusal(error: LabError, session: Session | None) -> Reply:
    evidence = [*error.evidence, *filter(None, [_evidence(session)])]
    return Reply(
        document={
            "schema": "lab.error/1",
            "error": {
                "what": redact.clean(error.what),
                "hint": redact.clean(error.hint),
                "evidence": evidence,
                "tail": redact.clean(error.tail),
                "exit_code": int(error.exit_code),
            },
        },
        code=error.exit_code,
    )


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
            "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}",
            hint="run the same command again: it goes on where this one stopped",
        )

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


__all__ = ["ExitCode", "perform"]
