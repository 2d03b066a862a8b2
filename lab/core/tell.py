"""The one door to the terminal, and an error as a person sees it: one screen, whoever prints it.

What lab says holds words of guests, registries and programs. Here they are only ever text: a control
character of theirs is visible and does nothing, square brackets are square brackets, and a line that they
begin is marked as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from lab.core import redact
from lab.core.characters import printable
from lab.core.errors import LabError

CONTINUED = "  │ "
"""Before every line that is not lab's own: a tail, or what follows a line break inside a sentence."""
_TAIL_LINES = 12


class Terminal(Console):
    """A console of Rich's that takes no markup, and lets no control character through but its own."""

    def __init__(self, file: IO[str], **more: Any) -> None:
        super().__init__(file=file, markup=False, emoji=False, highlight=False, **more)

    def print(self, *objects: Any, **more: Any) -> None:
        super().print(*(_sentence(item) if isinstance(item, str) else item for item in objects), **more)

    def render_str(self, text: str, **more: Any) -> Text:
        return super().render_str(printable(text), **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What every renderable becomes in the end: Rich's own control segments, and text, made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=_shown(segment.text))


def show_error(console: Console, error: LabError, *, label: str = "error", evidence: str = "") -> None:
    """What happened, its last words, where the evidence is, what to do next."""

    def line(text: str, style: str = "") -> None:
        console.print(redact.clean(text), style=style, markup=False, highlight=False, soft_wrap=True)

    line(f"{label}: {error.what}", "bold red")
    for words in error.tail.splitlines()[-_TAIL_LINES:]:
        line(f"{CONTINUED}{words}", "dim")
    for item in [*error.evidence, *([evidence] if evidence else [])]:
        line(f"  evidence: {item}")
    if error.hint:
        line(f"  hint: {error.hint}")


def _sentence(text: str) -> str:
    return printable(text).replace("\n", f"\n{CONTINUED}")


def _shown(text: str) -> str:
    return printable(text).replace("\t", " ")
