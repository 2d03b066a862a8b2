"""Text from outside, without the characters that act on whatever shows it."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u061b\u061d-\u200d\u2010-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd"
    "\U00010000-\U0010ffff]"
)
"""What XML 1.0 cannot hold, the other control characters, and those that break a line or reorder the text
after them (Unicode's properties Cc, Zl, Zp and Bidi_Control)."""


def printable(text: str) -> str:
    """`text` with U+FFFD for every character that no terminal and no page is to be given.

    Tabs and newlines stay; each other way to end a line by a carriage return becomes a newline.
    """
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def one_line(text: str) -> str:
    """`text` on one line: every run of white space is one space."""
    return " ".join(text.split())
