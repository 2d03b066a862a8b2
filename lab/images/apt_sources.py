"""Where Debian's archive is, by this machine's own apt sources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from debian.deb822 import Deb822

from lab.core.errors import BlockedError

APT = Path("/etc/apt")
_SUITE = re.compile(
    r"buster|bullseye|bookworm|trixie|forky|duke|sid|(old){0,2}stable|testing|unstable|experimental"
)
_ARCHIVE = re.compile(r"/debian(/\d{8}T\d{6}Z)?/?$")
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]*)")


def lines_for(suite: str, apt: Path = APT, components: Sequence[str] = ("main",)) -> str:
    """apt source lines for Debian `suite`, from the first Debian main archive this machine uses.

    Raises BlockedError when its apt sources name no such archive.
    """
    archive = debian_archive(apt)
    if archive is None:
        raise BlockedError(
            f"no Debian archive among this machine's apt sources ({apt}), so there is none to build from",
            hint="use an image that is downloaded (`--image ubuntu-24.04`), or add a Debian `main` source "
            "to apt and try again",
        )
    return f"deb {archive} {suite} {' '.join(components)}\n"


def debian_archive(apt: Path = APT) -> str | None:
    """The address of the first Debian main archive among this machine's apt sources; None without one."""
    for uri, release, offered in _entries(apt):
        if "main" in offered and _SUITE.fullmatch(release) and _ARCHIVE.search(uri):
            return uri
    return None


def _entries(apt: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(URI, suite, components) of every enabled binary source, in the order apt reads them."""
    folder = apt / "sources.list.d"
    for path in [apt / "sources.list", *sorted(folder.glob("*"))]:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".list":
            yield from _one_line(text)
        elif path.suffix == ".sources":
            yield from _deb822(text)


def _one_line(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for line in text.splitlines():
        if match := _ONE_LINE.match(line):
            yield match["uri"], match["suite"], match["components"].split()


def _deb822(text: str) -> Iterator[tuple[str, str, list[str]]]:
    for stanza in Deb822.iter_paragraphs(text):
        fields = {name.lower(): value.split() for name, value in stanza.items()}
        enabled = fields.get("enabled", ["yes"])[0].lower() not in ("no", "false", "0")
        if enabled and "deb" in fields.get("types", []):
            for uri in fields.get("uris", []):
                for suite in fields.get("suites", []):
                    yield uri, suite, fields.get("components", [])
