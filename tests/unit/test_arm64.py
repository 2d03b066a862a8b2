"""arm64 machines: what decides there in the place of vmx and svm, and what L2 must say of KVM."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lab.core.errors import BlockedError, InconclusiveError
from lab.core.journal import Journal
from lab.core.steps import Steps
from lab.emulators.canary import Canary
from lab.emulators.docker_android import DockerAndroid
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.options import Place
from lab.engines.attached import words
from lab.engines.attached.link import MachineFacts
from lab.guest import trial
from lab.host.cpu import EL2, parse_cpuinfo
from lab.host.facts import HostFacts
from lab.images.canary_recipe import ARM
from lab.ladder import report
from lab.ladder.document import CellEntry
from lab.ladder.rungs import guest, host, nested
from lab.ladder.site import Site
from lab.model.domain import Cell, Claim, Host, Nesting, Verdict
from lab.probes.kvm import SMCCC_SIGNATURE, KvmFacts, script
from lab.reports import wording
from tests.unit import canaries, probed
from tests.unit.sites import GOOD, FakeEmulator, host_of, site_of

_STARTED = "[    0.021000] CPU: All CPU(s) started at EL2"
_VHE = "[    0.150000] kvm [1]: VHE mode initialized successfully"
_MAX = "processor : 0\nCPU implementer\t: 0x00\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0x051\n"
_ABSENT = {"exists": False, "opened": False, "api_version": None, "failure": "absent", "error": "no /dev/kvm"}


def _site(el2: bool | None = True, lines: Any = (_STARTED, _VHE), probe: Any = None, **facts: Any) -> Site:
    cpu = {"model": "", "count": 2, "flags": [], "nested_paging": None, "hypervisor": None, "el2": el2}
    document = {
        "probe": probe or probed.kvm_probe(real_mode=None, long_mode=None, el1=probed.kvm_entry()),
        "facts": probed.cpu_facts(
            machine="aarch64",
            cpu=cpu,
            clocksource="arch_sys_counter",
            kernel_lines=None if lines is None else list(lines),
            modules={"kvm": {}},
            **facts,
        ),
    }
    site = site_of(FakeEmulator())
    site.facts.guest = KvmFacts.model_validate(document)
    return site


def _cpu_facts(log: list[str] | None, misc: str = "") -> dict[str, Any]:
    """What cpu_facts.py would make of a kernel's log on arm64."""
    module = ModuleType("cpu_facts")
    exec(script("cpu_facts.py"), vars(module))  # noqa: S102 - lab's own
    module.__dict__["os"] = type("Os", (), {"uname": lambda: type("Uname", (), {"machine": "aarch64"})})
    module.__dict__["read"] = lambda path: misc if path == "/proc/misc" else ""
    return {"el2": module.__dict__["el2"](log or []), "signature": module.__dict__["signature"](log or [])}


@pytest.mark.parametrize(
    ("log", "misc", "el2"),
    [
        ([_STARTED], "", True),
        (["[    0.021000] CPU: All CPU(s) started at EL1"], "", False),
        (["[    0.021000] CPU: All CPU(s) started at EL1"], "232 kvm", False),
        (None, "232 kvm", True),  # a log that may not be read, and a driver that is there
        (None, "130 watchdog", None),
        ([], "", None),
    ],
)
def test_the_kernel_says_in_which_level_it_was_started(log: Any, misc: str, el2: bool | None) -> None:
    assert _cpu_facts(log, misc)["el2"] is el2


def test_only_kvms_answer_to_the_kernel_is_its_signature() -> None:
    services = (
        "[    0.1] smccc: KVM: hypervisor services detected (0x00000000 0x00000000 0x00000000 0x00000003)"
    )
    assert _cpu_facts([services])["signature"] == SMCCC_SIGNATURE
    other = ["[    0.1] psci: SMC Calling Convention v1.1", _VHE, "[    0.1] Machine model: linux,dummy-virt"]
    assert _cpu_facts(other)["signature"] is None


def test_cpu_is_the_level_that_the_kernel_was_started_in() -> None:
    seen = guest.cpu(_site())
    assert seen.ok and seen.observed == "EL2; the kernel says: VHE mode initialized successfully"
    seen = guest.cpu(_site(el2=False, lines=["CPU: All CPU(s) started at EL1"]))
    assert not seen.ok and "EL1" in seen.observed


@pytest.mark.parametrize(("lines", "words"), [(None, "may not be read"), ([], "no longer has it")])
def test_an_unknown_level_settles_nothing(lines: Any, words: str) -> None:
    with pytest.raises(InconclusiveError, match=words):
        guest.cpu(_site(el2=None, lines=lines))


def test_kvm_is_one_guest_in_el1() -> None:
    seen = guest.kvm(_site())
    assert (seen.ok, seen.observed) == (True, "EL1: runs") and "entered in EL1" in seen.expected
    bad = probed.kvm_entry(ok=False, error="KVM internal error, suberror 1")
    seen = guest.kvm(_site(probe=probed.kvm_probe(real_mode=None, long_mode=None, el1=bad)))
    assert not seen.ok and "suberror" in seen.observed
    silent = probed.kvm_entry(ok=False, failure="system", error="KVM_ARM_VCPU_INIT: EINVAL")
    with pytest.raises(InconclusiveError, match="KVM_ARM_VCPU_INIT"):
        guest.kvm(_site(probe=probed.kvm_probe(real_mode=None, long_mode=None, el1=silent)))


def _without_device(lines: list[str], **facts: Any) -> Site:
    device = probed.kvm_probe()["device"] | _ABSENT
    return _site(lines=lines, probe=probed.kvm_probe(device=device, real_mode=None, long_mode=None), **facts)


def test_a_missing_device_is_evidence_by_the_kernels_word_alone() -> None:
    seen = guest.kvm(_without_device(["[    0.1] kvm [1]: HYP mode not available"]))
    assert not seen.ok and seen.observed.endswith("HYP mode not available")
    with pytest.raises(BlockedError, match="disabled from command line"):
        guest.kvm(_without_device(["[    0.1] kvm [1]: KVM disabled from command line"]))
    with pytest.raises(InconclusiveError):
        guest.kvm(_without_device([_STARTED]))
    site = _without_device([_STARTED])
    assert site.facts.guest
    site.facts.guest = site.facts.guest.model_copy(
        update={"facts": site.facts.guest.facts.model_copy(update={"modules": {}})}
    )
    with pytest.raises(BlockedError, match="built without KVM"):
        guest.kvm(site)


_ARM = replace(GOOD, hypervisor=SMCCC_SIGNATURE, clocksource="arch_sys_counter")


@pytest.mark.parametrize(
    ("proof", "ok"), [(_ARM, True), (replace(_ARM, hypervisor=""), False), (GOOD, False)]
)
def test_l2_says_by_its_kernel_that_kvm_runs_it(proof: Any, ok: bool) -> None:
    site = _site()
    site.emulator = FakeEmulator(inside=proof, outside=proof)  # type: ignore[assignment]
    assert nested.boot(site).ok is ok
    if ok:
        assert nested.adb(site).ok and SMCCC_SIGNATURE in nested.boot(site).expected


def test_arm64s_word_is_none_on_x86_and_another_clock_settles_nothing() -> None:
    assert not nested.boot(site_of(FakeEmulator(inside=_ARM))).ok
    site = _site()
    site.emulator = FakeEmulator(inside=replace(_ARM, clocksource="jiffies"))  # type: ignore[assignment]
    with pytest.raises(InconclusiveError, match="not arch_sys_counter"):
        nested.boot(site)


def test_paravirt_is_what_the_kernel_heard() -> None:
    assert not guest.paravirt(_site()).ok
    with pytest.raises(InconclusiveError):
        guest.paravirt(_site(lines=None))


@pytest.mark.parametrize(
    ("cpuinfo", "model", "emulated"),
    [
        (_MAX, "QEMU TCG max", True),
        ("CPU implementer : 0x41\nCPU part : 0xd0c\n", "Arm, part 0xd0c", None),
        ("CPU implementer : 0x61\nCPU part : 0x000\n", "Apple, part 0x000", False),
        ("CPU implementer : 0x7f\nCPU part : 0x1\n", "implementer 0x7f, part 0x001", None),
        ("CPU implementer : what\nCPU part : 0x1\n", "", None),
    ],
)
def test_a_processor_without_a_name_has_its_makers(cpuinfo: str, model: str, emulated: bool | None) -> None:
    cpu = parse_cpuinfo(cpuinfo)
    assert (cpu.model, cpu.emulated) == (model, emulated)


def test_under_kvm_it_is_as_real_as_on_x86() -> None:
    assert replace(parse_cpuinfo(_MAX.replace("0x051", "0x052")), signature=SMCCC_SIGNATURE).emulated is False


def _machine(cpuinfo: str, word: str, signature: str | None = None) -> MachineFacts:
    cpu = replace(parse_cpuinfo(cpuinfo), extensions=(EL2,), signature=signature)
    facts = HostFacts("Debian", "13", "6.12", "aarch64", cpu, 4, 8 << 30, 4 << 30, "boot")
    return MachineFacts(host=facts.as_dict(), virtualization=word, under=words.under(signature, word, facts))


@pytest.mark.parametrize(
    ("cpuinfo", "word", "signature", "described", "acceleration", "nesting"),
    [
        (_MAX, "qemu", None, "a VM under QEMU's emulation", "tcg", "emulated"),
        ("CPU implementer : 0x61\nCPU part : 0x0", "apple", None, "a VM under Apple", "apple", "hardware"),
        # QEMU under macOS says no more than its name.
        ("CPU implementer : 0x61\nCPU part : 0x0", "qemu", None, "a VM under QEMU", "qemu", "hardware"),
        (
            "CPU implementer : 0x41\nCPU part : 0xd0c",
            "kvm",
            SMCCC_SIGNATURE,
            "a VM under KVM",
            "kvm",
            "hardware",
        ),
        ("CPU implementer : 0x41\nCPU part : 0xd0c", "none", None, "bare metal", "bare metal", "none"),
    ],
)
def test_what_an_arm64_machine_is(
    cpuinfo: str, word: str, signature: str | None, described: str, acceleration: str, nesting: str
) -> None:
    facts = _machine(cpuinfo, word, signature)
    assert words.described(facts) == described
    assert (words.acceleration(facts), words.nesting(facts)) == (acceleration, nesting)


def test_the_hosts_processor_is_told_by_el2() -> None:
    site = site_of(FakeEmulator())
    cpu = replace(parse_cpuinfo(_MAX), extensions=(EL2,))
    site.host = replace(host_of(), arch="aarch64", cpu=cpu)
    assert host.cpu(site).ok and host.cpu(site).observed == "QEMU TCG max: el2"
    site.host = replace(site.host, cpu=replace(cpu, extensions=()))
    assert not host.cpu(site).ok and "no EL2" in host.cpu(site).observed


def _cell(**changes: Any) -> Cell:
    members: dict[str, Any] = {
        "host": Host("linux", "Debian 13", "6.12", "QEMU TCG max"),
        "engine": "attached",
        "engine_version": "",
        "acceleration": "tcg",
        "nesting": Nesting.EMULATED,
        "emulated": True,
        "paravirt": "unknown",
        "image": "as found",
        "emulator": "canary",
        "architecture": "aarch64",
    }
    return Cell(**members | changes)


def test_a_claim_on_arm64_has_its_right_name_and_says_what_it_does_not_prove() -> None:
    cell = _cell()
    assert report.named(Claim.NESTING, cell) == "arm64 nesting"
    bare = _cell(acceleration="bare metal", nesting=Nesting.NONE, emulated=None)
    assert report.named(Claim.NESTING, bare) == "arm64 kvm in a container"
    assert wording.said(Claim.NESTING, cell) == "arm64 KVM works in a container in the VM"
    assert any("x86 guests" in gap for gap in report.limits(cell, Claim.NESTING, Verdict.CONFIRMED))
    assert "QEMU TCG max, arm64" in report.describe(cell)
    x86 = _cell(architecture="")
    assert report.named(Claim.NESTING, x86) == "nesting"
    assert not any("x86 guests" in gap for gap in report.limits(x86, Claim.NESTING, Verdict.CONFIRMED))


def test_the_document_says_the_architecture_where_it_is_no_x86() -> None:
    written = CellEntry.model_validate(dataclasses.asdict(_cell())).model_dump(mode="json")
    assert written["architecture"] == "aarch64"
    assert "architecture" not in CellEntry.model_validate(
        dataclasses.asdict(_cell(architecture=""))
    ).model_dump(mode="json")


@pytest.mark.parametrize(("arm64", "machine", "name"), [(False, 62, "amd64"), (True, 183, "arm64")])
def test_the_containers_own_program_is_of_the_machines_kind(arm64: bool, machine: int, name: str) -> None:
    image = trial.image("lab-proof:1", "lab-container-1", arm64=arm64)
    assert probed.word_in(image) == "lab-container-1"
    with tarfile.open(fileobj=BytesIO(image)) as archive:
        config = next(
            member for member in archive if member.name.endswith(".json") and "manifest" not in member.name
        )
        described = json.loads(archive.extractfile(config).read())  # type: ignore[union-attr]
    assert described["architecture"] == name
    assert probed.program_in(image)[18] == machine


def test_the_canary_there_is_one_for_arm64(tmp_path: Path) -> None:
    x86 = canaries.built(tmp_path, ARM)
    assert x86.image_id() == "canary (not built)"
    assert Canary(canaries.place(tmp_path, arm64=True)).image_id() == "canary-arm64@sha256:1"


def test_docker_android_is_for_x86(tmp_path: Path) -> None:
    place = Place("uuid", tmp_path, tmp_path, tmp_path, Journal(tmp_path / "journal"), arm64=True)
    emulator = DockerAndroid(place, AndroidOptions())
    with pytest.raises(BlockedError, match="arm64"), Steps().step("emulator.prepare") as step:
        emulator.prepare(step)
