"""What L2 shows: pictures made at build time, as raw pixels for its framebuffer."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 360, 640
"""Pixels of L2's screen (l2/init sets the mode)."""

_GREEN, _DARK, _WHITE, _GREY = "#3ddc84", "#202124", "#ffffff", "#5f6368"


def boot() -> Image.Image:
    """The boot animation; init moves a mark below it."""
    image, draw = _blank(_DARK)
    _text(draw, 300, "lab double", 34, _GREEN)
    _text(draw, 350, "not Android", 20, _WHITE)
    return image


def home() -> Image.Image:
    """The launcher."""
    image, draw = _blank("#10406a")
    for row in range(HEIGHT):
        draw.line([(0, row), (WIDTH, row)], fill=(16 + row // 16, 64 + row // 8, 106 + row // 10))
    draw.rounded_rectangle([20, 60, 340, 108], 24, fill=_WHITE)
    _text(draw, 84, "lab double, not Android", 18, _GREY)
    for index, colour in enumerate(("#ea4335", "#fbbc04", "#34a853", "#4285f4")):
        draw.ellipse([32 + index * 80, 520, 88 + index * 80, 576], fill=colour)
    draw.rounded_rectangle([130, 624, 230, 630], 3, fill=_WHITE)
    return image


def anr() -> Image.Image:
    """The dialog of an application that does not answer, before the launcher."""
    image = home().point(lambda value: value // 3)
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle([24, 220, 336, 400], 12, fill=_WHITE)
    _text(draw, 258, "System UI isn't responding", 20, _DARK)
    _text(draw, 320, "Close app", 18, "#1a73e8")
    _text(draw, 362, "Wait", 18, "#1a73e8")
    return image


ALL: Mapping[str, Callable[[], Image.Image]] = {"boot": boot, "home": home, "anr": anr}


def raw(image: Image.Image) -> bytes:
    """Gzipped pixels as the framebuffer has them: blue, green, red and a spare byte."""
    return gzip.compress(image.convert("RGB").tobytes("raw", "BGRX"), 9, mtime=0)


def _blank(colour: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (WIDTH, HEIGHT), colour)
    return image, ImageDraw.Draw(image)


def _text(draw: ImageDraw.ImageDraw, middle: int, text: str, size: int, colour: str) -> None:
    draw.text((WIDTH // 2, middle), text, fill=colour, anchor="mm", font=ImageFont.load_default(size))
