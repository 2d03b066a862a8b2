"""A chart as PNG, with its title and foot in it: in the light colours of the page's style sheet."""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lab.reports.html.charts import Box, Chart, Dot, Shape, Stroke, Words
from lab.reports.html.drawing import FONT, wrapped

_SCALE = 2
_EDGE, _LINE = 16.0, 18.0
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(chart: Chart) -> bytes:
    """The picture, twice as large as the chart's pixels."""
    head, foot = (wrapped(words, chart.width, 3) for words in (chart.title, chart.foot))
    above = _EDGE + len(head) * _LINE + 8.0
    width, height = chart.width + 2 * _EDGE, above + chart.height + len(foot) * _LINE + _EDGE
    image = Image.new("RGB", (round(width * _SCALE), round(height * _SCALE)), _colour("panel"))
    pen = _Pen(ImageDraw.Draw(image), above)
    for index, line in enumerate(head):
        pen.write(Words(0.0, FONT + index * _LINE - above + _EDGE, line, bold=True))
    for shape in chart.shapes:
        pen.draw(shape)
    for index, line in enumerate(foot):
        pen.write(Words(0.0, chart.height + FONT + 2.0 + index * _LINE, line, "soft"))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


class _Pen:
    """Draws shapes in a chart's pixels, whose origin is `above` from the image's upper edge."""

    def __init__(self, image: ImageDraw.ImageDraw, above: float) -> None:
        self._image = image
        self._above = above
        self._font = ImageFont.load_default(FONT * _SCALE)

    def draw(self, shape: Shape) -> None:
        match shape:
            case Box(x, y, width, height, fill, ink):
                corners = [self._at(x, y), self._at(x + width, y + height)]
                self._image.rounded_rectangle(corners, 3 * _SCALE, _colour(fill), _colour(ink), _SCALE)
            case Dot(x, y):
                corners = [self._at(x - 4.0, y - 4.0), self._at(x + 4.0, y + 4.0)]
                self._image.ellipse(corners, _colour("panel"), _colour("ink"), _SCALE)
            case Stroke(points, ink, width):
                places = [self._at(*point) for point in points]
                self._image.line(places, _colour(ink), round(width * _SCALE), "curve")
            case Words():
                self.write(shape)

    def write(self, words: Words) -> None:
        bold = 0.6 if words.bold else 0
        place, anchor, ink = self._at(words.x, words.y), _ANCHORS[words.anchor], _colour(words.ink)
        self._image.text(place, words.text, ink, self._font, anchor, stroke_width=bold)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return (x + _EDGE) * _SCALE, (y + self._above) * _SCALE


@cache
def _colours() -> dict[str, str]:
    """The style sheet's variables of the light theme, which come before those of the dark one."""
    style = Path(__file__).with_name("style.css").read_text()
    return dict(reversed(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style)))


def _colour(name: str) -> str:
    return _colours()[name]
