"""Machines that are somebody's, over SSH or this very one: lab makes, starts and ends none of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lab.core.errors import LabError
from lab.engines.kind import EngineKind, Trace
from lab.engines.options import Options
from lab.engines.protocol import Engine
from lab.model.domain import ATTACHED

NAME = ATTACHED
"""The engine's name, as a lab's record has it. `auto` never takes it: `lab.attach` does."""


def _make(options: Options) -> Engine:
    from lab.engines.attached.engine import AttachedEngine

    if options.folder is None:
        raise LabError("an attached machine is asked about without its lab")
    return AttachedEngine(options.folder)


def _traces(folder: Path) -> Iterator[Trace]:
    from lab.engines.attached import link

    if (folder / link.FILE).exists():
        yield Trace(NAME, "", str(folder / link.FILE))


KIND = EngineKind(NAME, _make, by_folder=True, traces=_traces)
