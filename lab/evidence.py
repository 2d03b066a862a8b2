"""The evidence of one run: a folder that outlives the lab, with no secret in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import bounds, redact
from lab.errors import InterruptedByUser, LabError
from lab.files import write_atomic, write_json
from lab.steps import JsonLines

_BINARY = {".png"}


class Run:
    """The evidence folder of one command on one lab: `<evidence>/<lab>/<UTC stamp>-<verb>/`."""

    def __init__(self, root: Path, lab: str, verb: str) -> None:
        self.started = datetime.now(UTC)
        self.lab = lab
        self.verb = verb
        stamp = self.started.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
        self.path = root / lab / f"{stamp}-{verb}"
        self.path.mkdir(parents=True, mode=0o700)
        write_json(self.path / "run.json", {"lab": lab, "verb": verb, "started": self.started.isoformat()})
        self.steps = JsonLines(self.path / "steps.jsonl")

    def text(self, name: str, content: str) -> Path:
        """Keep a text, redacted."""
        target = self.path / name
        write_atomic(target, redact.clean(content))
        return target

    def json(self, name: str, value: Any) -> Path:
        return self.text(name, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")

    def copy(self, source: Path, name: str = "") -> Path | None:
        """Keep a copy of a file (redacted unless it is binary), or None when there is none.

        Of a text of more than 16 MiB the beginning and the end: a guest may write to its console for ever.
        """
        if not source.is_file():
            return None
        target = self.path / (name or source.name)
        if source.suffix in _BINARY:
            shutil.copyfile(source, target)
        else:
            write_atomic(target, redact.clean(bounds.read_text(source)))
        return target

    def collect(self, sources: Mapping[str, Callable[[], str | Path | None]]) -> list[str]:
        """Keep what each source gives; one that fails is named in `missing.txt`, never fatal.

        Raises OSError where not even that can be written, and InterruptedByUser: who was asked to stop
        goes on with nothing.
        """
        kept: list[str] = []
        for name, source in sources.items():
            try:
                found = source()
                if isinstance(found, Path):
                    copied = self.copy(found, name)
                    if copied is None:
                        raise LabError(f"{found.name} does not exist")
                elif found is not None:
                    self.text(name, found)
                kept.append(name)
            except InterruptedByUser:
                raise
            except Exception as error:  # best effort; what is missing is named
                self._missing(name, error)
        return kept

    def _missing(self, name: str, error: Exception) -> None:
        path = self.path / "missing.txt"
        try:
            with path.open("a") as stream:
                stream.write(f"{name}: {redact.clean(str(error))}\n")
        except OSError as full:
            full.filename = full.filename or str(path)  # a disk that is full does not say so itself
            raise


def runs(root: Path, lab: str | None = None) -> list[Path]:
    """Run folders, oldest first."""
    found = root.glob(f"{lab or '*'}/*/run.json")
    return sorted((path.parent for path in found), key=lambda path: path.name)
