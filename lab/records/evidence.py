"""The evidence of one run: a folder that outlives the lab, with no secret in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.core import bounds, redact
from lab.core.errors import InterruptedByUser, LabError
from lab.core.files import open_private, private_folder, write_atomic, write_json
from lab.core.steps import JsonLines

_BINARY = {".png"}
STAMP = "%Y%m%dT%H%M%S.%fZ"
"""How a run's folder begins: the UTC time at which it began, whose last digits are left out."""


class Run:
    """The evidence folder of one command on one lab: `<evidence>/<lab>/<UTC stamp>-<verb>/`.

    Its name is for people. What came first is said by `order` in its run.json: one more than that of
    every run there was, of whatever lab, since a clock may be set back.
    """

    def __init__(self, root: Path, lab: str, verb: str) -> None:
        self.started = datetime.now(UTC)
        self.lab = lab
        self.verb = verb
        stamp = self.started.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
        self.path = root / lab / f"{stamp}-{verb}"
        for folder in (root, root / lab):
            private_folder(folder)
        self.path.mkdir(mode=0o700)
        order = 1 + max((_order(path) for path in root.glob("*/*/run.json")), default=0)
        facts = {"lab": lab, "verb": verb, "started": self.started.isoformat(), "order": order}
        write_json(self.path / "run.json", facts)
        self.steps = JsonLines(self.path / "steps.jsonl")

    def text(self, name: str, content: str) -> Path:
        """Keep a text, redacted."""
        return write_text(self.path / name, content)

    def json(self, name: str, value: Any) -> Path:
        """Keep a value as JSON, redacted."""
        return self.text(name, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")

    def copy(self, source: Path, name: str = "") -> Path | None:
        """Keep a copy of a file (redacted unless it is binary), or None when there is none.

        Of a text of more than 16 MiB the beginning and the end: a guest may write to its console for ever.
        """
        if not source.is_file():
            return None
        target = self.path / (name or source.name)
        if source.suffix in _BINARY:
            with source.open("rb") as content, open_private(target, "wb") as stream:
                shutil.copyfileobj(content, stream)
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
                content = source()
                if isinstance(content, Path):
                    copied = self.copy(content, name)
                    if copied is None:
                        raise LabError(f"{content.name} does not exist")
                elif content is not None:
                    self.text(name, content)
                kept.append(name)
            except InterruptedByUser:
                raise
            except Exception as error:  # best effort; what is missing is named
                self._missing(name, error)
        return kept

    def _missing(self, name: str, error: Exception) -> None:
        path = self.path / "missing.txt"
        try:
            with open_private(path, "a") as stream:
                stream.write(f"{name}: {redact.clean(str(error))}\n")
        except OSError as full:
            full.filename = full.filename or str(path)  # a disk that is full does not say so itself
            raise


def write_text(path: Path, content: str) -> Path:
    """Keep a text, redacted, and return where."""
    write_atomic(path, redact.clean(content))
    return path


def runs(root: Path, lab: str | None = None) -> list[Path]:
    """Run folders of one lab, or of all, oldest first: as they were made, whatever the clock said.

    Folders of a lab that did not number them yet come before all others, by their names.
    """
    files = root.glob(f"{lab or '*'}/*/run.json")
    return [path.parent for path in sorted(files, key=lambda path: (_order(path), path.parent.name))]


def _order(run: Path) -> int:
    """What a run.json says of its place among all runs; 0 where it does not, or cannot be read."""
    try:
        order = json.loads(run.read_text()).get("order", 0)
    except (OSError, ValueError, AttributeError):
        return 0
    return order if isinstance(order, int) else 0
