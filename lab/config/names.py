"""The names a user gives: labs, snapshots, emulators."""

from __future__ import annotations

import re

from lab.core.errors import UsageError

_LONGEST = 31
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?")


def check_name(name: str) -> str:
    """`name` if it can name a lab (it becomes a folder and a host name); else UsageError."""
    return _check(name, "a lab")


def check_snapshot_name(name: str) -> str:
    """`name` if it can name a snapshot; else UsageError."""
    return _check(name, "a snapshot")


def check_instance_name(name: str) -> str:
    """`name` if it can name an emulator (it becomes part of its container's name); else UsageError."""
    return _check(name, "an emulator")


def _check(name: str, kind: str) -> str:
    if _NAME.fullmatch(name):
        return name
    near = _nearest(name)
    raise UsageError(
        f"{name!r} cannot name {kind}: a name has 1 to {_LONGEST} lower-case letters, digits and hyphens, "
        "begins with a letter and does not end with a hyphen",
        hint=f"{near!r} would do" if near else "for example 'default'",
    )


def _nearest(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return re.sub(r"^[^a-z]+", "", plain)[:_LONGEST].rstrip("-")
