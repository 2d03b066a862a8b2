"""The matrix as a page and a badge: never greener than its night, everything escaped."""

from __future__ import annotations

import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.reports.html import matrix as pages
from lab.tasks.nightly.matrix import matrix as task
from tests.unit import nights
from tests.unit.bed import Bed, checked
from tests.unit.matrices import HOSTILE, cell, entry, large, late, matrix, night
from tests.unit.pages import Page


def words(*verdicts: str) -> tuple[str, str]:
    """What badge and summary make of a night whose cells came to these: colour and phrase."""
    names = [f"c{number}" for number in range(len(verdicts))]
    entries = [entry(name, verdict) for name, verdict in zip(names, verdicts, strict=True)]
    made = matrix([cell(name) for name in names], [night("2026-12-01", *entries)])
    picture = ElementTree.fromstring(pages.badge(made))  # noqa: S314
    (ground,) = [part for part in picture if part.tag.endswith("rect")]
    return ground.attrib["fill"], pages.summary(made)


@pytest.mark.parametrize(
    ("verdicts", "colour", "says"),
    [
        (["confirmed"] * 3, pages._GOOD, "3 of 3 confirmed"),
        (["confirmed", "not applicable"], pages._GOOD, "1 of 1 confirmed, 1 not applicable"),
        (["confirmed", "open"], pages._UNSURE, "1 of 2 confirmed, 1 open"),
        (["confirmed", "blocked"], pages._UNSURE, "1 of 2 confirmed, 1 blocked"),
        (["confirmed", "inconclusive"], pages._UNSURE, "1 of 2 confirmed, 1 inconclusive"),
        (["confirmed", "refuted", "open"], pages._BAD, "1 of 3 confirmed, 1 refuted, 1 open"),
        (["not applicable"], pages._QUIET, "0 of 0 confirmed, 1 not applicable"),
        ([], pages._QUIET, "0 of 0 confirmed"),
    ],
)
def test_the_badge_is_green_only_where_every_cell_was_confirmed(
    verdicts: list[str], colour: str, says: str
) -> None:
    assert words(*verdicts) == (colour, says)


def test_the_badge_names_its_night_so_that_an_old_one_is_seen_to_be_old() -> None:
    picture = ElementTree.fromstring(pages.badge(large(2, 3)))  # noqa: S314 - lab's own
    text = "".join(picture.itertext())
    assert "lab 2026-12-01" in text
    assert "no night yet" in pages.badge(matrix([cell("a")], []))


def test_every_cell_has_its_word_and_what_was_not_confirmed_its_sentence(tmp_path: Path) -> None:
    report = tmp_path / "evidence" / "1-night" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("")
    made = matrix(
        [cell("good"), cell("bad"), cell("silent"), cell("new"), cell("nobody", hosts=())],
        [
            night(
                "2026-12-01",
                entry("good", report=str(report)),
                entry("bad", "refuted", word="guest.kvm failed"),
                entry("silent", "inconclusive", word="host silent since 04:12", late=(late(),)),
            ),
            night("2026-11-30", entry("good"), entry("bad"), entry("silent")),
        ],
    )
    page = Page(pages.page(made, tmp_path))
    said = page.all("main")[0].said
    for words in (
        "confirmed in 2 of 2 nights",
        "confirmed in 1 of 2 nights; refuted since 2026-12-01",
        "guest.kvm failed",
        "host silent since 04:12",
        "came late, and changes nothing: confirmed from attic",
        "no night with a verdict",
        "no host has these tags",
    ):
        assert words in said, words
    assert page.one("h1").said == "2026-12-01: 1 of 3 confirmed, 1 refuted, 1 inconclusive"
    assert "evidence/1-night/report.html" in page.attribute("href")


def test_nothing_in_it_becomes_markup(tmp_path: Path) -> None:
    for text in (pages.page(large(3, 5, HOSTILE), tmp_path), pages.badge(large(3, 5, HOSTILE))):
        assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
    assert "&lt;script&gt;" in pages.page(large(3, 5, HOSTILE), tmp_path)


def test_two_hundred_nights_of_twenty_cells_are_a_page_of_a_bearable_size(tmp_path: Path) -> None:
    made, began = large(), time.process_time()
    text = pages.page(made, tmp_path)
    assert len(text) < 1_000_000 and time.process_time() - began < 5
    assert "The newest 35 of 200 nights" in text and "more are in the document" in text


def test_the_matrix_of_one_hosts_history(bed: Bed) -> None:
    nights.spend(bed)
    bed.world.kvm_ok = False
    red, _ = nights.spend(bed)
    document = checked(task(bed.session()))
    (only,) = document["cells"]
    (day,) = document["nights"]
    (last,) = day["entries"]
    assert only["name"].startswith("qemu · ") and only["name"].endswith(" · canary")
    assert (last["verdict"], last["uuid"], last["report"]) == ("refuted", red["uuid"], red["report"])
    assert last["word"].endswith("(earlier on that day: confirmed)")
    page = Path(document["page"])
    assert page == bed.session().settings.state_dir / "matrix" / "matrix.html"
    assert "0 of 1 confirmed, 1 refuted" in page.read_text() and (page.parent / "badge.svg").is_file()
    assert "../evidence/nightly/" in page.read_text()
    assert page.stat().st_mode & 0o077 == 0


def test_a_night_with_a_key_is_of_its_day_and_cell(bed: Bed, tmp_path: Path) -> None:
    roads = nights.ROADS
    nights.night.run(nights.session(bed), roads, key="2026-11-30/mac")
    document = checked(task(bed.session(), to=str(tmp_path / "www")))
    assert [(each["date"], [row["cell"] for row in each["entries"]]) for each in document["nights"]] == [
        ("2026-11-30", ["mac"])
    ]
    assert (tmp_path / "www" / "badge.svg").stat().st_mode & 0o777 == 0o644, (
        "others may read what was asked for"
    )


def test_no_night_yet(bed: Bed) -> None:
    document = checked(task(bed.session()))
    assert document["cells"] == [] and "no night yet" in Path(document["page"]).read_text()
