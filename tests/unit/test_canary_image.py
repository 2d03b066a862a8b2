"""What the canary's image is packed from and into, without building it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from lab.core.errors import LabError
from lab.formats import cpio, elf, oci
from lab.formats.cpio import CpioEntry
from lab.images import canary, canary_recipe, making
from lab.images.debtree import DebianTree
from tests.capabilities import needs, needs_linux


def test_archive_names_what_it_holds_by_digest(tmp_path: Path) -> None:
    entries = {"opt/run": CpioEntry.file(b"#!/bin/sh\n", 0o755), "bin/sh": CpioEntry.link("busybox")}
    target = tmp_path / "image.tar"
    made = oci.write(target, reference="a/b:c", entries=entries, config={"Entrypoint": ["/opt/run"]})
    with tarfile.open(target) as archive:
        (index,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        described = (archive.extractfile(index["Config"]) or io.BytesIO()).read()
        packed = (archive.extractfile(index["Layers"][0]) or io.BytesIO()).read()
    layer = gzip.decompress(packed)
    assert made.image_id == f"sha256:{hashlib.sha256(described).hexdigest()}"
    assert made.layer == f"sha256:{hashlib.sha256(layer).hexdigest()}"
    assert json.loads(described)["rootfs"]["diff_ids"] == [made.layer]
    assert index["RepoTags"] == ["a/b:c"]
    assert json.loads(described)["architecture"] == "amd64"
    oci.write(target, reference="a/b:c", entries=entries, config={}, architecture="arm64")
    with tarfile.open(target) as archive:
        (index,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        assert json.load(archive.extractfile(index["Config"]) or io.BytesIO())["architecture"] == "arm64"
    with tarfile.open(fileobj=io.BytesIO(layer)) as files:
        assert files.getmember("opt/run").mode == 0o755
        assert files.getmember("bin/sh").linkname == "busybox"
        assert files.getmember("opt").isdir()


def test_archive_is_the_same_each_time(tmp_path: Path) -> None:
    one, other = (
        {"a": CpioEntry.file(b"1"), "b/c": CpioEntry.file(b"2")},
        {"b/c": CpioEntry.file(b"2"), "a": CpioEntry.file(b"1")},
    )
    oci.write(tmp_path / "1", reference="a:b", entries=one, config={})
    oci.write(tmp_path / "2", reference="a:b", entries=other, config={})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_archive_is_the_same_on_every_system(tmp_path: Path) -> None:
    """Byte for byte: were it Python's own zlib that compresses, another build of it would write others."""
    entries = {
        f"opt/{number}": CpioEntry.file(f"{number * number}\n".encode() * 500) for number in range(300)
    }
    oci.write(tmp_path / "image.tar", reference="a:b", entries=entries, config={"Env": ["A=1"]})
    observed = hashlib.sha256((tmp_path / "image.tar").read_bytes()).hexdigest()
    assert (oci.COMPRESSOR, observed) == (
        "deflate 0.9.0",
        "87cb082988c7529c0acb5f05541dcca79634cbe0a723f4355144e307a0aacf76",
    )


@needs("cpio")
def test_cpio_is_what_cpio_reads(tmp_path: Path) -> None:
    entries = {
        "bin/tool": CpioEntry.file(b"odd", 0o755),
        "bin/sh": CpioEntry.link("tool"),
        "tmp": CpioEntry.folder(0o1777),
    }
    done = subprocess.run(
        ["cpio", "--extract", "--quiet", "--make-directories", "--no-preserve-owner"],
        input=cpio.pack(entries),
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "bin" / "tool").read_bytes() == b"odd"
    assert (tmp_path / "bin" / "tool").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "bin" / "sh").readlink() == Path("tool")
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777


@needs_linux
def test_closure_follows_search_paths_and_names_what_is_missing() -> None:
    real = Path("/proc/self/exe").resolve().read_bytes()
    facts = elf.dynamic(real)
    assert facts.interpreter.startswith("/lib") and any(name.startswith("libc.so") for name in facts.needed)
    with pytest.raises(LabError, match="which is nowhere"):
        elf.closure(["/python"], {"/python": real}.get, ["/lib"])


def test_what_is_not_elf_is_refused() -> None:
    with pytest.raises(LabError, match="not a 64-bit"):
        elf.dynamic(b"#!/bin/sh\n" + bytes(64))


def test_module_depends() -> None:
    assert elf.module_depends(b"\0license=GPL\0depends=net_failover,crc\0name=x\0") == ["net_failover", "crc"]
    assert elf.module_depends(b"\0depends=\0") == []


def test_debian_tree_follows_links(tmp_path: Path) -> None:
    tar = tmp_path / "debian.tar"
    with tarfile.open(tar, "w") as archive:
        for name, kind, target in (
            ("./usr/lib/libx.so.1.2", tarfile.REGTYPE, ""),
            ("./usr/lib/libx.so.1", tarfile.SYMTYPE, "libx.so.1.2"),
            ("./usr/lib/loop", tarfile.SYMTYPE, "loop"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            member.size = 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"data"))
    with DebianTree(tar) as tree:
        assert tree.need("/lib/libx.so.1") == b"data"  # through merged /usr, too
        assert tree.read("/usr/lib/loop") is None
        assert next(tree.under("/usr/lib")) == "/usr/lib/libx.so.1"
        with pytest.raises(LabError, match="not in the extracted packages"):
            tree.need("/usr/bin/nothing")


def test_adb_request_is_two_packets_of_the_protocol() -> None:
    data, commands = canary.adb_request(), []
    while data:
        command, _, _, length, checksum, magic = struct.unpack("<6I", data[:24])
        payload, data = data[24 : 24 + length], data[24 + length :]
        assert magic == command ^ 0xFFFFFFFF and checksum == sum(payload) and payload.endswith(b"\0")
        commands.append(struct.pack("<I", command))
    assert commands == [b"CNXN", b"OPEN"]


def test_recipe_is_read_and_any_change_renames_the_image(tmp_path: Path) -> None:
    assert "cpuid" in canary.recipe().machine["amd64"].modules
    for path in (path for path in canary.SOURCES.rglob("*") if path.is_file()):
        copy = tmp_path / path.relative_to(canary.SOURCES)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())

    def digest(compressor: str = oci.COMPRESSOR) -> str:
        return making.digest_of(tmp_path, canary_recipe.BUILDERS, compressor, *canary_recipe.X86)

    assert digest() == canary.recipe_hash()
    (tmp_path / "container" / ".DS_Store").write_bytes(b"what a file manager leaves")
    assert digest() == canary.recipe_hash()
    assert digest("deflate 99") != canary.recipe_hash()
    (tmp_path / "l2" / "init").write_text("#!/bin/sh\n")
    assert digest() != canary.recipe_hash()


def test_each_canary_is_an_image_of_its_own() -> None:
    builds = canary_recipe.BUILDS
    assert list(builds) == ["canary", "canary-arm64", "canary-arm64-emulated"]
    assert len({canary.recipe_hash(build) for build in builds.values()}) == len(builds)
    versions = {"adbd": "1"}
    assert canary.id_of(versions, builds["canary-arm64"]).startswith("canary-arm64-")
    assert canary.id_of(versions) != canary.id_of(versions, builds["canary-arm64-emulated"])


def test_monitor_is_of_the_container_and_the_kernel_of_l2() -> None:
    made = canary.recipe()
    x86, arm = made.packages(canary_recipe.X86), made.packages(canary_recipe.ARM)
    assert set(x86) == {"amd64"} and {"linux-image-cloud-amd64", "qemu-system-x86"} < set(x86["amd64"])
    assert set(arm) == {"arm64"} and {"linux-image-cloud-arm64", "qemu-system-arm"} < set(arm["arm64"])
    emulated = made.packages(canary_recipe.EMULATED_ARM)
    assert {"adbd", "linux-image-cloud-arm64"} < set(emulated["arm64"])
    assert emulated["amd64"] == ["busybox-static", "qemu-system-arm"]


@pytest.mark.parametrize("script", ["container/entrypoint", "container/healthcheck", "l2/init", "l2/getprop"])
def test_scripts_parse(script: str) -> None:
    assert subprocess.run(["sh", "-n", canary.SOURCES / script]).returncode == 0
