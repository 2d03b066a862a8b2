"""docs/glossary.md and docs/design.md: words, rooms and places are in the code under the names they say."""

from __future__ import annotations

import re

import pytest

from lab.config.loading import PROJECT

_TEXT = (PROJECT / "docs" / "glossary.md").read_text()
_SOURCES = {path: path.read_text() for path in (PROJECT / "lab").rglob("*.py")}


def test_every_class_it_names_is_one() -> None:
    named = set(re.findall(r"`([A-Z][a-z]\w+)(?:\.\w+)?`", _TEXT))
    classes = {name for text in _SOURCES.values() for name in re.findall(r"^class (\w+)", text, re.MULTILINE)}
    assert len(named) > 15
    assert named <= classes, named - classes


@pytest.mark.parametrize("page", ["glossary.md", "design.md", "extending.md", "nightly.md"])
def test_every_place_it_names_is_there(page: str) -> None:
    places = re.findall(r"`(lab/[\w/.]+)`", (PROJECT / "docs" / page).read_text())
    assert [place for place in places if not (PROJECT / place).exists()] == []


def test_what_the_design_says_is_in_a_module_is_there() -> None:
    """Its table "Where is …?", which is read before the code."""
    table = (PROJECT / "docs" / "design.md").read_text().split("\n## ")[1]
    named = re.findall(r"`(\w+)`(?:: [^`|]+)? in `(lab/[\w/]+\.py)`", table)
    assert len(named) > 4
    assert [pair for pair in named if not re.search(rf"\b{pair[0]}\b", (PROJECT / pair[1]).read_text())] == []


def test_every_room_is_in_the_plan() -> None:
    plan = (PROJECT / "docs" / "design.md").read_text()
    rooms = {f"lab/{path.name}" for path in (PROJECT / "lab").iterdir() if (path / "__init__.py").exists()}
    assert {room for room in rooms if f"`{room}`" not in plan} == set()


def test_a_word_stands_once() -> None:
    words = re.findall(r"^\| ([^|`]+?) \|", _TEXT, re.MULTILINE)
    assert len(words) == len(set(words) - {"word", "---"}) + words.count("word") + words.count("---")
