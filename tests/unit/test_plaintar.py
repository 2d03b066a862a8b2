"""The archive of plain files: what is written is read, and whatever else is refused, bounded, and by name."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import BlockedError
from lab.formats import plaintar
from lab.formats.plaintar import PlainTarError, Reader
from lab.nights import archive

PATHS = st.lists(
    st.from_regex(r"[a-z0-9_][a-z0-9 ._@+-]{0,8}[a-z0-9]", fullmatch=True), min_size=1, max_size=4
).map("/".join)


def packed(members: Iterable[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    plaintar.write(stream, [(path, len(content), io.BytesIO(content)) for path, content in members])
    return stream.getvalue()


def read(data: bytes, expected: Iterable[tuple[str, int]]) -> list[bytes]:
    reader = Reader(io.BytesIO(data))
    contents = [b"".join(reader.next(path, size)) for path, size in expected]
    reader.end()
    return contents


@given(st.lists(st.tuples(PATHS, st.binary(max_size=1500)), max_size=5))
def test_what_is_written_is_read_and_tar_reads_it_too(members: list[tuple[str, bytes]]) -> None:
    data = packed(members)
    assert read(data, [(path, len(content)) for path, content in members]) == [each for _, each in members]
    assert packed(members) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(each.name, each.size, each.isreg()) for each in tar] == [
            (path, len(content), True) for path, content in members
        ]


@given(st.text(max_size=20))
def test_no_path_leads_out_of_its_folder(path: str) -> None:
    if plaintar.is_plain(path):
        place = Path("/somewhere/inside")
        assert (place / path).resolve().is_relative_to(place)
        assert path.isascii()
        assert path.isprintable()


@pytest.mark.parametrize(
    "path",
    ["", "/a", "../a", "a/../b", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a\nb", "é", "a" * 201, "a.", "a "],
)
def test_these_are_not_plain(path: str) -> None:
    assert not plaintar.is_plain(path)
    with pytest.raises(PlainTarError):
        packed([(path, b"")])


@given(st.integers(0, 3000), st.integers(1, 255), st.booleans())
def test_a_damaged_archive_is_refused_or_the_same(place: int, flip: int, cut: bool) -> None:
    members = [("a/b", b"first" * 300), ("c", b"second")]
    plain = bytearray(gzip.decompress(packed(members)))
    place %= len(plain)
    if cut:
        del plain[place:]
    else:
        plain[place] ^= flip
    try:
        contents = read(gzip.compress(bytes(plain)), [(path, len(content)) for path, content in members])
    except PlainTarError:
        return
    # Only the contents can differ: their hashes are for who reads them.
    assert not cut
    assert [len(content) for content in contents] == [1500, 6]
    assert contents != [content for _, content in members]


@given(st.binary(max_size=600))
def test_anything_else_is_refused(data: bytes) -> None:
    for stream in (data, gzip.compress(data)):
        with pytest.raises(PlainTarError):
            Reader(io.BytesIO(stream)).first("night.json", 1 << 20)


def foreign(**attributes: Any) -> bytes:
    """An archive of Python's own tarfile with one member, as these attributes make it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a")
        for name, value in attributes.items():
            setattr(member, name, value)
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    return stream.getvalue()


@pytest.mark.parametrize(
    "attributes",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "b"},
        {"type": tarfile.DIRTYPE},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CHRTYPE},
        {"mode": 0o4755},
        {"uid": 1000},
        {"mtime": 1},
        {"pax_headers": {"path": "../b"}},
        {"name": "../a"},
        {"name": "/a"},
        {"size": 7},
    ],
    ids=str,
)
def test_another_header_than_its_own_is_refused(attributes: dict[str, Any]) -> None:
    with pytest.raises(PlainTarError):
        read(foreign(**attributes), [("a", 0)])
    with pytest.raises(PlainTarError):
        Reader(io.BytesIO(foreign(**attributes))).first("a", 4)


def test_what_follows_the_last_file_is_refused() -> None:
    data = packed([("a", b"x")])
    for more in (packed([("b", b"y")]), gzip.compress(bytes(1)), b"words"):
        with pytest.raises(PlainTarError):
            read(data + more, [("a", 1)])


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    member = tarfile.TarInfo("night.json")
    member.size = 4 << 30
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb") as stream:
        stream.write(member.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(64):
            stream.write(bytes(1 << 20))
    reader = Reader(io.BytesIO(bomb.getvalue()))
    with pytest.raises(PlainTarError, match=r"in the place of night\.json"):
        reader.first("night.json", archive.DOCUMENT_BYTES)
    assert reader._stream.tell() <= 1024


@pytest.mark.parametrize(
    "content",
    [b"[]", b"{}", b"not json", b"\xff", b"[" * 100_000, b'{"schema": "nightly.archive/1"}', b"NaN"],
)
def test_a_document_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.night.tar.gz"
    file.write_bytes(packed([(archive.DOCUMENT, content)]))
    with pytest.raises(BlockedError, match="no whole archive of a night"):
        archive.read(file, lambda _: tmp_path)
    assert list(tmp_path.iterdir()) == [file]
