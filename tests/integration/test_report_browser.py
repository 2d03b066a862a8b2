"""The page in a real browser: wide and narrow, light and dark; no script, no request, no scroll bar."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page

from lab import reports
from lab.reports.html import matrix
from lab.reports.html.charts import Chart, Kind, Tile, TimesBar, durations, tiles
from lab.reports.html.drawing import WIDE
from lab.reports.html.measured import PageTable, page
from lab.reports.html.raster import png
from lab.reports.model import ReportInput
from tests.unit.matrices import large
from tests.unit.reports import DOCUMENTS, full, kept

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
OVERFLOWING = """() => {
  const wide = document.documentElement.clientWidth + 1;
  const clipped = element => element.closest('thead') || element.closest('.symbols');
  return [...document.body.querySelectorAll('*')]
    .filter(element => element.getClientRects().length && !clipped(element))
    .filter(element => element.getBoundingClientRect().right > wide)
    .map(element => element.outerHTML.slice(0, 120));
}"""
OUTSIDE = """() => [...document.querySelectorAll('svg.drawing')]
  .filter(svg => svg.getClientRects().length)
  .flatMap(svg => [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBBox(), all = svg.viewBox.baseVal;
    const right = box.x + box.width, bottom = box.y + box.height;
    return box.x < -1 || right > all.width + 1 || box.y < -1 || bottom > all.height + 1;
  }).map(text => text.textContent))"""
CROSSING = """() => [...document.querySelectorAll('svg.drawing g.layer')]
  .filter(layer => layer.getClientRects().length)
  .flatMap(layer => {
    const frame = layer.querySelector('rect.box').getBBox();
    return [...layer.querySelectorAll('text')].filter(text => {
      const box = text.getBBox();
      return box.x < frame.x || box.x + box.width > frame.x + frame.width;
    }).map(text => text.textContent);
  })"""
SMALL = """() => [...document.querySelectorAll('svg.drawing text, main p, main td, main li')]
  .filter(element => element.getClientRects().length && element.textContent.trim())
  .filter(element => {
    const svg = element.closest('svg.drawing');
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    return parseFloat(getComputedStyle(element).fontSize) * scale < 11;
  }).map(element => element.textContent.slice(0, 60))"""


MEASURED = ("comparison", "experiment")
MATRIX = "matrix"


def _measured(kind: str, folder: Path) -> Path:
    """The page of a comparison or an experiment, as their tasks draw it."""
    bars = [
        TimesBar("nested KVM", [6.1, 6.4, 7.9], group="canary"),
        TimesBar("no acceleration", [88.0], [90.0], "1 timeout, 2 failed, 1 not taken", group="canary"),
        TimesBar("nested KVM", [], note="3 blocked", group="docker-android"),
    ]
    columns = [f"paravirt {name}" for name in ("kvm", "none", "default")]
    lines = ["vmx and svm", "half of KVM's interface; or no vmx or svm, no KVM interface"]
    kinds: dict[str, tuple[Kind, ...]] = {
        "nested on": ("yes", "no", "mixed"),
        "nested off": ("unknown", "no", "yes"),
    }
    grid = {
        (row, column): Tile(look, "worked 1 of 2", lines)
        for row, looks in kinds.items()
        for column, look in zip(columns, looks, strict=True)
    }

    def picture(width: float) -> Chart:
        if kind == "comparison":
            return durations("Boots", bars, width)
        return tiles("Grid", list(kinds), columns, grid, "foot", width)

    table = PageTable("Rows", ["", "round", "three", "four", "what came of it"], [["a word or two"] * 5] * 3)
    target = folder / f"{kind}.html"
    target.write_text(page("Boots of L2", "A sentence. " * 9, picture, [table], ["a note"]))
    (folder / f"{kind}.png").write_bytes(png(picture(WIDE)))
    return target


@pytest.fixture(scope="module", params=[*DOCUMENTS, *MEASURED, MATRIX])
def page_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of each kind with everything a report can have, pages of what was measured, and a matrix."""
    kind: str = request.param
    if kind == MATRIX:
        return matrix.write(
            large(6, 60, "a-name-that-goes-on-and-on-without-a-space "), tmp_path_factory.mktemp(kind)
        )
    if kind in MEASURED:
        return _measured(kind, tmp_path_factory.mktemp(kind))
    folder = kept(tmp_path_factory.mktemp(kind.replace(" ", "-")) / "default" / "1-up", DOCUMENTS[kind])
    return reports.write(full(kind, folder), folder)["html"]


def opened(browser: Browser, file: Path, width: str, scheme: Any = "light") -> tuple[Page, list[str]]:
    """The page, and all that it logged, raised or asked for besides itself."""
    across, down = WIDTHS[width]
    page = browser.new_page(viewport={"width": across, "height": down}, color_scheme=scheme)
    heard: list[str] = []
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda asked: heard.append(f"request: {asked.url[:200]}"))
    page.goto(file.as_uri(), wait_until="load")
    heard.remove(f"request: {file.as_uri()}")
    return page, [item for item in heard if not item.startswith("request: data:")]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_stands_alone_and_fits(browser: Browser, page_file: Path, width: str, scheme: str) -> None:
    page, heard = opened(browser, page_file, width, scheme)
    try:
        assert heard == []
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
        assert page.evaluate(OVERFLOWING) == []
        assert page.evaluate(OUTSIDE) == [], "text leaves its drawing"
        assert page.evaluate(CROSSING) == [], "text leaves its layer's box"
        assert page.evaluate(SMALL) == [], "text too small to read"
        heading = page.locator("h1")
        assert heading.is_visible()
        place = heading.bounding_box()
        assert place is not None and place["y"] + place["height"] < WIDTHS[width][1], (
            "the verdict is seen at once"
        )
        for image in page.locator("img").all():
            assert image.evaluate("image => image.naturalWidth") > 0
        shown = page.locator("svg.drawing").evaluate_all(
            "all => all.filter(one => one.getClientRects().length)"
        )
        assert 1 <= len(shown) * 2 == page.locator("svg.drawing").count(), "one of each pair is shown"
    finally:
        page.close()


def test_light_and_dark_differ(browser: Browser, page_file: Path) -> None:
    grounds = set()
    for scheme in ("light", "dark"):
        page, _ = opened(browser, page_file, "desktop", scheme)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert len(grounds) == 2


def test_every_link_leads_to_a_file(browser: Browser, page_file: Path) -> None:
    page, _ = opened(browser, page_file, "desktop")
    targets = page.locator("a").evaluate_all("links => links.map(link => link.href)")
    page.close()
    assert bool(targets) is (page_file.stem not in (*MEASURED, MATRIX))
    for target in targets:
        assert target.startswith(page_file.parent.as_uri() + "/")
        assert Path(unquote(urlsplit(target).path)).is_file()


def test_hostile_words_stay_words(browser: Browser, tmp_path: Path) -> None:
    """What the markup would do if it were any: run a script, ask the network, break the layout."""
    said = (
        "<script>document.title='taken'</script><img src='http://127.0.0.1:9/x' onerror=alert(1)>" + "x" * 900
    )
    run = full("confirmed")
    rows = [row | {"observed": said, "hint": said} for row in run.last.document["rungs"]]
    hostile = replace(run.last, document=run.last.document | {"rungs": rows, "reason": said})
    file = reports.write(ReportInput((hostile,)), tmp_path)["html"]
    for width in WIDTHS:
        page, heard = opened(browser, file, width)
        assert heard == [] and "taken" not in page.title()
        assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
        assert page.evaluate(OUTSIDE) == []
        page.close()
