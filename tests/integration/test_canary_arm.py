"""The canary whose L2 is an ARM machine: its real container, monitor, kernel and adbd, without Docker."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import emulators
from lab.adb import AdbServer
from lab.core.deadline import Deadline, poll
from lab.core.errors import InconclusiveError
from lab.core.journal import Journal
from lab.emulators.canary import Canary, console
from lab.images import cache
from lab.images.canary_recipe import EMULATED_ARM
from tests.integration import l2

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="its container is of x86_64"),
]

_NONCE = "arm-nonce"
_BOOT_SECONDS = 240.0
_LARGEST = 60 << 20
# A container's root, processes and mounts; the network is this machine's: L2 has an address of its own there.
_CONTAINER = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = l2.image(EMULATED_ARM)
    cache.verify(image)
    assert image.manifest.bytes < _LARGEST
    assert {"qemu-system-arm", "adbd:arm64", "linux-image-cloud-arm64:arm64"} <= set(image.manifest.packages)
    made = l2.unpack(image, tmp_path_factory.mktemp("canary"))
    for folder in ("dev", "proc"):
        (made / folder).mkdir()
    (made / "dev" / "null").touch()
    if subprocess.run([*_CONTAINER, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make namespaces here")
    return made


def inside(root: Path, script: str) -> list[str]:
    return [*_CONTAINER, f"--root={root}", "--wd=/", "/bin/busybox", "sh", "-c", script]


@pytest.fixture
def booted(root: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """L2's address for ADB on this machine, and the container's log, while it runs."""
    number = os.getpid()
    address = f"127.19.{number >> 8 & 255}.{number & 255 or 1}"
    log = tmp_path / "log"
    script = f"CANARY_LISTEN={address} CANARY_NONCE={_NONCE} CANARY_ACCEL=tcg exec /opt/canary/entrypoint"
    with log.open("wb") as stream:
        child = subprocess.Popen(inside(root, script), stdout=stream, stderr=stream, start_new_session=True)
    try:
        yield f"{address}:5555", log
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def test_an_arm_machine_boots_and_answers_for_itself(booted: tuple[str, Path], tmp_path: Path) -> None:
    address, log = booted
    ended = (console.READY, console.FAILED)

    def told() -> str | None:
        text = log.read_text(errors="replace")
        return text if any(word in text for word in ended) else None

    text = poll(told, Deadline.after(_BOOT_SECONDS), "L2")
    assert console.seconds(text, "tcg", machine="aarch64") > 0, text
    with pytest.raises(InconclusiveError, match="a machine of x86_64"):
        console.seconds(text, "tcg", machine="x86_64")
    with pytest.raises(InconclusiveError):  # it is no proof that KVM ran it
        console.proof(text)

    journal = Journal(tmp_path / "journal")
    place = emulators.Place("u", cache=tmp_path, secrets=tmp_path, state=tmp_path, journal=journal)
    try:
        proof = Canary(place, EMULATED_ARM).prove(address, tmp_path / "adb", Deadline.after(60))
    finally:
        AdbServer(tmp_path / "adb", journal).stop()
    assert (proof.nonce, proof.machine, proof.boot_completed) == (_NONCE, "aarch64", True)
    assert proof.kernel.endswith("-cloud-arm64") and proof.clocksource == "arch_sys_counter"
    assert proof.boot_id and proof.boot_id != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert proof.hypervisor == "", "no KVM answered its kernel's call, and it says so"


def test_kvm_of_this_machine_is_not_asked_to_run_it(root: Path) -> None:
    script = f"CANARY_LISTEN=127.0.0.1 CANARY_NONCE={_NONCE} exec /opt/canary/entrypoint"
    done = subprocess.run(inside(root, script), capture_output=True, text=True, timeout=60)
    assert done.returncode == 64 and "KVM runs no aarch64 on a x86_64" in done.stdout
