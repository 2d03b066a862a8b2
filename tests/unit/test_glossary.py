"""docs/glossary.md: a word of the field is in the code under the name that it says."""

from __future__ import annotations

import re
from pathlib import Path

from lab.config.loading import PROJECT

_TEXT = (PROJECT / "docs" / "glossary.md").read_text()
_SOURCES = {path: path.read_text() for path in (PROJECT / "lab").rglob("*.py")}


def test_every_class_it_names_is_one() -> None:
    named = set(re.findall(r"`([A-Z][a-z]\w+)(?:\.\w+)?`", _TEXT))
    classes = {name for text in _SOURCES.values() for name in re.findall(r"^class (\w+)", text, re.MULTILINE)}
    assert len(named) > 15
    assert named <= classes, named - classes


def test_every_place_it_names_is_there() -> None:
    places = re.findall(r"`(lab/[\w/.]+)`", _TEXT)
    assert places and all((Path(PROJECT) / place).exists() for place in places)


def test_a_word_stands_once() -> None:
    words = re.findall(r"^\| ([^|`]+?) \|", _TEXT, re.MULTILINE)
    assert len(words) == len(set(words) - {"word", "---"}) + words.count("word") + words.count("---")
