"""The KVM probe as a script: which failure is KVM's own word, and which is not."""

from __future__ import annotations

import errno
import importlib.util
import mmap
import os
import re
import signal
import struct
import time
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.probes.kvm import Device, GuestRun


def _load() -> Any:
    path = resources.files("lab.probes") / "scripts" / "kvm_probe.py"
    spec = importlib.util.spec_from_file_location("kvm_probe", str(path))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def probe() -> Any:
    return _load()


def _attempted(probe: Any, seconds: float = 10.0) -> GuestRun:
    return GuestRun.model_validate(probe.attempt(probe.real_mode, seconds))


def _fails(number: int) -> Any:
    def fail(*_: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


_ERRNOS = [
    (errno.ENOMEM, "resource"),
    (errno.EMFILE, "resource"),
    (errno.ENFILE, "resource"),
    (errno.EAGAIN, "resource"),
    (errno.EBUSY, "resource"),
    (errno.EACCES, "permission"),
    (errno.EPERM, "permission"),
    (errno.EFAULT, "system"),
    (errno.EINVAL, "system"),
    (errno.EIO, "system"),
]
_REQUESTS = [name for name in _load().REQUESTS if name != "KVM_GET_API_VERSION"]


class FakeKvm:
    """Answers ioctls as KVM does, but for `failing`; the run area says `exits`, one a KVM_RUN."""

    def __init__(self, probe: Any, area: Path, failing: str = "", number: int = 0) -> None:
        self.names = {number: name for name, number in probe.REQUESTS.items()}
        self.failing, self.number, self.area = failing, number, area
        area.write_bytes(bytes(4096))
        self.vcpu = os.open(area, os.O_RDWR)
        self.exits: list[bytes] = []

    def __call__(self, _file: int, request: int, _argument: Any = 0) -> int:
        name = self.names[request]
        if name == self.failing:
            raise OSError(self.number, "it failed")
        if name == "KVM_RUN":
            shown = self.exits.pop(0)
            with mmap.mmap(self.vcpu, 4096) as area:
                area[: len(shown)] = shown
        return {"KVM_CREATE_VCPU": self.vcpu, "KVM_GET_VCPU_MMAP_SIZE": 4096}.get(name, 7)


def _exit(reason: int, rest: bytes = b"") -> bytes:
    return (bytes(8) + struct.pack("<I", reason)).ljust(32, b"\0") + rest


_OUT = _exit(2, struct.pack("<BBHIQ", 1, 1, 0xE9, 1, 0))


@pytest.fixture
def device(probe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device that opens; what it answers is the test's."""
    path = tmp_path / "kvm"
    path.touch()
    monkeypatch.setattr(probe, "DEVICE", str(path))
    return path


@pytest.mark.parametrize("request_name", _REQUESTS)
@pytest.mark.parametrize(("number", "failure"), _ERRNOS)
def test_an_errno_is_no_word_of_kvms_and_names_itself(
    probe: Any,
    device: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request_name: str,
    number: int,
    failure: str,
) -> None:
    monkeypatch.setattr(probe.fcntl, "ioctl", FakeKvm(probe, tmp_path / "area", request_name, number))
    entry = _attempted(probe)
    assert (entry.ok, entry.failure) == (False, failure)
    assert entry.error.startswith(f"{request_name}: {errno.errorcode[number]} (")
    assert entry.started == (request_name == "KVM_RUN")


_PROBE = _load()


@given(st.sampled_from(sorted(errno.errorcode)))
def test_no_errno_at_all_is_kvms_word(number: int) -> None:
    trouble = _PROBE.explained(OSError(number, "x"), "KVM_RUN")
    assert trouble.facts()["failure"] in ("resource", "permission", "system")
    assert errno.errorcode[number] in str(trouble)


@pytest.mark.parametrize(
    ("exits", "error"),
    [
        ([_exit(9, struct.pack("<Q", 2**64 - 1))], "entry failed, hardware error 0xffffffffffffffff"),
        ([_OUT, _exit(17, struct.pack("<I", 1))], "KVM internal error, suberror 1"),
        ([_exit(8)], "unexpected exit: shutdown"),
        ([_exit(5)], r"halted after writing \[\]"),
        ([_OUT] * 16, "no halt in 16 exits"),
    ],
)
def test_what_kvm_says_of_a_guest_it_ran_is_its_word(
    probe: Any,
    device: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    exits: list[bytes],
    error: str,
) -> None:
    kvm = FakeKvm(probe, tmp_path / "area")
    kvm.exits = exits
    monkeypatch.setattr(probe.fcntl, "ioctl", kvm)
    entry = _attempted(probe)
    assert (entry.ok, entry.failure, entry.started) == (False, "kvm", True)
    assert re.search(error, entry.error)


def test_an_interrupted_run_is_gone_on_with(
    probe: Any, device: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kvm = FakeKvm(probe, tmp_path / "area")
    kvm.exits = [_exit(10), _exit(9, bytes(8))]
    interrupted = iter([True, True, False, True, False])

    def ioctl(file: int, request: int, argument: Any = 0) -> int:
        if kvm.names[request] == "KVM_RUN" and next(interrupted):
            raise InterruptedError(errno.EINTR, "a signal")
        return kvm(file, request, argument)

    monkeypatch.setattr(probe.fcntl, "ioctl", ioctl)
    assert _attempted(probe).error == "entry failed, hardware error 0x0"


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGTERM, "SIGTERM"), (signal.SIGSYS, "SIGSYS")]
)
def test_a_child_that_is_killed_settles_nothing(
    probe: Any, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    def enter(_prepare: Any, say: Any) -> None:
        say(started=True)
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(probe, "enter", enter)
    entry = _attempted(probe)
    assert (entry.failure, entry.started, entry.ok) == ("killed", True, False)
    assert f"killed by {name}" in entry.error and entry.seconds < 5


@pytest.mark.parametrize("started", [True, False])
def test_silence_is_a_timeout_and_tells_how_busy_it_was(
    probe: Any, monkeypatch: pytest.MonkeyPatch, started: bool
) -> None:
    def enter(_prepare: Any, say: Any) -> None:
        say(started=started)
        time.sleep(60)

    monkeypatch.setattr(probe, "enter", enter)
    entry = _attempted(probe, 0.3)
    doing = "KVM_RUN" if started else "setting up the guest"
    assert entry.failure == "timeout"
    assert entry.error == f"{doing} did not end in 0.3 s (killed; 0.0 s of them on the processor)"


@pytest.mark.parametrize(
    ("error", "failure", "words"),
    [
        (ImportError("No module named 'ctypes'"), "tool", "ImportError: No module named 'ctypes'"),
        (MemoryError(), "resource", "out of memory"),
        (AttributeError("no such thing"), "tool", "AttributeError"),
        (SystemExit(3), "tool", "SystemExit"),
    ],
)
def test_a_fault_of_the_probe_is_its_own(
    probe: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, failure: str, words: str
) -> None:
    def enter(_prepare: Any, _say: Any) -> None:
        raise error

    monkeypatch.setattr(probe, "enter", enter)
    entry = _attempted(probe)
    assert entry.failure == failure and words in entry.error


@pytest.mark.parametrize(("call", "number"), [("fork", errno.EAGAIN), ("pipe", errno.EMFILE)])
def test_a_child_that_cannot_be_started_is_told(
    probe: Any, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(probe.os, call, _fails(number))
    entry = _attempted(probe)
    assert entry.failure == "resource" and errno.errorcode[number] in entry.error


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (errno.ENOENT, "absent"),
        (errno.ENODEV, "absent"),
        (errno.ENXIO, "absent"),
        (errno.EACCES, "permission"),
        (errno.EPERM, "permission"),
        (errno.EMFILE, "resource"),
        (errno.EIO, "system"),
    ],
)
def test_a_device_that_does_not_open_says_why(
    probe: Any, device: Path, monkeypatch: pytest.MonkeyPatch, number: int, failure: str
) -> None:
    monkeypatch.setattr(probe.os, "open", _fails(number))
    node = Device.model_validate(probe.device())
    assert (node.exists, node.opened, node.failure) == (True, False, failure)
    assert errno.errorcode[number] in node.error and node.absent == (failure == "absent")


def test_a_device_that_is_no_kvm_is_no_word_of_kvms(probe: Any, device: Path) -> None:
    node = Device.model_validate(probe.device())
    assert node.opened and node.failure == "system" and "ENOTTY" in node.error


def test_another_version_of_kvm_is_beyond_the_probe(
    probe: Any, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.fcntl, "ioctl", lambda *_: 13)
    node = Device.model_validate(probe.device())
    assert (node.failure, node.error) == ("tool", "KVM API version 13, and the probe knows 12")
