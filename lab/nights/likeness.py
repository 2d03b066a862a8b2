"""Repeating a night with the settings and digests on record, and saying what could not be had again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lab import __version__
from lab.config import Settings
from lab.config.model import PUBLISHED, leaves
from lab.core.errors import UsageError
from lab.history.model import Night
from lab.history.regressions import changes
from lab.history.store import History
from lab.nights import keys
from lab.workflow.session import Session

_SETTINGS = (
    "engine", "image", "docker.package", "qemu.acceleration", "virtualbox.execution_engine",
    "virtualbox.extra_data", "nightly.runs", "nightly.compare",
)  # fmt: skip
_SECTIONS = ("vm.", "emulator.")
"""What makes a night what it is. Where this machine keeps and finds things is its own matter."""
_REDACTED = "[redacted]"


@dataclass(frozen=True)
class Likeness:
    """A night to be repeated, and what it is repeated with."""

    night: Night
    settings: Settings
    missing: Sequence[str]
    """What of its settings cannot be had, each as the end of a sentence."""

    def notes(self, cell: Mapping[str, Any] | None) -> list[str]:
        """What to note of the night that repeated it, in the cell that it came to know, or None."""
        then = self.night
        was = f"this repeats night {then.id}, which was {then.claim or 'a night'} {then.verdict}"
        lost = list(self.missing)
        if then.lab_version != __version__:
            lost.append(f"lab {then.lab_version} → {__version__}")
        if then.cell is None or cell is None:
            whose = "that night" if then.cell is None else "this one"
            return [f"{was}; {whose} did not come to know its cell{_not_again(lost)}"]
        lost += [f"engine {then.cell['engine']} → {cell['engine']}"] * (then.cell["engine"] != cell["engine"])
        lost += [f"processor {then.cell['cpu']} → {cell['cpu']}"] * (then.cell["cpu"] != cell["cpu"])
        lost += changes(then.cell, cell)
        return [f"{was}{_not_again(lost) or ', in the same cell'}"]


def like(session: Session, history: History, name: str) -> Likeness:
    """What it takes to repeat the night of that number, uuid or key; flags of this command stand.

    Raises UsageError: there is none, it still runs, ran on another host, or its settings are not on record.
    """
    night = keys.find(history, name, session.host_id)
    if not night.verdict:
        raise UsageError(f"night {night.id} still runs", hint="repeat it when it has ended")
    if night.host not in ("", session.host_id):
        raise UsageError(
            f"night {night.id} ran on another host ({night.host})", hint="repeat it there, where its cell is"
        )
    recorded = _recorded(night)
    settings, missing = session.settings, []
    for key, value in recorded.items():
        if settings.origins.get(key, "").startswith("flag"):
            continue
        if key not in leaves():
            missing.append(f"{key}, which this lab does not know")
            continue
        if _REDACTED in json.dumps(value):
            missing.append(f"{key}, which holds a secret")
            continue
        try:
            settings = _changed(settings, key, value, f"night {night.id}")
        except ValidationError as error:
            missing.append(f"{key} = {value!r} ({error.errors()[0]['msg']})")
    return Likeness(night, settings, missing)


def _not_again(lost: Sequence[str]) -> str:
    return f"; could not be had again: {'; '.join(lost)}" if lost else ""


def _recorded(night: Night) -> dict[str, Any]:
    """The settings of a night, by dotted key, and the digest of its emulator's image where it pulled one."""
    for run in night.runs:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            rows = json.loads((Path(run.evidence) / "config.json").read_text())
            settings = {row["key"]: row["value"] for row in rows if _matters(row["key"])}
            return settings | (_chosen(settings, night.cell) if night.cell else {})
    raise UsageError(
        f"the settings of night {night.id} are not on record: no run of it left its config.json",
        hint="`invoke nightly.history` shows the nights",
    )


def _chosen(settings: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """What lab chose where the settings left it to lab, by the cell that the night came to know."""
    image = str(cell["image"])
    names = [name for name in (*PUBLISHED, "debian-13") if image.startswith(f"{name}-")]
    chosen = {
        "engine": cell["engine"],
        "emulator.kind": cell["emulator"],
        "image": max(names, key=len, default=""),
        "qemu.acceleration": cell["acceleration"] if cell["acceleration"] in ("kvm", "tcg") else "",
    }
    pinned = {key: value for key, value in chosen.items() if settings.get(key) == "auto" and value}
    kind, _, digest = str(cell["emulator_image"]).partition("@")
    pulled = settings.get("emulator.archive") == "" and digest.startswith("sha256:")
    if kind == "docker-android" and pulled and not settings.get("emulator.digest"):
        pinned["emulator.digest"] = digest
    return pinned


def _matters(key: str) -> bool:
    return key in _SETTINGS or key.startswith(_SECTIONS)


def _changed(settings: Settings, key: str, value: Any, origin: str) -> Settings:
    """The settings with one value replaced. Raises ValidationError for one that they cannot have."""
    members = settings.model_dump()
    *sections, name = key.split(".")
    place = members
    for section in sections:
        place = place[section]
    place[name] = value
    return Settings(**members).with_origins(settings.origins | {key: origin})
