"""The conversion of a base image, with a stand-in for qemu-img; a real one is in tests/integration."""

import contextlib
import json
import struct
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as some

from lab.config.loading import PROJECT
from lab.core import files
from lab.core.deadline import Deadline, poll
from lab.core.errors import BlockedError, CommandError, LabError, UsageError
from lab.engines.virtualbox import basedisk

TOOL = """
import json, os, sys, time
from pathlib import Path
here = Path(__file__).parent
words = sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if words[0] == "info":
    print(json.dumps({"virtual-size": 3 << 30}))
elif words[0] == "create":
    Path(words[-2]).write_text("larger overlay")
else:
    source, target = words[-2:]
    assert Path(source).read_text() == "larger overlay"
    with open(target, "wb") as stream:
        stream.write(b"half of it")
        stream.flush()
        if (here / "hang").exists():
            time.sleep(600)
        if (here / "fail").exists():
            sys.exit("VDI: no space left on device")
        time.sleep(0.1)
        stream.truncate(4096)
"""


@pytest.fixture
def tool(tmp_path):
    path = tmp_path / "tool" / "qemu-img"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n" + TOOL)
    path.chmod(0o755)
    return path


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "images/debian-13-abc/disk.qcow2"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"qcow2")
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def never(*_):
    raise AssertionError("VirtualBox was asked for what it cannot read")


def calls(tool):
    return [json.loads(line) for line in (tool.parent / "calls").read_text().splitlines()]


def left(cache):
    return sorted(path.name for path in (cache / "virtualbox").iterdir())


def identity(disk):
    return [uuid.UUID(bytes_le=disk.read_bytes()[place : place + 16]) for place in (0x188, 0x198)]


def test_it_is_converted_once_and_read_only(base, cache, tool):
    disk = basedisk.ensure(base, 12, cache, never, str(tool))
    assert disk == cache / "virtualbox/debian-13-abc-12g.vdi"
    assert disk.stat().st_mode & 0o777 == 0o444 and left(cache) == [disk.name]
    create = calls(tool)[1]
    assert create[create.index("-b") + 1] == str(base) and create[-1] == "12G"
    assert basedisk.ensure(base, 12, cache, never, str(tool)) == disk
    assert [words[0] for words in calls(tool)] == ["info", "create", "convert"]


def test_its_identity_follows_from_its_name(base, cache, tool, tmp_path):
    """Differences are bound to it, and must fit again when it was pruned and made anew."""
    disk = basedisk.ensure(base, 12, cache, never, str(tool))
    image, change = identity(disk)
    assert image != change and image.version == 5
    disk.unlink()
    assert identity(basedisk.ensure(base, 12, cache, never, str(tool))) == [image, change]
    assert identity(basedisk.ensure(base, 12, tmp_path / "another", never, str(tool))) == [image, change]
    assert identity(basedisk.ensure(base, 13, cache, never, str(tool)))[0] != image


@pytest.fixture
def vmdk(tmp_path):
    """The header of a published image of 3 GiB, as qemu-img and VMware write it."""
    path = tmp_path / "images/ubuntu-24.04-abc/disk.vmdk"
    path.parent.mkdir(parents=True)
    path.write_bytes(struct.pack("<4sIIQ", b"KDMV", 3, 0x30001, (3 << 30) // 512).ljust(1024, b"\0"))
    return path


def test_a_vmdk_is_converted_by_virtualbox_alone(vmdk, cache, tool):
    asked = []

    def convert(source, target, size):
        asked.append((source.name, source.read_bytes() == vmdk.read_bytes(), target.name, size))
        source.write_bytes(b"VirtualBox's own UUID")  # as VBoxManage does
        target.write_bytes(b"\0" * 4096)

    disk = basedisk.ensure(vmdk, 12, cache, convert, str(tool))
    assert disk == cache / "virtualbox/ubuntu-24.04-abc-12g.vdi"
    names = ("ubuntu-24.04-abc-12g.copy", True, "ubuntu-24.04-abc-12g.part", 12 << 30)
    assert asked == [names] and vmdk.read_bytes().startswith(b"KDMV")
    assert left(cache) == [disk.name] and disk.stat().st_mode & 0o777 == 0o444
    image, change = identity(disk)
    disk.unlink()
    assert identity(basedisk.ensure(vmdk, 12, cache, convert, str(tool))) == [image, change]
    assert len(asked) == 2 and not (tool.parent / "calls").exists(), "no qemu-img"


def test_a_vmdk_that_is_larger_or_fails_leaves_nothing(vmdk, cache):
    with pytest.raises(UsageError, match=r"2 GiB is smaller than its image \(3.0 GiB\)"):
        basedisk.ensure(vmdk, 2, cache, never)

    def convert(_source, target, _size):
        target.write_bytes(b"half")
        raise LabError("VirtualBox failed: converting")

    with pytest.raises(LabError, match="converting"):
        basedisk.ensure(vmdk, 12, cache, convert)
    assert left(cache) == []


@given(some.binary(max_size=64))
def test_no_bytes_are_too_strange_to_be_told_from_a_vmdk(content):
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(content)
        stream.flush()
        size = basedisk._vmdk_bytes(Path(stream.name))
    assert (size is not None) == (content[:4] == b"KDMV" and len(content) >= 20)


def test_a_disk_smaller_than_its_image_is_refused(base, cache, tool):
    with pytest.raises(UsageError, match=r"2 GiB is smaller than its image \(3.0 GiB\)") as caught:
        basedisk.ensure(base, 2, cache, never, str(tool))
    assert "at least 3 GiB" in caught.value.hint and left(cache) == []
    assert basedisk.ensure(base, 3, cache, never, str(tool)).exists()


def test_what_is_missing(base, cache, tool, monkeypatch):
    with pytest.raises(BlockedError, match="is missing") as caught:
        basedisk.ensure(base.with_name("gone.qcow2"), 12, cache, never, str(tool))
    assert "image.list" in caught.value.hint
    with pytest.raises(BlockedError):
        basedisk.ensure(base, 12, cache, never, str(tool.with_name("no-tool")))

    def full(folder, needed, purpose):
        raise BlockedError(f"{purpose} needs {needed}")

    monkeypatch.setattr(files, "require_space", full)
    with pytest.raises(BlockedError, match="converting the image for VirtualBox needs 25"):
        basedisk.ensure(base, 12, cache, never, str(tool))
    assert left(cache) == []


def test_a_conversion_that_fails_leaves_nothing(base, cache, tool):
    (tool.parent / "fail").touch()
    with pytest.raises(CommandError) as caught:
        basedisk.ensure(base, 12, cache, never, str(tool))
    assert "no space left" in caught.value.tail and left(cache) == []


def test_a_conversion_that_is_killed_leaves_nothing_that_is_taken_for_a_disk(base, cache, tool):
    (tool.parent / "hang").touch()
    code = "import sys; from pathlib import Path; from lab.engines.virtualbox import basedisk; "
    code += "basedisk.ensure(Path(sys.argv[1]), 12, Path(sys.argv[2]), None, sys.argv[3])"
    victim = subprocess.Popen([sys.executable, "-c", code, base, cache, tool], cwd=PROJECT)
    part = cache / "virtualbox/debian-13-abc-12g.part"
    converter = poll(lambda: _converter(tool, part), Deadline.after(30), "a half-made disk", every=0.05)
    victim.kill()
    victim.wait()
    converter.kill()
    assert part.exists() and not part.with_suffix(".vdi").exists()
    (tool.parent / "hang").unlink()
    disk = basedisk.ensure(base, 12, cache, never, str(tool))
    assert disk.stat().st_size == 4096 and left(cache) == [disk.name]


def _converter(tool, part):
    """The tool's process once it has begun to write, None before."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if part.exists() and str(tool) in words and "convert" in words:
                return process
    return None


def test_two_at_once_convert_it_once(base, cache, tool):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(basedisk.ensure(base, 12, cache, never, str(tool))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4 and len(set(found)) == 1
    assert len(calls(tool)) == 3


def test_prune_removes_the_disks_of_images_that_are_not_kept(base, cache, tool):
    kept = basedisk.ensure(base, 12, cache, never, str(tool))
    others = [kept.with_name(name) for name in ("gone-1-8g.vdi", "gone-1-16g.vdi")]
    for path in others:
        path.write_bytes(b"\1" * 8192)
        path.chmod(0o444)
    foreign = kept.with_name("by-hand.vdi")
    foreign.touch()
    removed = basedisk.prune(cache, {"debian-13-abc", "x"})
    assert [path for path, _ in removed] == sorted(others) and all(size >= 8192 for _, size in removed)
    assert left(cache) == sorted([kept.name, foreign.name])
    assert [path for path, _ in basedisk.prune(cache, set())] == [kept]
    assert basedisk.prune(cache.with_name("none"), set()) == []
