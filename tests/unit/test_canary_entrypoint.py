"""The canary's real entrypoint under a shell of this machine, with a QEMU of the test's own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lab.core.errors import BlockedError, InconclusiveError, LabError
from lab.emulators.canary import console
from lab.emulators.protocol import NestedFailedError, NestedLostError
from lab.images import canary

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="it runs in containers, on Linux"
)

_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}
_HERE = "arm64" if platform.machine() in ("arm64", "aarch64") else "amd64"
_OTHER = "amd64" if _HERE == "arm64" else "arm64"
BEGUN = "echo 'canary: l2 init at 3.1'"
KVM_GAVE_UP = "echo 'KVM: entry failed, hardware error 0xffffffffffffffff' >&2; exec sleep 60"
NO_PORT = "qemu-system-x86_64: -netdev user,id=net: Could not set up host forwarding rule 'tcp:10.9.9.9:5555'"


def ended(
    folder: Path, qemu: str, *, kills: int = 0, device: str = "/dev/null", l2: str = _HERE, accel: str = "kvm"
) -> tuple[int, str]:
    """Exit code and log of the entrypoint; every path it names is the test's."""
    text = (canary.SOURCES / "container" / "entrypoint").read_text()
    (folder / "tmp").mkdir()
    (folder / "memory.events").write_text(f"low 0\noom {kills}\noom_kill {kills}\noom_group_kill 0\n")
    for name, place in (
        ("/tmp/", f"{folder}/tmp/"),  # noqa: S108 - the container's
        ("PATH=/bin:/usr/bin", f"PATH={folder}:/usr/bin:/bin"),
        ("/sys/fs/cgroup/memory.events", f"{folder}/memory.events"),
        ("/dev/kvm", device),
        ("here=/opt/canary", f"here={folder}"),
    ):
        assert name in text
        text = text.replace(name, place)
    program = folder / "entrypoint"
    program.write_text(text)
    if qemu:
        monitor = folder / f"qemu-system-{_PROCESSORS[l2]}"
        monitor.write_text(f"#!/bin/sh\n{qemu}\n")
        monitor.chmod(0o755)
    (folder / "architecture").write_text(f"{l2}\n")
    env = {
        "PATH": os.environ["PATH"],
        "CANARY_NONCE": "n",
        "CANARY_ACCEL": accel,
        "CANARY_PATIENCE": "20",
        "CANARY_LISTEN": "127.0.0.1",
    }
    words = ["setsid", "sh", str(program)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("qemu", "code", "error", "words"),
    [
        (KVM_GAVE_UP, 72, NestedFailedError, "KVM: entry failed"),
        (f"{BEGUN}; {KVM_GAVE_UP}", 72, NestedFailedError, "KVM: entry failed"),
        ("echo 'KVM internal error. Suberror: 1' >&2; exec sleep 60", 72, NestedFailedError, "Suberror: 1"),
        ("kill -KILL $$", 75, NestedLostError, r"SIGKILL \(status 137\) before"),
        ("kill -SEGV $$", 75, NestedLostError, r"SIGSEGV \(status 139\) before"),
        ("kill -ABRT $$", 75, NestedLostError, r"SIGABRT \(status 134\) before"),
        (f"{BEGUN}; kill -KILL $$", 74, NestedLostError, r"SIGKILL \(status 137\) after"),
        (f"{BEGUN}; exit 0", 74, NestedLostError, "status 0 after"),
        (f'echo "{NO_PORT}" >&2; exit 1', 75, InconclusiveError, "a port is in use"),
        ("echo 'cannot set up guest memory' >&2; exit 1", 75, BlockedError, "out of memory"),
        (
            "echo 'failed to initialize kvm: Permission denied' >&2; exit 1",
            75,
            InconclusiveError,
            "no permission",
        ),
        ("echo 'failed to initialize kvm: Bad address' >&2; exit 1", 75, NestedLostError, "Bad address"),
        ("exit 0", 75, NestedLostError, "status 0 before"),
        ("", 75, InconclusiveError, "a program or file is missing"),
    ],
)
def test_only_kvms_own_words_are_evidence(
    tmp_path: Path, qemu: str, code: int, error: type[LabError], words: str
) -> None:
    if not qemu and os.access("/usr/bin/qemu-system-x86_64", os.X_OK):
        qemu = "exec /nowhere/qemu-system-x86_64"
    status, log = ended(tmp_path, qemu)
    assert status == code, log
    with pytest.raises(error, match=words) as caught:
        console.proof(log)
    assert type(caught.value) is error and caught.value.tail


def test_want_of_memory_is_counted_by_the_containers_own_group(tmp_path: Path) -> None:
    status, log = ended(tmp_path, "kill -KILL $$", kills=1)
    assert status == 75
    with pytest.raises(BlockedError, match=r"out of memory.*vm|ended by the kernel, out of memory") as caught:
        console.proof(log)
    assert "vm.memory_mib" in caught.value.hint


def test_other_ends_are_not_for_want_of_memory_because_something_else_was(tmp_path: Path) -> None:
    _, log = ended(tmp_path, "kill -SEGV $$", kills=1)
    with pytest.raises(NestedLostError, match="SIGSEGV"):
        console.proof(log)


def test_absent_device_is_told_apart_from_one_that_cannot_be_opened(tmp_path: Path) -> None:
    status, log = ended(tmp_path, "exit 0", device=f"{tmp_path}/none")
    assert status == 70
    with pytest.raises(InconclusiveError, match="there is no ") as caught:
        console.proof(log)
    assert type(caught.value) is InconclusiveError, "nothing of KVM's, and another launch finds none either"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_device_that_cannot_be_opened_names_why(tmp_path: Path) -> None:
    """A character device that nobody drives: the kernel's word comes through, whatever it is."""
    os.mknod(tmp_path / "device", 0o20666, os.makedev(60, 60))
    status, log = ended(tmp_path, "exit 0", device=f"{tmp_path}/device")
    if status != 71:
        pytest.skip("no device may be opened here, or this one is driven")
    assert "No such device" in log or "Permission denied" in log or "not permitted" in log
    with pytest.raises(InconclusiveError, match="cannot be opened") as caught:
        console.proof(log)
    assert type(caught.value) is InconclusiveError


def test_no_kvm_is_asked_to_run_another_processors_instructions(tmp_path: Path) -> None:
    code, log = ended(tmp_path, BEGUN, l2=_OTHER)
    assert code == 64 and f"KVM runs no {_PROCESSORS[_OTHER]}" in log and "qemu starts" not in log
    with pytest.raises(LabError, match="KVM runs no") as caught:
        console.proof(log)
    assert type(caught.value) is LabError, "it is no finding"


@pytest.mark.parametrize(
    ("l2", "words"),
    [
        ("amd64", ["-machine q35 -accel tcg -cpu max ", "console=ttyS0"]),
        ("arm64", ["-machine virt,", "-accel tcg -cpu max,", "console=ttyAMA0"]),
    ],
)
def test_each_l2_is_emulated_by_a_monitor_of_its_own(tmp_path: Path, l2: str, words: list[str]) -> None:
    code, log = ended(tmp_path, 'echo "$@"', l2=l2, accel="tcg")
    assert code == 75 and all(word in log for word in words), log
