"""Whether a night is of the cell it was asked for. Tags only place it; what was measured decides. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.history.model import Night
from lab.model.domain import Verdict

WRONG_HOST = "wrong host"
"""What the reason begins with where a night ran elsewhere than its cell says."""


@dataclass(frozen=True)
class Expected:
    """What a cell says it is of. Empty: it does not say."""

    host: str = ""
    """A host's id (lab.host.identity)."""
    virtualbox: str = ""
    """A version of VirtualBox, or how it begins: `7.1` is every 7.1.x."""
    processor: str = ""
    """Words that the processor's name has in it, such as `Core i7`; upper and lower case are alike."""


def weigh(expected: Expected, night: Night) -> tuple[Verdict, str]:
    """The verdict and its reason for the cell that `night` was asked for; the night has ended.

    They are the night's own where it ran as expected. Where it did not: inconclusive, and what differs. A
    night that never came to know its cell is judged by its host alone, unless it confirms or refutes.
    """
    own = Verdict(night.verdict)
    differences = _differences(expected, night)
    if differences:
        return (
            Verdict.INCONCLUSIVE,
            f"{WRONG_HOST}: {'; '.join(differences)}; there it was {own}: {night.reason}",
        )
    return own, night.reason


def _differences(expected: Expected, night: Night) -> list[str]:
    cells = [cell for cell in (night.cell, *(run.cell for run in night.runs)) if cell]
    differences = []
    if expected.host and night.host != expected.host:
        differences.append(f"expected host {expected.host}, observed {night.host or 'one without an id'}")
    for cell in cells:
        differences += [text for text in _of_cell(expected, cell) if text not in differences]
    settled = night.verdict in (Verdict.CONFIRMED, Verdict.REFUTED)
    if not cells and settled and (expected.virtualbox or expected.processor):
        differences.append("nothing shows which engine and processor it was measured with")
    return differences


def _of_cell(expected: Expected, cell: Mapping[str, Any]) -> list[str]:
    engine, version, cpu = (str(cell[name] or "") for name in ("engine", "engine_version", "cpu"))
    differences = []
    if expected.virtualbox and not (engine == "virtualbox" and _begins(version, expected.virtualbox)):
        observed = f"{'VirtualBox' if engine == 'virtualbox' else engine} {version or 'of no known version'}"
        differences.append(f"expected VirtualBox {expected.virtualbox}, observed {observed}")
    if expected.processor and _words(expected.processor) not in _words(cpu):
        differences.append(f"expected processor {expected.processor}, observed {cpu or 'none'}")
    return differences


def _begins(version: str, wanted: str) -> bool:
    """Whether a version is the wanted one or below it: 7.1.4 and 7.1r2 are of 7.1, and 7.10 is not."""
    rest = version.removeprefix(wanted)
    return version.startswith(wanted) and not rest[:1].isdecimal()


def _words(text: str) -> str:
    return f" {' '.join(text.casefold().split())} "
