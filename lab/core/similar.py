"""The known words that are most like one that is not known: for hints."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], least: float = 0.6) -> str:
    """The known word most like `word`; empty where none is by `least`, from 0 (any) to 1 (the same)."""
    return next(iter(difflib.get_close_matches(word, list(known), 1, least)), "")


def choices(word: str, known: Iterable[str]) -> str:
    """Up to three known words that are like `word`, the best first; all of them where none is."""
    words = list(known)
    return ", ".join(difflib.get_close_matches(word, words, 3, 0.3) or words)
