"""Figures: nothing is said of numbers that they do not bear, and pictures stand on their own."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lab.experiments.numbers import BOOTSTRAP_FROM, ratio, spread
from lab.reports.html.charts import Box, Chart, Kind, Tile, TimesBar, durations, tiles
from lab.reports.html.drawing import NARROW, WIDE
from lab.reports.html.measured import PageTable, page
from lab.reports.html.raster import png
from tests.unit.pages import Page

SECONDS = st.floats(0.1, 1000)


@given(st.lists(SECONDS, max_size=20))
def test_a_spread_holds_its_values(values: list[float]) -> None:
    figures = spread(values)
    assert (figures["n"], figures["values"]) == (len(values), values)
    if values:
        assert figures["min"] <= figures["median"] <= figures["max"]
    else:
        assert (figures["min"], figures["median"], figures["max"]) == (None, None, None)


@given(st.lists(SECONDS, min_size=1, max_size=12), st.lists(SECONDS, min_size=1, max_size=12), st.integers())
def test_a_ratio_lies_within_its_bounds(over: list[float], under: list[float], seed: int) -> None:
    found = ratio(over, under, seed)
    assert found is not None
    assert (found.over, found.under) == (len(over), len(under))
    assert found.value == statistics.median(over) / statistics.median(under)
    if len(over) == len(under) == 1:
        assert (found.low, found.high) == (None, None)
        return
    assert found.low is not None and found.high is not None
    slack = 1e-9 * found.value
    assert min(over) / max(under) - slack <= found.low <= found.value + slack
    assert found.value - slack <= found.high <= max(over) / min(under) + slack
    assert ratio(over, under, seed) == found  # the same figures give the same answer


def test_few_values_give_the_whole_range_and_many_an_interval() -> None:
    few = ratio([100.0, 120.0], [5.0, 6.0])
    assert few is not None
    assert (few.low, few.high) == (100 / 6, 120 / 5)
    assert "any pair" in few.how
    many = ratio([100.0 + value for value in range(BOOTSTRAP_FROM)], [10.0] * BOOTSTRAP_FROM)
    assert many is not None and many.low is not None and many.high is not None
    assert "bootstrap" in many.how
    assert 10.0 <= many.low < many.value < many.high <= 10.7


def test_no_ratio_of_nothing_and_none_of_what_is_no_duration() -> None:
    assert ratio([], [1.0]) is None
    assert ratio([1.0], []) is None
    with pytest.raises(ValueError, match="positive"):
        ratio([1.0], [0.0])


def _bars(width: float) -> Chart:
    return durations(
        "Boots & <boots>",
        [
            TimesBar("nested KVM", [5.9, 6.1, 6.4], group="canary"),
            TimesBar("no acceleration", [103.0], marks=[110.0], note="1 timeout, $5 and $6", group="canary"),
            TimesBar("never", [], note="3 blocked", group="other"),
        ],
        width,
    )


def _tiles(width: float, kind: Kind = "mixed") -> Chart:
    found = {("on", "a"): Tile("yes", "worked 2 of 2", ["svm"]), ("on", "b"): Tile(kind, "1 of 2", [])}
    return tiles("Grid", ["on"], ["a", "b"], found, "foot", width)


@pytest.mark.parametrize("draw", [_bars, _tiles])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_chart_is_a_png_and_stays_within_its_width(draw: Callable[[float], Chart], width: float) -> None:
    chart = draw(width)
    picture = png(chart)
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG" and image.width > width
        assert len(set(image.convert("L").resize((40, 30)).tobytes())) > 3  # it shows something
    assert png(draw(width)) == picture  # the same figures, the same file
    for shape in chart.shapes:
        if isinstance(shape, Box):
            assert shape.x >= 0 and shape.x + shape.width <= width and shape.y + shape.height <= chart.height


def test_every_kind_of_tile_differs_without_colour() -> None:
    greys = set()
    for kind in get_args(Kind):
        with Image.open(io.BytesIO(png(_tiles(WIDE, kind)))) as image:
            greys.add(image.convert("L").tobytes())
    assert len(greys) == 4


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)


@given(WORDS, WORDS)
def test_words_never_become_markup(title: str, cell: str) -> None:
    hostile = f"<script>alert(1)</script>{cell}\"'><i-was-here>"
    text = page(
        hostile + title,
        hostile,
        lambda width: durations(hostile, [TimesBar(hostile, [1.0], note=hostile, group=hostile)], width),
        [PageTable(hostile, [hostile], [[hostile]])],
        [hostile],
    )
    assert "<script" not in text and "<i-was-here" not in text
    assert "i-was-here" in text


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = page("Title", "Lead", _bars, [PageTable("t", ["a"], [["1"]])], ["a note"])
    for reference in ("src=", "@import", "url(http", "<script"):
        assert reference not in text, reference
    assert text.count("<link") == text.count('<link rel="icon" href="data:,">') == 1
    assert 'aria-label="Lead"' in text and 'scope="col">a</th>' in text
    drawn = [element for element in Page(text).all("svg") if element.attributes.get("role") == "img"]
    assert len(drawn) == 2 and all("nested KVM" in element.said for element in drawn)
