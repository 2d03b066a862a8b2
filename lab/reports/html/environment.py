"""How the templates are filled in: everything is escaped, and what a template misnames is an error."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lab import __version__
from lab.core.characters import printable
from lab.reports import text

_HERE = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """The page that a template of this folder makes of `values`."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    """Made once: compiling the templates takes longer than filling them in."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": text.seconds, "moment": moment, "day": _day, "size": _size}
    # The style sheet is lab's own file: it is no text to be escaped.
    environment.globals["style"] = Markup((_HERE / "style.css").read_text())  # noqa: S704
    environment.globals["version"] = __version__
    return environment


def moment(when: datetime) -> str:
    """A time for people: `25 November 2026, 22:57 UTC`."""
    return f"{_day(when)} {when.astimezone(UTC):%Y, %H:%M} UTC"


def _day(when: datetime) -> str:
    utc = when.astimezone(UTC)
    return f"{utc.day} {utc:%B}"


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.0f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"
