"""Intel's VT-x without Intel: kvm_intel and lab's probes on processors that Bochs emulates.

Two PCs boot at once: a Haswell, and a Prescott that has no VT-x. Lab's own rungs judge what they say.
"""

from __future__ import annotations

import base64
import contextlib
import platform
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lab.config.loading import PROJECT
from lab.deadline import Deadline, poll
from lab.errors import BlockedError, DeadlineError
from lab.host import facts
from lab.ladder.rungs import guest
from lab.ladder.site import Site
from lab.probes.kvm import CpuFacts, KvmFacts, parse_probe
from lab.rehearsal import BochsPc, PcSpec, powered
from lab.rehearsal.bochs import disk_bytes
from lab.rehearsal.process import find
from tests.integration.tinypc import TinyLinux, built

pytestmark = [
    pytest.mark.skipif(
        (platform.system(), platform.machine()) != ("Linux", "x86_64") or not shutil.which("bochs"),
        reason="needs Bochs on Linux, whose Python builds the PC's",
    ),
    pytest.mark.slow,
]

_COMMAND_LINE = (
    "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off tsc=reliable no5lvl cryptomgr.notests=1"
    " initcall_blacklist=jent_mod_init,trace_eval_init"  # 2 s for nothing here
)
_SPEED = 20_000_000  # this guest waits more than it counts time
_BOOT_SECONDS = 400.0  # 30 s of processor time
_STARTS = """
import sys
from pathlib import Path
from lab.deadline import Deadline
from lab.rehearsal import BochsPc, PcSpec
mark, folder, kernel, initramfs = sys.argv[1:]
spec = PcSpec(mark, Path(folder), "haswell", 512, Path(kernel), Path(initramfs), "quiet")
pc = BochsPc(spec)
pc.start()
print("started", flush=True)
pc.wait(Deadline.after(600))
"""


@dataclass
class Told:
    """What a PC said on its serial port, and what sockets its process had while it ran."""

    lines: list[str]
    files: dict[str, bytes]
    answers: dict[str, str]
    sockets: list[str] = field(default_factory=list)

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
    lines: dict[str, list[str]] = {"haswell": [], "prescott": []}
    sockets: dict[str, list[str]] = {name: [] for name in lines}
    with contextlib.ExitStack() as stack:
        pcs = {
            name: stack.enter_context(powered(_pc(linux, tmp_path_factory.mktemp(name), name)))
            for name in lines
        }
        for name, pc in pcs.items():

            def hear(line: str, pc: BochsPc = pc, name: str = name) -> None:
                lines[name].append(line)
                sockets[name] += _sockets(pc)

            pc.wait(Deadline.after(_BOOT_SECONDS), hear)
            assert not pc.running()
    return {name: _read(lines[name], sockets[name]) for name in lines}


def _pc(linux: TinyLinux, folder: Path, cpu: str) -> BochsPc:
    spec = PcSpec(str(uuid.uuid4()), folder, cpu, 512, linux.kernel, linux.initramfs, _COMMAND_LINE)
    return BochsPc(spec, instructions_per_second=_SPEED)


def _sockets(pc: BochsPc) -> list[str]:
    """All that its process has open and is a socket, of whatever kind."""
    process = find(pc.spec.folder / "process.json", pc.mark)
    links = [] if process is None else Path(f"/proc/{process.pid}/fd").iterdir()
    with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
        return [target for link in links if (target := str(link.readlink())).startswith("socket:")]
    return []


def _read(lines: list[str], sockets: list[str]) -> Told:
    assert "lab-end" in lines, lines[-20:]
    words = [line.split(" ", 2) for line in lines]
    return Told(
        lines,
        {word[1]: base64.b64decode(word[2]) for word in words if word[0] == "lab-file"},
        {word[1]: word[2] for word in words if word[0] == "lab-answer"},
        sockets,
    )


def _site(told: Told, when: str) -> Site:
    """Where the rungs look: all they ask is answered by the probes."""
    host: Any = None
    tools: Any = None
    return Site(host, tools, None, Path("/nowhere"), 1.0, 1.0, kvm=told.kvm(when))


def test_an_intel_processor_with_vt_x_passes_both_rungs(told: dict[str, Told]) -> None:
    site = _site(told["haswell"], "after")
    cpu, kvm = guest.cpu(site), guest.kvm(site)
    assert (cpu.ok, cpu.observed) == (True, "vmx, nested paging")
    assert (kvm.ok, kvm.observed) == (True, "real mode: runs; long mode: runs")
    assert site.kvm is not None
    assert site.kvm.probe.real_mode is not None and site.kvm.probe.long_mode is not None
    assert site.kvm.probe.real_mode.exits == site.kvm.probe.long_mode.exits == ["io", "io", "hlt"]
    assert (
        site.kvm.facts.modules["kvm_intel"] | {"nested": "Y", "ept": "Y", "unrestricted_guest": "Y"}
        == (site.kvm.facts.modules["kvm_intel"])
    )
    assert "Haswell" in site.kvm.facts.cpu.model or "i7-4770" in site.kvm.facts.cpu.model


def test_before_its_module_is_loaded_the_rung_is_blocked_and_refutes_nothing(told: dict[str, Told]) -> None:
    site = _site(told["haswell"], "before")
    assert guest.cpu(site).ok
    with pytest.raises(BlockedError, match="has not loaded kvm_intel"):
        guest.kvm(site)


def test_an_intel_processor_without_vt_x_fails_both_rungs_in_the_kernels_word(told: dict[str, Told]) -> None:
    site = _site(told["prescott"], "after")
    cpu, kvm = guest.cpu(site), guest.kvm(site)
    assert (cpu.ok, cpu.observed) == (False, "neither vmx nor svm")
    assert not kvm.ok and "ENOENT" in kvm.observed
    assert site.kvm is not None and "kvm_intel" not in site.kvm.facts.modules
    assert "lab-refused kvm_intel.ko" in told["prescott"].lines
    assert any("VMX not supported by CPU" in line for line in site.kvm.facts.kernel_lines or [])


@pytest.mark.parametrize("name", ["haswell", "prescott"])
def test_an_emulated_pc_is_never_taken_for_a_real_one(
    told: dict[str, Told], name: str, tmp_path: Path
) -> None:
    """As lab reads the host it runs on: this one has no hypervisor's signature to betray it."""
    for path, content in told[name].files.items():
        target = tmp_path / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    signature = told[name].kvm("after").facts.cpu.hypervisor
    cpu = replace(facts.read(tmp_path).cpu, signature=signature)
    assert (signature, cpu.vendor, cpu.hypervisor) == ("", "GenuineIntel", False)
    assert "Bochs" in cpu.board
    assert cpu.emulated is not False


@pytest.mark.parametrize("name", ["haswell", "prescott"])
def test_nothing_of_it_listens_nor_is_connected(told: dict[str, Told], name: str) -> None:
    assert len(told[name].lines) > 8, "it was looked at while it ran"
    assert told[name].sockets == []


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
    disk = tmp_path / "a disk.raw"
    with disk.open("wb") as stream:
        stream.truncate(disk_bytes(64 << 20))
    pc = _pc(linux, tmp_path / "a b", "haswell")
    pc.spec = replace(pc.spec, disk=disk)
    with pytest.raises(DeadlineError, match="did not happen in 2 s") as caught, powered(pc):
        process = find(pc.spec.folder / "process.json", pc.mark)
        assert process is not None
        try:
            pc.wait(Deadline.after(2))
        finally:
            opened = [entry.path for entry in process.open_files()]
    assert not pc.running()
    assert str(disk) in opened
    assert "Bochs x86 Emulator" in caught.value.tail
    assert str(pc.spec.folder / "bochs.log") in caught.value.evidence
    assert pc.facts().processor == "corei7_haswell_4770"
