"""The proof's program and image, made without Docker, and Docker's pinned key."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

import pytest
from pysequoia import Tsk

from lab.core.errors import BlockedError, CommandError, LabError
from lab.formats import program
from lab.guest import apt, dockerrepo, trial

linux_only = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="runs an x86-64 Linux program"
)


@linux_only
def test_program_made_here_runs_and_says_its_word(tmp_path: Path) -> None:
    made = tmp_path / "says"
    made.write_bytes(program.says("a wörd\n"))
    made.chmod(0o755)
    done = subprocess.run([made], capture_output=True, check=True, timeout=10)
    assert done.stdout.decode() == "a wörd\n"


def test_proof_image_is_one_layer_holding_the_program_and_its_digests_are_right() -> None:
    with tarfile.open(fileobj=io.BytesIO(trial.image("lab-proof:x", "word"))) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}  # type: ignore[union-attr]
    (entry,) = json.loads(files["manifest.json"])
    assert entry["RepoTags"] == ["lab-proof:x"]
    config = json.loads(files[entry["Config"]])
    layer = gzip.decompress(files[entry["Layers"][0]])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tree:
        member = tree.getmember(config["config"]["Cmd"][0].lstrip("/"))
        assert member.mode & 0o111
        assert tree.extractfile(member).read() == program.says("word\n")  # type: ignore[union-attr]


def test_only_the_pinned_key_is_accepted_alone() -> None:
    docker, other = (Tsk.generate(name).extract_certificate() for name in ("Docker", "somebody else"))
    good, pinned = bytes(docker), docker.fingerprint.upper()
    assert dockerrepo.only_pinned(good, pinned) == good
    assert dockerrepo.only_pinned(str(docker).encode(), pinned) == good, "armored"
    for bad in (bytes(other), good + bytes(other), b"<html>", b"", good[:-1], good[5:]):
        with pytest.raises(LabError):
            dockerrepo.only_pinned(bad, pinned)


@pytest.mark.parametrize(
    ("tail", "kind", "what"),
    [
        ("E: You don't have enough free space in /var/cache/apt/archives/.", BlockedError, "disk is full"),
        ("dpkg: error: failed to write: No space left on device", BlockedError, "disk is full"),
        (
            "E: Failed to fetch http://x/d.deb  Temporary failure resolving 'x'",
            BlockedError,
            "cannot reach its package sources",
        ),
        ("E: Unable to locate package docker.io", BlockedError, "do not offer"),
        ("E: Sub-process /usr/bin/dpkg returned an error code (1)", LabError, "apt-get failed"),
    ],
)
def test_apt_failures_say_what_is_wrong(tail: str, kind: type[LabError], what: str) -> None:
    error = apt.explained(CommandError(["env", "A=b", "apt-get", "install"], 100, tail=tail))
    assert type(error) is kind
    assert what in error.what
    assert error.tail == tail
    assert error.hint
