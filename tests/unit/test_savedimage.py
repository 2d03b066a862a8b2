"""Archives as `docker save` writes them, of both layouts, and what only looks like one."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lab.core import files
from lab.core.errors import BlockedError, LabError
from lab.formats import oci
from lab.formats.cpio import CpioEntry
from lab.images import savedimage
from lab.images.errors import PlatformError

LAYER = f"sha256:{'7' * 64}"


def config(**more: Any) -> bytes:
    plain = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [LAYER]}}
    return json.dumps(plain | more).encode()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as target:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return path


def saved(path: Path, *, oci_layout: bool = False, described: bytes = b"", **more: Any) -> Path:
    """As Docker 24 writes it, or as 25 does."""
    described = described or config()
    hashed = hashlib.sha256(described).hexdigest()
    named = f"blobs/sha256/{hashed}" if oci_layout else f"{hashed}.json"
    layer = f"blobs/sha256/{'8' * 64}" if oci_layout else f"{'8' * 64}/layer.tar"
    listed = {"Config": named, "RepoTags": ["a/b:c"], "Layers": [layer]} | more
    members = {named: described, layer: b"a layer", "manifest.json": json.dumps([listed]).encode()}
    if oci_layout:
        members |= {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": b"{}"}
    return archive(path, members)


@pytest.mark.parametrize("oci_layout", [False, True], ids=["docker 24", "docker 25"])
def test_both_layouts_are_read(tmp_path: Path, oci_layout: bool) -> None:
    path = saved(tmp_path / "image.tar", oci_layout=oci_layout)
    found = savedimage.read(path, tmp_path / "state")
    assert found.image_id == f"sha256:{hashlib.sha256(config()).hexdigest()}"
    assert found.layers == (LAYER,)
    assert found.tags == ("a/b:c",)
    assert found.reference == "a/b:c"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.bytes == path.stat().st_size


def test_labs_own_archive_is_read(tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    made = oci.write(path, reference="lab/canary:1", entries={"x": CpioEntry.file(b"1")}, config={})
    found = savedimage.read(path, tmp_path)
    assert (found.image_id, found.layers, found.tags) == (made.image_id, (made.layer,), ("lab/canary:1",))


def test_an_image_without_a_tag_is_found_by_its_id(tmp_path: Path) -> None:
    found = savedimage.read(saved(tmp_path / "image.tar", RepoTags=None), tmp_path)
    assert found.tags == ()
    assert found.reference == found.image_id


def test_names_that_begin_with_a_dot_and_several_tags(tmp_path: Path) -> None:
    path = saved(tmp_path / "one.tar", RepoTags=["a:1", "a:2"])
    with tarfile.open(path) as archive_:
        members = {f"./{member.name}": archive_.extractfile(member).read() for member in archive_}  # type: ignore[union-attr]
    found = savedimage.read(archive(tmp_path / "two.tar", members), tmp_path)
    assert found.tags == ("a:1", "a:2")


def test_the_file_is_hashed_once_while_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = saved(tmp_path / "image.tar"), tmp_path / "state"
    hashed: list[Path] = []
    real = files.sha256

    def sha256(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr("lab.core.files.sha256", sha256)
    first = savedimage.read(path, state)
    assert savedimage.read(path, state) == first
    assert hashed == [path]
    os.utime(path, ns=(1, 1))
    assert savedimage.read(path, state) == first
    assert hashed == [path, path]
    saved(path, described=config(created="later"))
    assert savedimage.read(path, state).sha256 != first.sha256
    (state / savedimage.STAMPS).write_text("{")
    savedimage.read(path, state)
    assert len(hashed) == 4
    assert sorted(item.name for item in tmp_path.iterdir()) == ["image.tar", "state"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a whole tar archive"),
        (b"no archive at all" * 100, "not a whole tar archive"),
        (gzip.compress(b"x", mtime=0), "is compressed"),
        (b"\x28\xb5\x2f\xfd....", "is compressed"),
    ],
)
def test_what_is_no_archive(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(content)
    with pytest.raises(BlockedError, match=said) as caught:
        savedimage.read(path, tmp_path / "state")
    assert caught.value.hint
    assert not (tmp_path / "state").exists()


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.tar", tmp_path):
        with pytest.raises(BlockedError, match="cannot be read"):
            savedimage.read(path, tmp_path)


def test_a_packed_archive_says_how_to_unpack_it(tmp_path: Path) -> None:
    path = tmp_path / "image.tar.gz"
    path.write_bytes(gzip.compress(saved(tmp_path / "image.tar").read_bytes()))
    with pytest.raises(BlockedError) as caught:
        savedimage.read(path, tmp_path)
    assert f"gzip -d {path}" in caught.value.hint


def test_other_archives(tmp_path: Path) -> None:
    with pytest.raises(BlockedError, match="is no image archive"):
        savedimage.read(archive(tmp_path / "a.tar", {"readme": b"hello"}), tmp_path)
    with pytest.raises(BlockedError, match=r"an OCI layout without Docker's manifest\.json"):
        savedimage.read(archive(tmp_path / "b.tar", {"oci-layout": b"{}", "index.json": b"{}"}), tmp_path)


@pytest.mark.parametrize("listed", [b"", b"{", b"{}", b'[{"Config": 1}]', b'[{"Config": "x"}]', b"\xff"])
def test_a_strange_list(tmp_path: Path, listed: bytes) -> None:
    with pytest.raises(BlockedError, match=r"manifest\.json is not one of"):
        savedimage.read(archive(tmp_path / "a.tar", {"manifest.json": listed}), tmp_path)


def test_several_images_in_one(tmp_path: Path) -> None:
    both = [{"Config": "x", "RepoTags": [f"a:{number}"], "Layers": []} for number in (1, 2)]
    path = archive(tmp_path / "a.tar", {"manifest.json": json.dumps(both).encode()})
    with pytest.raises(BlockedError, match=r"holds 2 images.*: a:1, a:2$"):
        savedimage.read(path, tmp_path)


def test_another_architecture(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tar", described=config(architecture="arm64"))
    with pytest.raises(PlatformError, match="linux/arm64"):
        savedimage.read(path, tmp_path)


def test_a_configuration_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tar", described=config())
    with tarfile.open(path) as archive_:
        members = {member.name: archive_.extractfile(member).read() for member in archive_}  # type: ignore[union-attr]
    name = next(name for name in members if name.endswith(".json") and name != "manifest.json")
    members[name] = config(created="changed")
    with pytest.raises(BlockedError, match="damaged: its configuration is named"):
        savedimage.read(archive(tmp_path / "b.tar", members), tmp_path)


def test_a_layer_that_is_missing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tar", Layers=["gone/layer.tar"])
    with pytest.raises(BlockedError, match=r"the layer gone/layer\.tar is missing"):
        savedimage.read(path, tmp_path)
    with pytest.raises(BlockedError, match="has 0 layers and names 1"):
        savedimage.read(saved(tmp_path / "b.tar", Layers=[]), tmp_path)
    with pytest.raises(BlockedError, match=r"gone\.json is missing"):
        savedimage.read(saved(tmp_path / "c.tar", Config="gone.json"), tmp_path)


def test_an_archive_that_was_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Whatever a copy that ended early left of it, up to tar's own end mark."""
    whole = saved(tmp_path / "whole.tar").read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as archive_:
        end = max(member.offset_data + member.size for member in archive_)
    part = tmp_path / "part.tar"
    for length in range(0, end, 97):
        part.write_bytes(whole[:length])
        with pytest.raises(LabError):
            savedimage.read(part, tmp_path)
