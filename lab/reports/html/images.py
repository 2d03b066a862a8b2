"""Screenshots in the page itself: scaled, and small enough to be sent by mail."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lab.core.characters import printable
from lab.reports.model import ReportedRun

_WIDEST, _HIGHEST = 960, 960
_PNG_BYTES = 200_000
_MOST = 8
_ALT = {
    "screenshot.png": "The screen of the lab VM (L1) at the end of the run",
    "android.png": "Android's screen",
}


@dataclass(frozen=True)
class EmbeddedPicture:
    name: str
    alt: str
    uri: str
    """data:image/…;base64,…"""
    width: int
    height: int


def pictures(run: ReportedRun) -> tuple[list[EmbeddedPicture], list[str]]:
    """The run's screenshots, and the names of those that cannot be shown."""
    shown: list[EmbeddedPicture] = []
    unreadable: list[str] = []
    for name in [name for name in run.files if name.lower().endswith(".png")][:_MOST]:
        try:
            shown.append(_picture((run.folder or Path()) / name))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            unreadable.append(printable(name))  # a screenshot that was cut short must not cost the report
    return shown, unreadable


def _picture(path: Path) -> EmbeddedPicture:
    with Image.open(path, formats=("PNG",)) as source:
        image = source.convert("RGB")
    image.thumbnail((_WIDEST, _HIGHEST), Image.Resampling.LANCZOS)
    kind, data = "png", _encoded(image, "PNG", optimize=True)
    if len(data) > _PNG_BYTES:
        kind, data = "jpeg", _encoded(image, "JPEG", quality=82, optimize=True)
    name = printable(path.name)
    alt = _ALT.get(name, f"Picture: {printable(path.stem)}")
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return EmbeddedPicture(name, alt, uri, image.width, image.height)


def _encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
