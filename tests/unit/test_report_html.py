"""The HTML page: whole in itself, open to everybody, and deaf to what it quotes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from lab import reports
from lab.core.characters import printable
from lab.ladder.rungs import LADDER
from lab.reports.html import Html
from lab.reports.html.images import pictures
from lab.reports.model import ReportedRun, ReportInput
from tests.unit.pages import Page
from tests.unit.reports import DOCUMENTS, full, inputs, kept

HERE = Path("/nowhere/reports")
UNHURRIED = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
KINDS = pytest.mark.parametrize("kind", DOCUMENTS)
STYLE = (Path(reports.__file__).parent / "html" / "style.css").read_text()
TAGS = frozenset(
    """html head meta title link style body header main section footer h1 h2 p dl div dt dd ul li table thead
    tbody tr th td figure figcaption details summary a img code b small span bdi time svg defs pattern rect
    symbol circle path use g text tspan line""".split()  # noqa: SIM905 - a list of words
)


def page(run: ReportInput, folder: Path = HERE) -> Page:
    return Page(Html().render(run, folder))


def squeezed(text: str) -> str:
    return " ".join(printable(text).split())


@KINDS
def test_the_page_needs_nothing_but_itself(kind: str, tmp_path: Path) -> None:
    folder = kept(tmp_path / "default" / "1-up", DOCUMENTS[kind])
    found = page(full(kind, folder), folder)
    assert {element.tag for element in found.elements} <= TAGS
    for source in found.attribute("src"):
        assert source.startswith("data:image/")
    for target in found.attribute("href"):
        local = re.fullmatch(r"[\w.%-]+", target) and (folder / target.replace("%20", " ")).name
        assert target.startswith("#") or target == "data:," or local
    assert "url(" not in STYLE.replace("url(#hatch-", "") and "@import" not in STYLE
    policy = next(meta for meta in found.all("meta") if "http-equiv" in meta.attributes)
    assert "default-src 'none'" in (policy.attributes["content"] or "")


@KINDS
def test_the_page_can_be_read_by_everybody(kind: str, tmp_path: Path) -> None:
    folder = kept(tmp_path / "default" / "1-up", DOCUMENTS[kind])
    found = page(full(kind, folder), folder)
    assert found.one("html").attributes["lang"] == "en"
    assert DOCUMENTS[kind]["claim"] in found.one("title").said
    levels = [element.tag for element in found.all("h1", "h2", "h3")]
    assert levels[0] == "h1" and levels.count("h1") == 1
    ids = found.attribute("id")
    assert len(ids) == len(set(ids))
    for named in found.attribute("aria-labelledby"):
        assert named in ids
    for section in found.all("section"):
        assert section.attributes["aria-labelledby"]
    assert all(image.attributes["alt"] for image in found.all("img"))
    for cell in found.all("th"):
        assert cell.attributes.get("scope") in ("row", "col")
    for drawing in found.all("svg"):
        hidden = drawing.attributes.get("aria-hidden") == "true"
        assert hidden or (drawing.attributes["role"] == "img" and drawing.attributes["aria-label"])
    for target in found.all("use"):
        assert (target.attributes["href"] or "").lstrip("#") in ids, "a mark that is not drawn"


@KINDS
def test_the_ladder_is_told_whole(kind: str) -> None:
    found = page(full(kind))
    text = found.one("main").said
    for name in LADDER.names:
        assert name in text
    for row in DOCUMENTS[kind]["rungs"]:
        assert squeezed(row["observed"]) in text
        if row["status"] in ("passed", "failed"):
            assert squeezed(row["expected"]) in text
        if row["hint"] and row["status"] == "failed":
            assert squeezed(row["hint"]) in text
    for layer in ("L0", "L1", "Container", "L2"):
        assert layer in " ".join(element.said for element in found.all("text"))


def test_the_failed_layer_is_marked_by_more_than_colour() -> None:
    found = page(full("refuted"))
    faulty = [element for element in found.all("g") if "at-fault" in (element.attributes["class"] or "")]
    assert len(faulty) == 2, "in the drawing for desktops, and in that for phones"
    for layer in faulty:
        assert layer.said.startswith("L1 the lab VM fails here")
        hatched = [
            one for one in found.all("rect") if one.parent is layer and one.attributes["class"] == "hatched"
        ]
        assert hatched
    beyond = [element for element in found.all("g") if "beyond" in (element.attributes["class"] or "")]
    assert len(beyond) == 4 and all("not reached" in element.said for element in beyond)


def test_no_layer_is_at_fault_where_all_is_well() -> None:
    found = page(full("confirmed"))
    assert not [element for element in found.all("g") if "at-fault" in (element.attributes["class"] or "")]


def test_what_is_not_known_is_not_shown() -> None:
    found = page(ReportInput((ReportedRun(DOCUMENTS["confirmed"]),)))
    headings = {element.said for element in found.all("h2")}
    assert headings == {
        "What was found at each layer",
        "The ladder",
        "The claims",
        "What this does not prove",
        "Evidence",
        "How to read this",
    }
    assert not found.all("img", "a")


def test_all_that_is_known_is_shown(tmp_path: Path) -> None:
    folder = kept(tmp_path / "default" / "1-up", DOCUMENTS["confirmed"])
    found = page(full("confirmed", folder), folder)
    text = found.one("main").said
    for said in (
        "QEMU emulates AMD-V",  # a prediction
        "as predicted",
        "nesting decides.",  # the experiment
        "worked in 0 of 3",
        "11.7 times (11.2 to 12.3), n = 2",  # the comparison
        "25 runs, oldest first",  # the history
        "Not reached: launcher.",  # Android's boot
        "The screen of the lab VM (L1)",  # the screenshot
        "what docker.install said",  # the steps
    ):
        assert said in text, said
    assert len(found.all("img")) == 1
    assert "dmesg.txt" in found.attribute("href")


@UNHURRIED
@given(inputs())
def test_nothing_that_was_said_becomes_markup(run: ReportInput) -> None:
    found = page(run)  # strictly nested, or it raises
    assert {element.tag for element in found.elements} <= TAGS
    assert not found.comments
    for element in found.elements:
        assert not [name for name in element.attributes if name.startswith("on")]
    assert all(source.startswith("data:") for source in found.attribute("src"))
    for target in found.attribute("href"):
        assert target.startswith("#") or target == "data:,"
    text = found.one("main").said
    for outcome in run.last.outcomes.values():
        assert squeezed(outcome.observed) in text, "what was said is there as text"


# --- colours -----------------------------------------------------------------------------------


def themes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{([^}]*)\}", STYLE)
    values = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in (light, dark)]
    return {"light": values[0], "dark": values[1]}


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out(theme: str) -> None:
    """4.5 to 1 is what WCAG 2 asks of text (AA)."""
    colours = themes()[theme]
    assert set(colours) == set(themes()["light"])
    for ink in ("ink", "soft", "good", "bad", "unsure", "link"):
        for ground in ("page", "panel", "inner"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"
    assert contrast(colours["soft"], colours["tint"]) >= 4.5
    for ground in ("good", "bad", "unsure"):
        assert contrast(colours["on-mark"], colours[ground]) >= 4.5, f"text on {ground}"
    assert contrast(colours["bar"], colours["panel"]) >= 3


# --- screenshots -------------------------------------------------------------------------------


def test_screenshots_are_scaled_and_small(tmp_path: Path) -> None:
    noise = Image.effect_noise((1080, 2280), 90)
    noise.save(tmp_path / "android.png")
    Image.new("RGBA", (300, 200), (0, 0, 0, 0)).save(tmp_path / "small.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "android.png").read_bytes()[:5000])
    (tmp_path / "screenshot.png").write_bytes(b"\x89PNG")
    (tmp_path / "page.png").write_text("<svg onload=alert(1)>")
    names = ("android.png", "gone.png", "page.png", "screenshot.png", "small.png", "torn.png", "notes.txt")
    shown, unreadable = pictures(ReportedRun(DOCUMENTS["confirmed"], tmp_path, names))
    assert [(picture.name, picture.width, picture.height) for picture in shown] == [
        ("android.png", 455, 960),
        ("small.png", 300, 200),
    ]
    assert unreadable == ["gone.png", "page.png", "screenshot.png", "torn.png"]
    assert len(shown[0].uri) < 400_000
