"""Texts as every format can hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.core.characters import printable


def plain(value: Any) -> Any:
    """A JSON value with every text in it printable."""
    if isinstance(value, Mapping):
        return {printable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def seconds(value: float) -> str:
    """A duration as people read it: `< 0.1 s`, `0.3 s`, `42 s`, `2 min 30 s`."""
    if value < 0.05:
        return "< 0.1 s"
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if left else ""]
    return " ".join(part for part in parts[: 2 if hours else 3] if part)
