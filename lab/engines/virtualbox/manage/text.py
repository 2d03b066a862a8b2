"""What VBoxManage and VirtualBox's settings file say, as values."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_FIELD = re.compile(
    r'^(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^="\s][^="]*))=(?P<value>.*)$', re.MULTILINE
)
_ESCAPED = re.compile(r"\\(.)")
_NAMESPACE = "{http://www.virtualbox.org/}"
_NO_PARENT = "base"

_ALIKE = """
    Saved Teleported Aborted Running Paused Starting Stopping Saving Restoring SettingUp Snapshotting
    Teleporting TeleportingPausedVM TeleportingIn LiveSnapshotting OnlineSnapshotting RestoringSnapshot
    DeletingSnapshot
"""
STATES: Mapping[str, str] = {name.lower(): name for name in _ALIKE.split()} | {
    "poweroff": "PoweredOff",
    "aborted-saved": "AbortedSaved",
    "gurumeditation": "Stuck",
    "deletingsnapshotlive": "DeletingSnapshotOnline",
    "deletingsnapshotlivepaused": "DeletingSnapshotPaused",
}
"""VBoxManage's words for the API's MachineState, 6.1 to 7.2 (machineStateToName, VBoxManageInfo.cpp)."""

FEATURES: Mapping[str, str] = {
    "HW virtualization": "HWVirtEx",
    "nested HW virtualization": "NestedHWVirt",
    "nested paging": "NestedPaging",
    "unrestricted guest": "UnrestrictedGuest",
    "long mode": "LongMode",
}
"""`list hostinfo`'s words for the API's ProcessorFeature; what a version does not list is False."""


@dataclass(frozen=True)
class Disk:
    """A registered hard disk. `parent` is the UUID of what it is a difference on, empty for none."""

    uuid: str
    parent: str
    location: str


def fields(machinereadable: str) -> dict[str, str]:
    """`showvminfo --machinereadable`: KEY="value" lines, the keys and values quoted or not, by key."""
    described = {}
    for match in _FIELD.finditer(machinereadable):
        value = match["value"].rstrip("\r")
        if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
            value = _ESCAPED.sub(r"\1", value[1:-1])
        described[match["bare"] or _ESCAPED.sub(r"\1", match["quoted"])] = value
    return described


def redirects(described: Mapping[str, str]) -> list[dict[str, Any]]:
    """The TCP forwards: Forwarding(N)="name,tcp,address,host port,guest address,guest port"."""
    rows = []
    for key, value in described.items():
        words = value.rsplit(",", 5)  # a name may hold commas
        if key.startswith("Forwarding(") and len(words) == 6 and words[1] == "tcp":
            rows.append(
                {
                    "name": words[0],
                    "address": words[2],
                    "host_port": int(words[3]),
                    "guest_port": int(words[5]),
                }
            )
    return rows


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """`list … --long`: paragraphs of `Name: value` lines. Of a name that is repeated the first counts."""
    for block in re.split(r"\r?\n\s*\r?\n", text):
        pairs = [line.partition(":") for line in block.splitlines() if ":" in line]
        if pairs:
            yield {name.strip(): value.strip() for name, _, value in reversed(pairs)}


def disks(text: str) -> list[Disk]:
    """`list hdds --long`."""
    return [
        Disk(
            row["UUID"],
            "" if row.get("Parent UUID") == _NO_PARENT else row.get("Parent UUID", ""),
            row["Location"],
        )
        for row in paragraphs(text)
        if "UUID" in row and "Location" in row
    ]


def features(hostinfo: str) -> dict[str, bool]:
    """`list hostinfo`: what VirtualBox says the processor can do, by the API's names."""
    has = {key: value == "yes" for key, value in _supported(hostinfo)}
    return {name: has.get(words, False) for words, name in FEATURES.items()}


def _supported(hostinfo: str) -> Iterator[tuple[str, str]]:
    for line in hostinfo.splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Processor supports "):
            yield name.removeprefix("Processor supports ").strip(), value.strip()


def execution_engine(settings: Path) -> str:
    """How a settings file says that instructions are run, in the API's words; `default` where it does not.

    Raises OSError and ElementTree.ParseError.
    """
    machine = ElementTree.parse(settings).getroot().find(f"{_NAMESPACE}Machine")  # noqa: S314 - VirtualBox's own
    return (machine.get("executionEngine", "default") if machine is not None else "default").lower()


def snapshots(settings: Path) -> list[dict[str, Any]]:
    """The snapshots in a settings file, oldest first; VBoxManage itself tells neither time nor memory.

    Each has `name`, `id`, `created` (seconds since 1970, UTC) and `live`: whether it holds memory.
    Raises OSError and ElementTree.ParseError.
    """
    root = ElementTree.parse(settings).getroot()  # noqa: S314 - VirtualBox's own file, in the lab's own folder
    rows = [
        {
            "name": item.get("name", ""),
            "id": item.get("uuid", "").strip("{}"),
            "created": _seconds(item.get("timeStamp", "")),
            "live": bool(item.get("stateFile")),
        }
        for item in root.iter(f"{_NAMESPACE}Snapshot")
    ]
    return sorted(rows, key=lambda row: float(row["created"]))


def _seconds(stamp: str) -> float:
    try:
        moment = datetime.fromisoformat(stamp)
    except ValueError:
        return 0.0
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def version(text: str) -> tuple[str, str]:
    """The version and the whole of it in `VBoxManage --version`, such as 7.2.22 and 7.2.22_Debianr175245."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"\d+\.\d+\.\d+", line.strip())]
    whole = lines[-1] if lines else ""
    normalized = re.match(r"\d+\.\d+\.\d+", whole)
    return (normalized[0] if normalized else ""), whole
