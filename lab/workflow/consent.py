"""Asking once, before a nested start that may harm the host."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core.errors import BlockedError
from lab.core.files import read_object, write_json
from lab.engines.protocol import Engine
from lab.workflow.session import Session


def given(session: Session, engine: Engine) -> bool:
    """Whether a nested start needs no question here: nothing is known against it, or it was agreed to."""
    if not engine.caution() or session.settings.virtualbox.allow_nested_on_host:
        return True
    return engine.name in _agreed(session)


def require(session: Session, engine: Engine) -> None:
    """Ask, once. Raises BlockedError when the answer is no, or nobody can be asked."""
    if given(session, engine):
        return
    if session.interactive and session.ask(f"{engine.caution()} Start it all the same?"):
        write_json(
            _file(session), _agreed(session) | {engine.name: datetime.now(UTC).isoformat(timespec="seconds")}
        )
        return
    raise BlockedError(
        f"nobody agreed to a nested start: {engine.caution()}",
        hint="set virtualbox.allow_nested_on_host = true once you have saved your work, or use --engine qemu",
    )


def _agreed(session: Session) -> dict[str, Any]:
    """Engine to when it was agreed to. What cannot be read agrees to nothing: it is asked anew."""
    try:
        return read_object(_file(session))
    except ValueError:
        return {}


def _file(session: Session) -> Path:
    return session.settings.state_dir / "agreed.json"
