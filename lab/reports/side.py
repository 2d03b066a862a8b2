"""One side of a difference: what a run's evidence folder recorded, part by part.

A part that is None was not recorded, or its file is damaged: that is not the same as an empty one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.core import bounds
from lab.core.characters import one_line, printable
from lab.core.files import read_json, read_object
from lab.documents.differences import DiffSide
from lab.ladder.facts import Facts
from lab.model.document import MOMENT
from lab.model.domain import Outcome

Part = Mapping[str, str]
_LONGEST = 400
"""Characters of one value that is shown."""
_OF_ONE_RUN = {"uuid", "memory_available", "boot_id"}
"""Members that differ between any two runs, and mean nothing."""
_PARAMETER = re.compile(r"/sys/module/(?P<name>\w+/parameters/\w+):(?P<value>.*)")


class RunSide:
    """A run's folder, read once. Nothing here raises for a file that is missing or damaged."""

    def __init__(self, folder: Path, night: int | None = None) -> None:
        self.folder = folder
        self._night = night

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """Its validation.json; empty for a run that came to no verdict."""
        return self._object("validation.json") or {}

    @cached_property
    def outcomes(self) -> Mapping[str, Outcome] | None:
        """Rung to outcome; of a run that was cut short those it had come to."""
        rows = self.document.get("rungs") or self._json("rungs.json")
        try:
            return {row["rung"]: Outcome.of_row(row) for row in rows} if rows else None
        except (KeyError, TypeError, ValueError):
            return None

    def described(self) -> DiffSide:
        """Which run it is, and what came of it."""
        run = self._object("run.json") or {}
        started = str(run.get("started") or self.document.get("started") or "")
        return DiffSide(
            name=self.folder.name,
            folder=str(self.folder),
            lab=_shown(run.get("lab") or self.folder.parent.name),
            night=self._night,
            started=started if re.match(MOMENT, started) else None,
            claim=_shown(self.document.get("claim")),
            verdict=_shown(self.document.get("verdict")),
            reason=_shown(self.document.get("reason")),
        )

    def parts(self) -> dict[tuple[str, str], Part | None]:
        """(part, the file that has it) to the part: what lab.diff/1 compares."""
        makers: dict[tuple[str, str], Callable[[], Part | None]] = {
            ("claims", "validation.json"): self._claims,
            ("settings", "config.json"): self._settings,
            ("cell", "validation.json"): lambda: _flat(self.document.get("cell")),
            ("host", "host.json"): lambda: _flat(self._object("host.json")),
            ("versions", "versions.json"): self._versions,
            ("vm", "settings.json"): lambda: _flat(self._object("settings.json")),
            ("kvm", "kvm-parameters.txt"): self._kvm,
            ("packages", "packages.txt"): self._packages,
        }
        return {key: make() for key, make in makers.items()}

    def text(self, name: str) -> str | None:
        """A text of the folder, of a large one the first and the last half; None without one."""
        try:
            return bounds.read_text(self.folder / name)
        except OSError:
            return None

    def _claims(self) -> Part | None:
        claims = self.document.get("claims")
        if not isinstance(claims, Mapping):
            return None
        return {name: _shown(row.get("verdict")) for name, row in claims.items() if isinstance(row, Mapping)}

    def _settings(self) -> Part | None:
        rows = self._json("config.json")
        if not isinstance(rows, list):
            return None
        return {_named(row["key"]): _shown(row["value"]) for row in rows if _has(row, "key", "value")}

    def _versions(self) -> Part | None:
        """Of lab, Python, the engine; and of L1, as far as it was looked at."""
        versions = _flat(self._object("versions.json"))
        if versions is None:
            return None
        facts = Facts.read(measured if isinstance(measured := self.document.get("facts"), Mapping) else {})
        inside = {
            "L1's kernel": facts.vm_boot.kernel if facts.vm_boot else "",
            "Docker": _shown((facts.docker or {}).get("version")),
        }
        return {**versions, **{name: value for name, value in inside.items() if value}}

    def _kvm(self) -> Part | None:
        if (text := self.text("kvm-parameters.txt")) is None:
            return None
        matches = (_PARAMETER.match(line) for line in text.splitlines())
        return {match["name"]: _shown(match["value"]) for match in matches if match}

    def _packages(self) -> Part | None:
        if (text := self.text("packages.txt")) is None:
            return None
        rows = (line.split("\t") for line in text.splitlines())
        return {_named(row[0]): _shown(row[1]) for row in rows if len(row) == 2 and row[1]}

    def _json(self, name: str) -> Any:
        with contextlib.suppress(OSError, ValueError):
            return read_json(self.folder / name)
        return None

    def _object(self, name: str) -> dict[str, Any] | None:
        with contextlib.suppress(OSError, ValueError):
            return read_object(self.folder / name) or None
        return None


def _has(row: object, *keys: str) -> bool:
    return isinstance(row, Mapping) and all(key in row for key in keys)


def _flat(value: object, before: str = "") -> Part | None:
    """Nested objects as `outer.inner`, without what is of one run alone; None for what is no object."""
    if not isinstance(value, Mapping):
        return None
    flat: dict[str, str] = {}
    for name, member in value.items():
        if name in _OF_ONE_RUN:
            continue
        path = before + _named(name)
        inner = _flat(member, f"{path}.")
        flat |= {path: _shown(member)} if inner is None else inner
    return flat


def _named(value: object) -> str:
    """The name of something that a record has a value for: never empty, whatever wrote the record."""
    return _shown(value) or "(unnamed)"


def _shown(value: object) -> str:
    text = ("on" if value else "off") if isinstance(value, bool) else "" if value is None else str(value)
    text = one_line(printable(text))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
