"""VT-x and AMD-V without either: KVM and lab's probes on processors that Bochs and QEMU emulate.

Three PCs boot at once: Intel's Haswell, Intel's Prescott that has no VT-x, and AMD's. Each has a disk of its
own, and all have one system disk. Lab's own rungs judge what they say.
"""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab.config.loading import PROJECT
from lab.core import files
from lab.core.deadline import Deadline, poll
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError
from lab.host import facts
from lab.ladder.facts import Facts
from lab.ladder.rungs import guest
from lab.ladder.site import Site
from lab.probes.kvm import CpuFacts, KvmFacts, parse_probe
from lab.rehearsal import models
from lab.rehearsal.bochs import BochsPc, disk_bytes
from lab.rehearsal.pc import DISK, SYSTEM, PcSpec, powered
from lab.rehearsal.process import find
from lab.rehearsal.program import ProgramPc
from lab.rehearsal.qemu import QemuPc
from tests.integration.tinypc import TinyLinux, built

pytestmark = [
    pytest.mark.skipif(
        (platform.system(), platform.machine()) != ("Linux", "x86_64")
        or not all(map(shutil.which, ("bochs", "qemu-system-x86_64"))),
        reason="needs Bochs and QEMU on Linux, whose Python builds the PC's",
    ),
    pytest.mark.slow,
]

_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 rdinit=/init lab-disks mitigations=off tsc=reliable no5lvl"
    " cryptomgr.notests=1 initcall_blacklist=jent_mod_init,trace_eval_init"  # 2 s for nothing here
)
_SPEED = 20_000_000  # this guest waits more than it counts time
_BOOT_SECONDS = 400.0  # 30 s of processor time
_INTEL, _WITHOUT, _AMD = "haswell", "prescott", "amd"
_MODULES = {_INTEL: "kvm_intel", _AMD: "kvm_amd"}
_TEXTS = {SYSTEM: "all of it is here", DISK: "nothing was done"}
_STARTS = """
import sys
from pathlib import Path
from lab.core.deadline import Deadline
from lab.rehearsal.bochs import BochsPc
from lab.rehearsal.pc import PcSpec
mark, folder, kernel, initramfs = sys.argv[1:]
spec = PcSpec(mark, Path(folder), "haswell", 512, Path(kernel), Path(initramfs), "quiet")
pc = BochsPc(spec)
pc.start()
print("started", flush=True)
pc.wait(Deadline.after(600))
"""


@dataclass
class Told:
    """What a PC said on its serial port, what sockets its process had while it ran, and its disks then."""

    lines: list[str]
    files: dict[str, bytes]
    answers: dict[str, str]
    disks: list[str]
    sockets: list[str]
    spec: PcSpec

    def kvm(self, when: str) -> KvmFacts:
        return KvmFacts(
            probe=parse_probe(self.answers[f"{when}.probe"]),
            facts=CpuFacts.model_validate_json(self.answers[f"{when}.facts"]),
        )


@pytest.fixture(scope="module")
def linux() -> TinyLinux:
    return built()


@pytest.fixture(scope="module")
def told(linux: TinyLinux, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """What each PC told, by its processor."""
    lines: dict[str, list[str]] = {name: [] for name in (_AMD, _INTEL, _WITHOUT)}
    sockets: dict[str, list[str]] = {name: [] for name in lines}
    with contextlib.ExitStack() as stack:
        system = _disk(tmp_path_factory.mktemp("system"), SYSTEM)
        before = files.sha256(system)
        specs = {name: _spec(linux, tmp_path_factory.mktemp(name), name, system) for name in lines}
        for name, pc in [(name, stack.enter_context(powered(_pc(spec)))) for name, spec in specs.items()]:

            def hear(line: str, pc: ProgramPc = pc, name: str = name) -> None:
                lines[name].append(line)
                sockets[name] += _sockets(pc)

            pc.wait(Deadline.after(_BOOT_SECONDS), hear)
            assert not pc.running()
    assert files.sha256(system) == before, "all of them wrote there"
    return {name: _read(lines[name], sockets[name], specs[name]) for name in lines}


def _disk(folder: Path, model: str) -> Path:
    """A disk with a text at its beginning."""
    path = folder / f"{model}, as it is"
    path.write_text(f"{_TEXTS[model]}\n")
    os.truncate(path, disk_bytes(16 << 20))
    return path


def _spec(linux: TinyLinux, folder: Path, cpu: str, system: Path | None = None) -> PcSpec:
    disks = {"system": system or _disk(folder, SYSTEM), "disk": _disk(folder, DISK)}
    boots = (linux.kernel, linux.initramfs, _COMMAND_LINE)
    return PcSpec(str(uuid.uuid4()), folder / "a b", cpu, 512, *boots, **disks)


def _pc(spec: PcSpec) -> ProgramPc:
    return QemuPc(spec) if spec.cpu == _AMD else BochsPc(spec, instructions_per_second=_SPEED)


def _sockets(pc: ProgramPc) -> list[str]:
    """All that its process has open and is a socket, of whatever kind."""
    process = find(pc.spec.folder / "process.json", pc.sign)
    links = [] if process is None else Path(f"/proc/{process.pid}/fd").iterdir()
    with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
        return [target for link in links if (target := str(link.readlink())).startswith("socket:")]
    return []


def _read(lines: list[str], sockets: list[str], spec: PcSpec) -> Told:
    assert "lab-end" in lines, lines[-20:]
    words = [line.split(" ", 2) for line in lines]
    return Told(
        lines,
        {word[1]: base64.b64decode(word[2]) for word in words if word[0] == "lab-file"},
        {word[1]: word[2] for word in words if word[0] == "lab-answer"},
        [f"{word[1]}: {word[2]}" for word in words if word[0] == "lab-disk"],
        sockets,
        spec,
    )


def _site(told: Told, when: str) -> Site:
    """Where the rungs look: all they ask is answered by the probes."""
    host: Any = None
    tools: Any = None
    return Site(host, tools, None, Path("/nowhere"), 1.0, 1.0, facts=Facts(guest=told.kvm(when)))


@pytest.mark.parametrize(("name", "observed"), [(_INTEL, "vmx, nested paging"), (_AMD, "svm, nested paging")])
def test_a_processor_with_vt_x_or_amd_v_passes_both_rungs(
    told: dict[str, Told], name: str, observed: str
) -> None:
    site = _site(told[name], "after")
    cpu, kvm = guest.cpu(site), guest.kvm(site)
    assert (cpu.ok, cpu.observed) == (True, observed)
    assert (kvm.ok, kvm.observed) == (True, "real mode: runs; long mode: runs")
    assert site.kvm is not None
    assert site.kvm.probe.real_mode is not None and site.kvm.probe.long_mode is not None
    assert site.kvm.probe.real_mode.exits == site.kvm.probe.long_mode.exits == ["io", "io", "hlt"]
    assert models.processor(name).extension == {"vmx": "VT-x", "svm": "AMD-V"}[observed[:3]]


def test_what_kvm_has_of_each(told: dict[str, Told]) -> None:
    intel, amd = (told[name].kvm("after").facts for name in (_INTEL, _AMD))
    assert (
        intel.modules["kvm_intel"].items() >= {"nested": "Y", "ept": "Y", "unrestricted_guest": "Y"}.items()
    )
    assert amd.modules["kvm_amd"].items() >= {"nested": "1", "npt": "Y"}.items()
    assert "Haswell" in intel.cpu.model or "i7-4770" in intel.cpu.model
    assert "QEMU" in amd.cpu.model


@pytest.mark.parametrize("name", [_INTEL, _AMD])
def test_before_its_module_is_loaded_the_rung_is_blocked_and_refutes_nothing(
    told: dict[str, Told], name: str
) -> None:
    site = _site(told[name], "before")
    assert guest.cpu(site).ok
    with pytest.raises(BlockedError, match=f"has not loaded {_MODULES[name]}"):
        guest.kvm(site)


def test_an_intel_processor_without_vt_x_fails_both_rungs_in_the_kernels_word(told: dict[str, Told]) -> None:
    site = _site(told[_WITHOUT], "after")
    cpu, kvm = guest.cpu(site), guest.kvm(site)
    assert (cpu.ok, cpu.observed) == (False, "neither vmx nor svm")
    assert not kvm.ok and "ENOENT" in kvm.observed
    assert site.kvm is not None and "kvm_intel" not in site.kvm.facts.modules
    assert "lab-refused kvm_intel.ko" in told[_WITHOUT].lines
    assert any("VMX not supported by CPU" in line for line in site.kvm.facts.kernel_lines or [])
    assert not models.processor(_WITHOUT).extension


@pytest.mark.parametrize(
    ("name", "signature", "vendor"),
    [
        (_INTEL, "", "GenuineIntel"),
        (_WITHOUT, "", "GenuineIntel"),
        (_AMD, "TCGTCGTCGTCG", "AuthenticAMD"),
    ],
)
def test_an_emulated_pc_is_never_taken_for_a_real_one(
    told: dict[str, Told], name: str, signature: str, vendor: str, tmp_path: Path
) -> None:
    """As lab reads the host it runs on: Bochs' have no hypervisor's signature to betray them."""
    for path, content in told[name].files.items():
        target = tmp_path / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    assert told[name].kvm("after").facts.cpu.hypervisor == signature
    cpu = replace(facts.read(tmp_path).cpu, signature=signature)
    assert (cpu.vendor, cpu.hypervisor) == (vendor, bool(signature))
    assert ("QEMU" if name == _AMD else "Bochs") in cpu.board
    assert cpu.emulated is (True if name == _AMD else None)


@pytest.mark.parametrize("name", [_INTEL, _WITHOUT, _AMD])
def test_nothing_of_it_listens_nor_is_connected(told: dict[str, Told], name: str) -> None:
    assert len(told[name].lines) > 8, "it was looked at while it ran"
    assert told[name].sockets == []


@pytest.mark.parametrize("name", [_INTEL, _WITHOUT, _AMD])
def test_it_has_two_disks_and_changes_but_its_own(told: dict[str, Told], name: str) -> None:
    pc = told[name]
    assert pc.spec.disk
    assert sorted(pc.disks) == sorted(
        f"{disk}: {text}" for disk in _TEXTS for text in (_TEXTS[disk], f"written by the PC on {disk}")
    )
    assert pc.spec.disk.read_bytes().startswith(f"written by the PC on {DISK}\n".encode())
    assert not [path for path in pc.spec.folder.iterdir() if path.stat().st_size > 64 << 20]
    assert max(path.lstat().st_size for path in pc.spec.folder.iterdir() if path.name != "boot.iso") < 1 << 20


def test_a_restart_and_a_kill_of_qemu_are_no_good_ends(linux: TinyLinux, tmp_path: Path) -> None:
    spec = _spec(linux, tmp_path, _AMD)
    panics = QemuPc(replace(spec, command_line="console=ttyS0 panic=-1 rdinit=/nowhere"))
    with pytest.raises(InconclusiveError, match="restarted") as restarted, powered(panics):
        panics.wait(Deadline.after(_BOOT_SECONDS))
    assert "Kernel panic" in panics.serial.read_text()
    assert str(panics.serial) in restarted.value.evidence
    for number, why in ((signal.SIGTERM, "QEMU calls it host-signal"), (signal.SIGKILL, "killed by SIGKILL")):
        with pytest.raises(InconclusiveError, match=why), powered(QemuPc(spec)) as pc:
            process = find(pc.spec.folder / "process.json", pc.sign)
            assert process is not None
            poll(
                lambda: '"return"' in pc.text(pc.output) or None,
                Deadline.after(20),
                "QEMU's answer",
                every=0.05,
            )
            process.send_signal(number)
            pc.wait(Deadline.after(20))


@pytest.fixture
def other(linux: TinyLinux, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], BochsPc]]:
    """Another process of lab that has just started a PC, and that PC as this process sees it."""
    mark = str(uuid.uuid4())
    child = subprocess.Popen(
        [sys.executable, "-c", _STARTS, mark, tmp_path, linux.kernel, linux.initramfs],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    pc = BochsPc(PcSpec(mark, tmp_path, "haswell", 512, linux.kernel, linux.initramfs, "quiet"))
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    assert pc.running()
    yield child, pc
    child.kill()
    child.communicate()
    pc.end()


def test_none_is_left_when_lab_is_killed(other: tuple[subprocess.Popen[str], BochsPc]) -> None:
    child, pc = other
    child.send_signal(signal.SIGKILL)
    poll(lambda: True if not pc.running() else None, Deadline.after(5), "the PC's end", every=0.1)


def test_another_command_knows_it_and_ends_it(other: tuple[subprocess.Popen[str], BochsPc]) -> None:
    child, pc = other
    (pc.spec.folder / "process.json").unlink()  # as after a crash that came before it
    assert pc.running()
    pc.end()
    assert not pc.running()
    assert child.wait(10) != 0, "who waited for it has an error to tell"


def test_a_deadline_ends_it_and_says_its_last_words(linux: TinyLinux, tmp_path: Path) -> None:
    pc = _pc(_spec(linux, tmp_path, _INTEL))
    with pytest.raises(DeadlineError, match="did not happen in 2 s") as caught, powered(pc):
        process = find(pc.spec.folder / "process.json", pc.sign)
        assert process is not None
        try:
            pc.wait(Deadline.after(2))
        finally:
            opened = {entry.path: entry.mode for entry in process.open_files()}
    assert not pc.running()
    assert (opened[str(pc.spec.system)], opened[str(pc.spec.disk)]) == ("r", "r+")
    assert "Bochs x86 Emulator" in caught.value.tail
    assert str(pc.spec.folder / "bochs.log") in caught.value.evidence
    assert pc.facts().processor == "corei7_haswell_4770"
