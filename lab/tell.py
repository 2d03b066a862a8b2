"""An error as a person sees it: one screen, whoever prints it."""

from __future__ import annotations

from rich.console import Console

from lab import redact
from lab.errors import LabError

_TAIL_LINES = 12


def show_error(console: Console, error: LabError, *, label: str = "error", evidence: str = "") -> None:
    """What happened, its last words, where the evidence is, what to do next."""

    def line(text: str, style: str = "") -> None:
        console.print(redact.clean(text), style=style, markup=False, highlight=False, soft_wrap=True)

    line(f"{label}: {error.what}", "bold red")
    for words in error.tail.splitlines()[-_TAIL_LINES:]:
        line(f"  │ {words}", "dim")
    for item in [*error.evidence, *([evidence] if evidence else [])]:
        line(f"  evidence: {item}")
    if error.hint:
        line(f"  hint: {error.hint}")
