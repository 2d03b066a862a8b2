"""lab.host.kvm: refusals, what is remembered, and for how long."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from lab.host import kvm
from lab.probes.kvm import Probe
from tests.unit.fakes import kvm_entry, kvm_probe


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Linux host whose QEMU, device and modules are files of ours."""
    monkeypatch.setattr(kvm.platform, "system", lambda: "Linux")
    monkeypatch.setattr(kvm.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
    monkeypatch.setattr(kvm, "MODULES", tmp_path / "modules")
    monkeypatch.setattr(kvm, "_tiny_entries", lambda: None)
    monkeypatch.setattr(kvm, "_identity", lambda qemu: {"boot_id": "1", "host_kernel": "k", "qemu": "q"})
    (tmp_path / "kvm").touch()
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    qemu = tmp_path / "qemu"
    qemu.write_text("#!/bin/sh\n")
    qemu.chmod(qemu.stat().st_mode | stat.S_IXUSR)
    return tmp_path


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How often a kernel was booted; the answer is the list's last text (empty: it booted)."""
    asked: list[str] = []
    monkeypatch.setattr(kvm, "boot", lambda *_: asked.append("x") or ANSWERS.get("now", ""))
    ANSWERS.clear()
    return asked


ANSWERS: dict[str, str] = {}


def _probe(host: Path, fresh: bool = False) -> kvm.KvmAnswer:
    return kvm.functional_probe(host / "cache", fresh=fresh, kernel=host / "vmlinuz", qemu=str(host / "qemu"))


def test_answer_is_kept_for_this_boot_this_kernel_and_this_qemu(
    host: Path, boots: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _probe(host)
    assert first.usable
    assert _probe(host) == first
    assert len(boots) == 1
    for changed in ("boot_id", "host_kernel", "qemu"):
        key = {"boot_id": "1", "host_kernel": "k", "qemu": "q"} | {changed: "other"}
        monkeypatch.setattr(kvm, "_identity", lambda qemu, key=key: key)
        _probe(host)
    assert len(boots) == 4
    _probe(host, fresh=True)
    assert len(boots) == 5


def test_negative_answer_is_kept_too_with_its_reason(host: Path, boots: list[str]) -> None:
    ANSWERS["now"] = "a kernel booted under it does not reach user space in 20 s"
    assert not _probe(host).usable
    ANSWERS["now"] = ""
    again = _probe(host)
    assert not again.usable
    assert "does not reach user space" in again.why
    assert _probe(host, fresh=True).usable


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
def test_only_what_will_fail_again_is_kept(host: Path, boots: list[str], failure: str, kept: bool) -> None:
    ANSWERS["now"] = failure
    answer = _probe(host)
    assert not answer.usable and answer.why.startswith("not proven") is not kept
    ANSWERS["now"] = ""
    assert _probe(host).usable is not kept


@pytest.mark.parametrize(
    ("failure", "kept"),
    [("kvm", True), ("timeout", True), ("resource", False), ("killed", False), ("tool", False)],
)
def test_a_tiny_guest_that_failed_by_itself_is_no_lasting_answer(
    host: Path, boots: list[str], monkeypatch: pytest.MonkeyPatch, failure: str, kept: bool
) -> None:
    entry = kvm_entry(False, failure=failure, error="it failed")
    probed = Probe.model_validate(kvm_probe(real_mode=entry, long_mode=entry))
    monkeypatch.setattr(kvm, "_tiny_entries", lambda: probed)
    answer = _probe(host)
    assert not answer.usable and "it failed" in answer.why
    assert answer.why.startswith("not proven") is not kept
    monkeypatch.setattr(kvm, "_tiny_entries", lambda: None)
    assert _probe(host).usable is not kept


def test_damaged_memory_of_an_answer_is_no_answer(host: Path, boots: list[str]) -> None:
    _probe(host)
    (kept,) = (host / "cache").iterdir()
    whole = kept.read_text()
    for text in (
        "",
        "[]",
        whole[:40],
        json.dumps({"usable": True}),
        whole.replace('"usable": true', '"usable": "perhaps"'),
    ):
        kept.write_text(text)
        _probe(host)
    assert len(boots) == 6


def test_without_a_kernel_it_is_not_proven_and_asked_again(
    host: Path, boots: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kvm, "host_kernel", lambda: None)
    answer = kvm.functional_probe(host / "cache", qemu=str(host / "qemu"))
    assert not answer.usable
    assert "not proven" in answer.why
    assert _probe(host).usable, "a kernel that came later is used"


def test_refusals_are_not_remembered(host: Path, boots: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (host / "kvm").unlink()
    assert _probe(host).why.startswith("there is no")
    (host / "kvm").touch()
    monkeypatch.setattr(kvm.platform, "system", lambda: "Darwin")
    assert "Darwin" in _probe(host).why
    monkeypatch.setattr(kvm.platform, "system", lambda: "Linux")
    allowed = os.access
    monkeypatch.setattr(kvm.os, "access", lambda path, mode: path != kvm.DEVICE and allowed(path, mode))
    assert "may not open" in _probe(host).why
    assert boots == []


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
    host: Path, monkeypatch: pytest.MonkeyPatch, flag: str, module: str, text: str, nested: bool
) -> None:
    (host / "cpuinfo").write_text(f"flags : fpu {flag}\n")
    monkeypatch.setattr(kvm, "CPUINFO", host / "cpuinfo")
    parameters = host / "modules" / module / "parameters"
    parameters.mkdir(parents=True)
    (parameters / "nested").write_text(f"{text}\n")
    assert kvm.nested_parameter() is nested
