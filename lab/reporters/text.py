"""Texts as every format can hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNPRINTABLE = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
"""What XML 1.0 cannot hold, the other control characters, and those that reorder the text after them."""


def printable(text: str) -> str:
    """`text` with every character that no report can show replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def plain(value: Any) -> Any:
    """A JSON value with every text in it printable."""
    if isinstance(value, Mapping):
        return {printable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def one_line(text: str) -> str:
    return " ".join(text.split())


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
