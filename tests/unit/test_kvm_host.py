"""lab.host.kvm: refusals, what is remembered, and for how long."""

from __future__ import annotations

import json
import os
import platform
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.host import kvm
from lab.probes.kvm import Probe
from tests.unit.probed import kvm_entry, kvm_probe

KEY = {"boot_id": "1", "host_kernel": "k", "qemu": "q"}


@dataclass
class Host:
    """A Linux host whose QEMU, device and modules are files of a test's."""

    root: Path
    answer: str = ""
    """What a boot says; empty: it came to user space."""
    boots: int = 0
    key: dict[str, str] = field(default_factory=lambda: dict(KEY))
    entries: Probe | None = None

    def probe(self, *, fresh: bool = False, kernel: bool = True) -> kvm.KvmAnswer:
        return kvm.functional_probe(
            self.root / "cache",
            fresh=fresh,
            kernel=self.root / "vmlinuz" if kernel else None,
            qemu=str(self.root / "qemu"),
            asking=kvm.Asking(self.root, lambda _qemu: self.key, lambda: self.entries, self._boot),
        )

    def _boot(self, *_: object) -> str:
        self.boots += 1
        return self.answer


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\n")
    qemu.chmod(qemu.stat().st_mode | stat.S_IXUSR)
    return Host(tmp_path)


def test_answer_is_kept_for_this_boot_this_kernel_and_this_qemu(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = host.probe()
    assert first.usable
    assert host.probe() == first
    assert host.boots == 1
    for changed in ("boot_id", "host_kernel", "qemu"):
        host.key = KEY | {changed: "other"}
        host.probe()
    assert host.boots == 4
    host.probe(fresh=True)
    assert host.boots == 5


def test_negative_answer_is_kept_too_with_its_reason(host: Host) -> None:
    host.answer = "a kernel booted under it does not reach user space in 20 s"
    assert not host.probe().usable
    host.answer = ""
    again = host.probe()
    assert not again.usable
    assert "does not reach user space" in again.why
    assert host.probe(fresh=True).usable


@pytest.mark.parametrize(
    ("failure", "kept"),
    [
        ("QEMU ended before its guest reached user space: was killed by SIGKILL", False),
        (
            "QEMU ended before its guest reached user space: Cannot allocate memory",
            False,
        ),
        (
            "QEMU ended before its guest reached user space: failed to initialize kvm: Permission denied",
            False,
        ),
        (
            "QEMU ended before its guest: ioctl(KVM_CREATE_VM) failed: 16 Device or resource busy",
            False,
        ),
        ("QEMU ended before its guest reached user space: KVM: entry failed, hardware error 0x0", True),
        ("QEMU ended before its guest reached user space: failed to set MSR 0x10a", True),
        ("a kernel booted under it does not reach user space in 20 s (it said nothing)", True),
    ],
)
def test_only_what_will_fail_again_is_kept(host: Host, failure: str, kept: bool) -> None:
    host.answer = failure
    answer = host.probe()
    assert not answer.usable and answer.why.startswith("not proven") is not kept
    host.answer = ""
    assert host.probe().usable is not kept


@pytest.mark.parametrize(
    ("failure", "kept"),
    [("kvm", True), ("timeout", True), ("resource", False), ("killed", False), ("tool", False)],
)
def test_a_tiny_guest_that_failed_by_itself_is_no_lasting_answer(
    host: Host, monkeypatch: pytest.MonkeyPatch, failure: str, kept: bool
) -> None:
    entry = kvm_entry(False, failure=failure, error="it failed")
    host.entries = Probe.model_validate(kvm_probe(real_mode=entry, long_mode=entry))
    answer = host.probe()
    assert not answer.usable and "it failed" in answer.why
    assert answer.why.startswith("not proven") is not kept
    host.entries = None
    assert host.probe().usable is not kept


def test_damaged_memory_of_an_answer_is_no_answer(host: Host) -> None:
    host.probe()
    (kept,) = (host.root / "cache").iterdir()
    whole = kept.read_text()
    for text in (
        "",
        "[]",
        whole[:40],
        json.dumps({"usable": True}),
        whole.replace('"usable": true', '"usable": "perhaps"'),
    ):
        kept.write_text(text)
        host.probe()
    assert host.boots == 6


def test_without_a_kernel_it_is_not_proven_and_asked_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = host.probe(kernel=False)
    assert not answer.usable
    assert "not proven" in answer.why
    assert host.probe().usable, "a kernel that came later is used"


def test_refusals_are_not_remembered(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (host.root / "dev/kvm").unlink()
    assert host.probe().why.startswith("there is no")
    (host.root / "dev/kvm").touch()
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert "Darwin" in host.probe().why
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).endswith("/kvm") and allowed(path, mode)
    )
    assert "may not open" in host.probe().why
    assert host.boots == 0


@pytest.mark.parametrize(
    ("flag", "module", "text", "nested"),
    [
        ("svm", "kvm_amd", "1", True),
        ("vmx", "kvm_intel", "Y", True),
        ("vmx", "kvm_intel", "N", False),
        ("svm", "kvm_pvm", "1", False),
        ("svm", "kvm_intel", "Y", False),  # the other vendor's, built into the kernel
        ("vmx", "kvm_amd", "1", False),
        ("lm", "kvm_amd", "1", False),
    ],
)
def test_nested_comes_from_the_processors_own_module(
    host: Host, flag: str, module: str, text: str, nested: bool
) -> None:
    (host.root / "proc").mkdir()
    (host.root / "proc/cpuinfo").write_text(f"flags : fpu {flag}\n")
    parameters = host.root / "sys/module" / module / "parameters"
    parameters.mkdir(parents=True)
    (parameters / "nested").write_text(f"{text}\n")
    assert kvm.nested_parameter(host.root) is nested
