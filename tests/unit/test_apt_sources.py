"""Which archive a machine's apt sources name."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.core.errors import BlockedError
from lab.images import apt_sources

DEB822 = """\
# a comment
Types: deb deb-src
# another one, in the middle
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def apt(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir(parents=True)
    for name, text in files.items():
        place = name.replace("__", ".")
        (folder / ("sources.list" if place == "sources.list" else f"sources.list.d/{place}")).write_text(text)
    return folder


def test_both_source_formats_give_the_archive_with_the_asked_suite(tmp_path: Path) -> None:
    wanted = "deb http://mirror.example/debian trixie main\n"
    assert apt_sources.lines_for("trixie", apt(tmp_path / "a", debian__sources=DEB822)) == wanted
    line = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian sid main # note\n"
    assert apt_sources.lines_for("trixie", apt(tmp_path / "b", sources__list=line)) == wanted
    more = apt_sources.lines_for("sid", tmp_path / "b", ["main", "contrib"])
    assert more == "deb http://mirror.example/debian sid main contrib\n"


def test_only_an_enabled_binary_debian_archive_counts(tmp_path: Path) -> None:
    others = apt(
        tmp_path,
        sources__list="# deb http://off.example/debian trixie main\n",
        a_src__list="deb-src http://src.example/debian trixie main\n",
        a_vendor__list="deb https://vendor.example/linux/debian trixie stable\n",
        b_security__sources=DEB822.replace("/debian\n", "/debian-security\n"),
        c_off__sources=DEB822 + "Enabled: no\n",
        d_ubuntu__list="deb http://archive.example/ubuntu noble main\n",
        e_backup__sources__save=DEB822,
    )
    with pytest.raises(BlockedError) as caught:
        apt_sources.lines_for("trixie", others)
    assert "--image" in caught.value.hint
    (others / "sources.list.d" / "z.sources").write_text("\n\n" + DEB822)
    assert "mirror.example" in apt_sources.lines_for("trixie", others)
