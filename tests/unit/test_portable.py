"""A canary in a file: written the same each time, and nothing but that file is ever read into the cache."""

from __future__ import annotations

import io
import json
import os
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.config import Settings
from lab.core.errors import BlockedError, LabError, UsageError
from lab.core.files import sha256
from lab.core.steps import Steps
from lab.images import cache, canary, portable
from lab.images.cache import CachedImage
from lab.images.canary_manifest import CanaryManifest
from lab.tasks.image import export
from lab.workflow.session import Session
from tests.unit.bed import checked

VERSIONS = {"adbd": "1.0-1", "busybox-static": "1:1.37"}
NAMES = ("manifest.json", "image.tar", "vmlinuz")
many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def made(images: Path) -> CachedImage:
    """A canary as `canary.build` leaves it, but for what is in it."""
    image_id = canary.id_of(VERSIONS)
    folder = images / image_id
    folder.mkdir(parents=True)
    (folder / "image.tar").write_bytes(b"an archive of Docker's" * 100)
    (folder / "vmlinuz").write_bytes(b"a kernel")
    digest = f"sha256:{'1' * 64}"
    manifest = CanaryManifest(
        id=image_id,
        kind="canary",
        name="canary",
        recipe=canary.recipe_hash(),
        file="image.tar",
        format="docker-archive",
        bytes=2200,
        sha256=sha256(folder / "image.tar"),
        created=datetime(2026, 1, 2, tzinfo=UTC),
        packages=VERSIONS,
        image_id=digest,
        layer=digest,
        layer_bytes=5,
        reference=canary.reference_of(image_id),
        kernel=sha256(folder / "vmlinuz"),
    )
    cache.seal(folder, manifest)
    return CachedImage(folder, manifest)


@pytest.fixture
def entry(tmp_path: Path) -> CachedImage:
    return made(tmp_path / "images")


@pytest.fixture
def exported(entry: CachedImage, tmp_path: Path) -> Path:
    target = tmp_path / "canary.tar"
    portable.write(entry, target)
    return target


def read(path: Path, images: Path) -> tuple[CachedImage, bool]:
    with Steps().step("import") as step:
        return portable.read(path, images, step)


def contents(exported: Path) -> dict[str, bytes]:
    with tarfile.open(exported) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def packed(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.USTAR_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def plain(parts: dict[str, bytes]) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(tarfile.TarInfo(name), content) for name, content in parts.items()]


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(path: Path, folder: Path) -> LabError:
    """The refusal of `path`; nothing but locks is left of the try, in the cache or beside it."""
    target = folder / "fresh"
    before = listing(folder)
    with pytest.raises(BlockedError) as caught:
        read(path, target)
    left = {name for name in listing(folder) - before if name not in ("fresh", "fresh/locks")}
    assert left == set()
    assert caught.value.hint
    return caught.value


def test_the_import_is_what_was_exported(entry: CachedImage, exported: Path, tmp_path: Path) -> None:
    imported, new = read(exported, tmp_path / "other")
    assert new and imported.id == entry.id
    assert imported.manifest.as_json() == entry.manifest.as_json()
    for name in NAMES:
        assert (imported.folder / name).read_bytes() == (entry.folder / name).read_bytes()
    cache.check(imported)
    again = tmp_path / "again.tar"
    portable.write(imported, again)
    assert again.read_bytes() == exported.read_bytes()
    stamp = imported.path.stat()
    assert read(exported, tmp_path / "other") == (imported, False)
    assert imported.path.stat() == stamp


def test_a_file_that_is_damaged_is_so_where_the_image_is_there_already(
    entry: CachedImage, exported: Path, tmp_path: Path
) -> None:
    whole = exported.read_bytes()
    for content in (whole[:3000], whole.replace(b"a kernel", b"A kernel"), whole + b"x" * 20_000):
        exported.write_bytes(content)
        with pytest.raises(BlockedError, match="no whole image"):
            read(exported, tmp_path / "images")
    exported.write_bytes(whole)
    there, new = read(exported, tmp_path / "images")
    assert there.folder == entry.folder and not new


def test_the_file_does_not_depend_on_who_writes_it(
    entry: CachedImage, exported: Path, tmp_path: Path
) -> None:
    old = os.umask(0o077)
    try:
        os.utime(entry.path, (1, 1))
        portable.write(entry, tmp_path / "second")
    finally:
        os.umask(old)
    assert (tmp_path / "second").read_bytes() == exported.read_bytes()
    with tarfile.open(exported) as archive:
        assert [(item.name, item.uid, item.mtime, item.mode) for item in archive] == [
            (name, 0, 0, 0o644) for name in NAMES
        ]


FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
hostile = st.one_of(
    st.text(min_size=1, max_size=90),
    st.text("./\\\0\x1b\n", min_size=1, max_size=8),
    st.sampled_from(
        ["../escaped", "/etc/escaped", "./image.tar", "image.tar/", "manifest.json/../x", "C:\\x"]
    ),
)


@many
@given(
    hostile,
    st.integers(0, 2),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_no_other_name_is_taken(entry: CachedImage, exported: Path, name: str, place: int, form: int) -> None:
    members = plain(contents(exported))
    if name == members[place][0].name:
        return
    members[place][0].name = name
    try:
        content = packed(members, form)
    except (ValueError, UnicodeEncodeError):
        return  # no tar holds such a name
    bad = exported.with_name("bad.tar")
    bad.write_bytes(content)
    if contents(exported).keys() == _names(bad) and bad.read_bytes() == exported.read_bytes():
        return  # what follows a NUL is no part of a name
    refused(bad, exported.parent)


def _names(path: Path) -> set[str]:
    with tarfile.open(path) as archive:
        return {member.name for member in archive}


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
     tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.AREGTYPE],
)  # fmt: skip
def test_no_link_device_or_folder_is_taken(exported: Path, kind: bytes, place: int) -> None:
    members = plain(contents(exported))
    members[place][0].type, members[place][0].linkname = kind, "/etc/passwd"
    bad = exported.with_name("bad.tar")
    bad.write_bytes(packed(members))
    assert NAMES[place] in str(refused(bad, exported.parent))


@many
@given(st.data())
def test_no_byte_of_it_can_be_changed_or_lost(exported: Path, data: st.DataObject) -> None:
    """Cut short anywhere, or one byte another: refused, and named; the padding at the end is no content."""
    whole = exported.read_bytes()
    end = sum(512 + len(part) + -len(part) % 512 for part in contents(exported).values())
    at = data.draw(st.integers(0, end - 1))
    bad = exported.with_name("bad.tar")
    if data.draw(st.booleans()):
        bad.write_bytes(whole[:at])
    else:
        changed = bytearray(whole)
        changed[at] ^= data.draw(st.integers(1, 255))
        bad.write_bytes(bytes(changed))
        in_manifest = 512 <= at < 512 + len(contents(exported)["manifest.json"])
        if in_manifest and _same_manifest(bad, exported):
            return  # white space, or what nothing depends on: a date
    refused(bad, exported.parent)


def _same_manifest(one: Path, other: Path) -> bool:
    """Whether the manifests differ in nothing but what only tells of the making."""
    try:
        texts = [json.loads(contents(path)["manifest.json"]) for path in (one, other)]
        for text in texts:
            del text["created"], text["layer_bytes"], text["image_id"], text["layer"]
    except (ValueError, KeyError, tarfile.TarError, UnicodeDecodeError):
        return False
    return bool(texts[0] == texts[1]) and {**contents(one), "manifest.json": b""} == {
        **contents(other), "manifest.json": b""
    }  # fmt: skip


@pytest.mark.parametrize("after", NAMES)
def test_nothing_is_hidden_between_the_members(exported: Path, after: str) -> None:
    content, at = bytearray(exported.read_bytes()), 0
    for name, part in contents(exported).items():
        at += 512 + len(part) + -len(part) % 512
        if name == after:
            content[at - 1] = 1
    exported.write_bytes(bytes(content))
    assert f"hidden after {after}" in refused(exported, exported.parent).what


@many
@given(st.binary(max_size=3000))
def test_no_other_file_is_one(tmp_path: Path, content: bytes) -> None:
    bad = tmp_path / "bad.tar"
    bad.write_bytes(content)
    refused(bad, tmp_path)


def test_what_follows_or_is_missing_is_told(exported: Path, tmp_path: Path) -> None:
    parts = contents(exported)
    bad = tmp_path / "bad.tar"
    bad.write_bytes(packed([*plain(parts), *plain({"more": b"x"})]))
    assert "does not end after vmlinuz" in refused(bad, tmp_path).what
    bad.write_bytes(packed(plain({name: parts[name] for name in NAMES[:2]})))
    assert "where vmlinuz should begin" in refused(bad, tmp_path).what
    end = sum(512 + len(part) + -len(part) % 512 for part in parts.values())
    bad.write_bytes(exported.read_bytes()[:end])
    assert "does not end after vmlinuz" in refused(bad, tmp_path).what
    bad.write_bytes(exported.read_bytes()[: end - 1600])
    assert "ends within image.tar: " in refused(bad, tmp_path).what


def test_a_size_that_is_too_large_is_refused_before_it_is_read(exported: Path, tmp_path: Path) -> None:
    parts = contents(exported)
    huge = tarfile.TarInfo("image.tar")
    huge.size = 5 << 40
    bad = tmp_path / "bad.tar"
    head = 512 + len(parts["manifest.json"]) + -len(parts["manifest.json"]) % 512
    bad.write_bytes(exported.read_bytes()[:head] + huge.tobuf(tarfile.GNU_FORMAT) + b"x" * 2000)
    assert f"of {5 << 40} bytes" in refused(bad, tmp_path).what


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"recipe": "0" * 64}, "another recipe"),
        ({"recipe": None}, "another recipe"),
        ({"recipe": "0" * 64, "new-in-a-later-lab": 1}, "another recipe"),
        ({"id": "canary-000000000000"}, "expected canary-"),
        ({"id": "../../escaped"}, "expected canary-"),
        ({"packages": {"adbd": "2"}}, "expected canary-"),
        ({"reference": "lab/other:1 --privileged"}, "expected canary-"),
        ({"name": "ubuntu"}, "expected canary-"),
        ({"kind": "guest"}, "kind"),
        ({"file": "../image.tar"}, "file"),
        ({"image_id": f"sha256:{'1' * 64}\n"}, "image_id"),
        ({"created": "2026-01-01T00:00:00"}, "created"),
        ({"bytes": -1}, "bytes"),
        ({"kernel": "0" * 64}, "vmlinuz of sha256 000"),
        ({"sha256": "0" * 64}, "image.tar of sha256 000"),
        ({"bytes": 1}, "image.tar of 1 bytes"),
        ({"more": 1}, "more"),
    ],
)
def test_what_this_lab_would_not_have_made_is_refused(
    exported: Path, tmp_path: Path, change: dict[str, object], why: str
) -> None:
    parts = contents(exported)
    manifest = json.loads(parts["manifest.json"]) | change
    bad = tmp_path / "bad.tar"
    bad.write_bytes(packed(plain(parts | {"manifest.json": json.dumps(manifest).encode()})))
    error = refused(bad, tmp_path)
    assert why in error.what and error.evidence == [str(bad)]


def test_a_damaged_image_is_not_exported(entry: CachedImage, tmp_path: Path) -> None:
    target = tmp_path / "canary.tar"
    (entry.folder / "vmlinuz").write_bytes(b"another")
    with pytest.raises(BlockedError, match="vmlinuz"):
        portable.write(entry, target)
    (entry.folder / "vmlinuz").write_bytes(b"a kernel")
    entry.path.chmod(0o600)
    entry.path.write_bytes(b"x" * 2200)
    with pytest.raises(BlockedError, match="damaged"):
        portable.write(entry, target)
    assert not target.exists()


def test_the_tasks_take_the_callers_paths_and_say_what_they_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Session(Settings(state_dir=tmp_path / "s", cache_dir=tmp_path / "here"), Steps(), False)
    there = Session(Settings(state_dir=tmp_path / "s", cache_dir=tmp_path / "there"), Steps(), False)
    (tmp_path / "typed here").mkdir()
    monkeypatch.setenv("LAB_CWD", str(tmp_path / "typed here"))
    with pytest.raises(BlockedError, match="no canary") as caught:
        export.export(here, "canary", "c.tar")
    assert "image.build canary" in caught.value.hint
    entry = made(here.images)
    (row,) = checked(export.export(here, "canary", "c.tar"))["results"]
    assert row["result"] == "exported" and row["why"] == str(tmp_path / "typed here" / "c.tar")
    assert Path(row["why"]).stat().st_mode & 0o777 == 0o644
    for outcome in ("imported", "cached"):
        (row,) = checked(export.import_(there, "c.tar"))["results"]
        assert (row["id"], row["result"], row["sha256"]) == (entry.id, outcome, entry.manifest.sha256)
    with pytest.raises(UsageError, match="cannot be exported"):
        export.export(here, "debian-13", "c.tar")
    with pytest.raises(UsageError, match="is a folder"):
        export.export(here, "canary", ".")
    with pytest.raises(UsageError, match="is not a file"):
        export.import_(there, "nothing.tar")
