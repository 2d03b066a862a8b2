"""The page of figures in a real browser, wide and narrow: whole, silent, and fetching nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from lab.reports.figures.page import PageTable, page
from lab.reports.figures.picture import TimesBar, durations


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_is_whole(
    browser: Browser, tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    picture = durations(
        "Boots", [TimesBar("nested KVM", [6.1, 6.4]), TimesBar("no acceleration", [], [90.0], "1 timeout")]
    )
    table = PageTable("Rows", ["one", "two", "three", "four", "five"], [["a word or two"] * 5] * 3)
    target = tmp_path / "figures.html"
    target.write_text(page("Boots of L2", "A sentence.", picture, "two bars", [table], ["a note"]))
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    shown = context.new_page()
    heard: list[str] = []
    shown.on("console", lambda message: heard.append(message.text))
    shown.on("pageerror", lambda error: heard.append(str(error)))
    shown.on("request", lambda request: heard.append(request.url))
    shown.goto(target.as_uri())
    assert heard == [target.as_uri()]
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    drawn = shown.locator("figure svg").bounding_box()
    assert drawn is not None and drawn["height"] > 100
    ink, ground = shown.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (ink == "rgb(26, 26, 26)") is (scheme == "light")
    assert ink != ground
    context.close()
