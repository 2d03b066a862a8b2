"""A canary for tests: its log, Docker's description of it, and an sh with a docker of the test's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lab import emulators
from lab.core.journal import Journal
from lab.emulators import Place
from lab.emulators.protocol import Emulator
from lab.guest.ssh import Guest, Result
from lab.guest.terms import OWN
from lab.images import cache as images
from lab.images import canary as recipe
from lab.images.canary_recipe import X86, CanaryBuild

LOG = """canary: this is the lab canary, not Android
canary: qemu starts (kvm)
canary: l2 init at 3.12\r
canary: l2 ready at 3.90 nonce=abc hypervisor=KVMKVMKVM clocksource=kvm-clock boot_id=1-2 machine=x86_64 \
kernel=6.12\r
canary: l2 ready after 6.05 s (kvm)
"""
CONTAINER_JSON: dict[str, Any] = {
    "Image": "sha256:1",
    "Path": "/opt/canary/entrypoint",
    "Args": [],
    "HostConfig": {"Devices": [{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm"}]},
    "State": {"Running": True, "ExitCode": 0, "Health": {"Status": "healthy"}, "StartedAt": "T"},
    "Config": {
        "Image": "lab/canary:1",
        "Env": ["PATH=/bin", "CANARY_NONCE=abc", "CANARY_ACCEL=kvm"],
        "Labels": {"io.lab.uuid": "u-1"},
    },
}


class FakeGuest:
    """Answers by the command's first words, and remembers all commands."""

    terms = OWN

    def __init__(self, answers: dict[str, tuple[int, str, str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], *, check: bool = True, **_: Any) -> Result:
        line = " ".join(argv)
        self.asked.append(line)
        status, out, err = next(
            (answer for start, answer in self.answers.items() if line.startswith(start)), (0, "", "")
        )
        assert status == 0 or not check, line
        return Result(list(argv), out, err, status, 0.0)


def guest(answers: dict[str, tuple[int, str, str]]) -> tuple[Guest, list[str]]:
    fake = FakeGuest(answers)
    return cast(Guest, fake), fake.asked


def place(tmp_path: Path, **more: Any) -> Place:
    return Place(
        lab_uuid="u-1",
        cache=tmp_path,
        secrets=tmp_path,
        state=tmp_path,
        journal=Journal(tmp_path / "j"),
        **more,
    )


def canary(tmp_path: Path) -> Emulator:
    return emulators.emulator("canary", place(tmp_path))


def built(tmp_path: Path, build: CanaryBuild = X86) -> Emulator:
    """A canary for x86 whose image, or that of another `build` of today's recipe, is in the cache."""
    work = tmp_path / "canary-1"
    work.mkdir()
    (work / "image.tar").write_bytes(b"image")
    manifest = images.Manifest.model_validate(
        {
            "id": "canary-1",
            "kind": "canary",
            "name": "canary",
            "recipe": recipe.recipe_hash(build),
            "file": "image.tar",
            "format": "docker-archive",
            "bytes": 5,
            "sha256": "0" * 64,
            "created": "2026-01-01T00:00:00Z",
            "image_id": "sha256:1",
            "layer": "sha256:2",
            "reference": "lab/canary:1",
        }
    )
    images.seal(work, manifest)
    return canary(tmp_path)


class Shell:
    """Runs lab's scripts with a real sh, and a docker of the test's own."""

    terms = OWN

    def __init__(self, folder: Path, docker: str) -> None:
        self.calls = folder / "calls"
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\necho "$*" >>{self.calls}\n{docker}\n')
        program.chmod(0o755)
        stat = folder / "stat"
        stat.write_text('#!/bin/sh\n[ -z "$NO_KVM" ] && echo 106\n')
        stat.chmod(0o755)
        self.path = f"{folder}:/usr/bin:/bin"
        self.no_kvm = ""

    def run(self, argv: Sequence[str], *, check: bool = True, **_: Any) -> Result:
        if argv[0] == "printenv":
            return Result(list(argv), "10.0.2.2 4711 10.0.2.15 22\n", "", 0, 0.0)
        done = subprocess.run(
            list(argv),
            capture_output=True,
            text=True,
            env={"PATH": self.path, "NO_KVM": self.no_kvm},
            check=False,
            timeout=20,
        )
        assert done.returncode == 0 or not check, done.stderr
        return Result(list(argv), done.stdout, done.stderr, done.returncode, 0.0)

    def did(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


def ended(tmp_path: Path, log: str, **state: Any) -> Shell:
    described = json.dumps(
        [CONTAINER_JSON | {"State": {"Running": False, "FinishedAt": "2026-12-01T03:08:41Z", **state}}]
    )
    (tmp_path / "log").write_text(log)
    return Shell(tmp_path, f"case $1 in logs) cat {tmp_path}/log ;; container) echo '{described}' ;; esac")
