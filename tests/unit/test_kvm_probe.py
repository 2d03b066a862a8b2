"""The KVM probe as a script: which failure is KVM's own word, and which is not."""

from __future__ import annotations

import ast
import ctypes
import errno
import mmap
import os
import re
import signal
import struct
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.probes.kvm import Device, GuestRun, script


def _load() -> Any:
    module = ModuleType("kvm_probe")
    exec(script("kvm_probe.py"), vars(module))  # noqa: S102 - lab's own
    return module


@pytest.fixture
def probe() -> Any:
    return _load()


def _attempted(probe: Any, seconds: float = 10.0, enter: Any = None) -> GuestRun:
    return GuestRun.model_validate(probe.attempt(enter or probe.real_mode, seconds))


def test_the_script_is_whole_and_no_part_of_it_hides_another() -> None:
    names: list[str] = []
    for node in ast.parse(script("kvm_probe.py")).body:
        assert not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("lab")
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [name.id for name in ast.walk(node) if isinstance(name, ast.Name) and _is_bound(name)]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


def _is_bound(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


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
_BOTH = {
    "KVM_CREATE_VM",
    "KVM_CREATE_VCPU",
    "KVM_GET_VCPU_MMAP_SIZE",
    "KVM_RUN",
    "KVM_SET_USER_MEMORY_REGION",
}
_ARM = {"KVM_CHECK_EXTENSION", "KVM_SET_ONE_REG", "KVM_ARM_VCPU_INIT", "KVM_ARM_PREFERRED_TARGET"}
_X86 = set(_load().REQUESTS) - _BOTH - _ARM - {"KVM_GET_API_VERSION"}
_REQUESTS = [
    *(("real_mode", name) for name in sorted(_BOTH | _X86)),
    *(("el1", name) for name in sorted(_BOTH | _ARM)),
]


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


@pytest.mark.parametrize(("mode", "request_name"), _REQUESTS)
@pytest.mark.parametrize(("number", "failure"), _ERRNOS)
def test_an_errno_is_no_word_of_kvms_and_names_itself(
    probe: Any,
    device: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: str,
    request_name: str,
    number: int,
    failure: str,
) -> None:
    monkeypatch.setattr(probe.fcntl, "ioctl", FakeKvm(probe, tmp_path / "area", request_name, number))
    entry = _attempted(probe, enter=getattr(probe, mode))
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


def _mmio(address: int = 0x9000000, size: int = 1, writing: int = 1) -> bytes:
    return _exit(6, struct.pack("<Q8sIB", address, b"\x07".ljust(8, b"\0"), size, writing))


_OFF = _exit(24, struct.pack("<I", 1))


@pytest.mark.parametrize(
    ("exits", "error"),
    [
        ([_exit(9, struct.pack("<Q", 1))], "entry failed, hardware error 0x1"),
        ([_mmio(), _exit(17, struct.pack("<I", 1))], "KVM internal error, suberror 1"),
        ([_exit(28)], "unexpected exit: arm_nisv"),
        ([_mmio(address=0x1000)], "unexpected exit: mmio"),
        ([_mmio(writing=0)], "unexpected exit: mmio"),
        ([_mmio(size=4)], "unexpected exit: mmio"),
        ([_OFF], r"halted after writing \[\]"),
        ([_mmio(), _OFF], r"halted after writing \[7\]"),
        ([_mmio(), _mmio(), _mmio(), _OFF], r"halted after writing \[7, 7, 7\]"),
        ([_mmio(), _mmio(), _exit(24, struct.pack("<I", 3))], "unexpected exit: system_event"),
        ([_mmio()] * 16, "no halt in 16 exits"),
    ],
)
def test_the_guest_of_arm64_is_judged_as_strictly(
    probe: Any, device: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exits: list[bytes], error: str
) -> None:
    kvm = FakeKvm(probe, tmp_path / "area")
    kvm.exits = exits
    monkeypatch.setattr(probe.fcntl, "ioctl", kvm)
    entry = _attempted(probe, enter=probe.el1)
    assert (entry.ok, entry.failure, entry.started) == (False, "kvm", True)
    assert re.search(error, entry.error)


@pytest.mark.parametrize(("bits", "kind"), [(0, 0), (36, 36), (40, 0), (48, 0)])
def test_a_guest_of_arm64_that_writes_and_powers_off_is_well(
    probe: Any, device: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bits: int, kind: int
) -> None:
    kvm = FakeKvm(probe, tmp_path / "area")
    kvm.exits = [_mmio(), _exit(10), _mmio(), _OFF]
    monkeypatch.setattr(probe.os, "urandom", lambda _: bytes([3, 4]))
    given: dict[str, Any] = {}

    def ioctl(file: int, request: int, argument: Any = 0) -> int:
        name = kvm.names[request]
        if name == "KVM_SET_ONE_REG":
            register, address = struct.unpack("<QQ", argument)
            given[hex(register)] = ctypes.c_uint64.from_address(address).value
        else:
            given[name] = argument
        return bits if name == "KVM_CHECK_EXTENSION" else kvm(file, request, argument)

    monkeypatch.setattr(probe.fcntl, "ioctl", ioctl)
    facts: dict[str, Any] = {}
    probe.el1(facts.update)
    exits = ["mmio", "mmio", "system_event"]
    assert facts == {"started": True, "entered": True, "exits": exits, "exit_reason": 24, "ok": True}
    assert given["KVM_CREATE_VM"] == kind, "fewer than 40 bits of address must be asked for, as on Apple's"
    assert given["KVM_ARM_VCPU_INIT"][4] == 1 << 2, "PSCI answers calls"
    # x1, x2, x3, x4 and the pc, by KVM's numbers of them.
    assert given["0x6030000000100002"] == 3 and given["0x6030000000100004"] == 4
    assert given["0x6030000000100006"] == 0x9000000 and given["0x6030000000100008"] == 0x84000008
    assert given["0x6030000000100040"] == 0x1000


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
def test_a_child_that_is_killed_settles_nothing(probe: Any, number: int, name: str) -> None:
    def enter(say: Any) -> None:
        say(started=True)
        os.kill(os.getpid(), number)
        time.sleep(5)

    entry = _attempted(probe, enter=enter)
    assert (entry.failure, entry.started, entry.ok) == ("killed", True, False)
    assert f"killed by {name}" in entry.error and entry.seconds < 5


@pytest.mark.parametrize("started", [True, False])
def test_silence_is_a_timeout_and_tells_how_busy_it_was(probe: Any, started: bool) -> None:
    def enter(say: Any) -> None:
        say(started=started)
        time.sleep(60)

    entry = _attempted(probe, 0.3, enter)
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
def test_a_fault_of_the_probe_is_its_own(probe: Any, error: BaseException, failure: str, words: str) -> None:
    def enter(_say: Any) -> None:
        raise error

    entry = _attempted(probe, enter=enter)
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
