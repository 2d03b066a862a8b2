"""The pictures of README and docs/: there, small, and asking for nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.config.loading import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
SHOWN = sorted(
    {
        (page.parent / name).resolve()
        for page in PAGES
        for name in re.findall(r"!\[[^\]]+\]\((?!http)([^)]+)\)", page.read_text())
    }
)


def test_readme_shows_the_report_a_recording_and_the_matrix() -> None:
    assert {path.name for path in SHOWN} >= {"report.png", "lab-up.svg", "matrix.png"}


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_a_picture_is_there_and_small_and_asks_for_nothing(path: Path) -> None:

    assert 0 < path.stat().st_size < 150 << 10
    if path.suffix == ".svg":
        text = path.read_text()
        assert "<script" not in text and "href" not in text and "url(" not in text
        assert re.search(r"/(tmp|root|home|Users)/", text) is None
