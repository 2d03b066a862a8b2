"""The functional KVM probes, run for real on whatever this host is."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from lab.core.deadline import Deadline
from lab.host import kvm
from lab.probes.kvm import CpuFacts, parse_probe, script

pytestmark = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="KVM is Linux's, on x86-64 here"
)
needs_device = pytest.mark.skipif(not os.access(kvm.DEVICE, os.R_OK | os.W_OK), reason="no usable /dev/kvm")
needs_qemu = pytest.mark.skipif(not shutil.which("qemu-system-x86_64"), reason="no qemu-system-x86_64")


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian kernel: the host's own, or one unpacked from the machine's package sources."""
    if own := kvm.host_kernel():
        return own
    if not shutil.which("apt-get"):
        pytest.skip("no readable kernel in /boot, and no apt to fetch one with")
    folder = tmp_path_factory.mktemp("kernel")
    meta = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True)
    names = re.findall(r"Depends: (linux-image-\S+)", meta.stdout)
    if not names:
        pytest.skip("no readable kernel in /boot, and apt knows no linux-image-cloud-amd64")
    fetched = subprocess.run(["apt-get", "download", names[0]], cwd=folder, capture_output=True, text=True)
    if fetched.returncode != 0:
        pytest.skip(f"no kernel to be had: {fetched.stderr[-200:]}")
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "root"], check=True)
    return next((folder / "root/boot").glob("vmlinuz-*"))


def _run_script(name: str, *arguments: str, before: str = "") -> str:
    """A guest script as it runs in the VM: its text piped into Python."""
    text = script(name).replace('if __name__ == "__main__":', f'{before}\nif __name__ == "__main__":')
    done = subprocess.run(
        [sys.executable, "-I", "-", *arguments], input=text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _children() -> set[str]:
    return {child.name() for child in psutil.Process().children(recursive=True)}


def test_cpu_facts_agree_with_what_the_kernel_says() -> None:
    facts = CpuFacts.model_validate_json(_run_script("cpu_facts.py"))
    flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[1].splitlines()[0].split()
    assert facts.kernel == os.uname().release
    assert ("svm" in facts.cpu.flags, "vmx" in facts.cpu.flags) == ("svm" in flags, "vmx" in flags)
    assert (facts.cpu.hypervisor != "") == ("hypervisor" in flags), "the CPUID code must really run"
    assert facts.clocksource in facts.clocksources


@needs_device
def test_tiny_guest_runs_or_its_failure_is_explained() -> None:
    probe = parse_probe(_run_script("kvm_probe.py", "--seconds", "5"))
    assert probe.device.opened
    for mode in (probe.real_mode, probe.long_mode):
        assert mode is not None
        assert mode.ok or mode.error
        if mode.ok:
            assert mode.exits == ["io", "io", "hlt"]


@needs_device
@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("EBFE", "did not end in 1 s"),  # jmp to itself
        ("88D8EEEEF4", "halted after writing"),  # another byte than the one asked for
        ("88D800C8EEF4", "halted after writing"),  # once instead of twice
        ("F4", "halted after writing []"),
    ],
)
def test_guest_that_spins_or_lies_is_not_ok(program: str, error: str) -> None:
    """These are what a false green would look like."""
    working = parse_probe(_run_script("kvm_probe.py", "--seconds", "5"))
    if not working.ok:
        pytest.skip(f"KVM runs no tiny guest here: {working.why}")
    replaced = f'PROGRAM = bytes.fromhex("{program}")'
    probe = parse_probe(_run_script("kvm_probe.py", "--seconds", "1", before=replaced))
    for mode in (probe.real_mode, probe.long_mode):
        assert mode is not None
        assert not mode.ok
        assert error in mode.error
    assert not probe.ok


def test_absent_or_closed_device_is_an_answer(tmp_path: Path) -> None:
    probe = parse_probe(_run_script("kvm_probe.py", before=f"DEVICE = {str(tmp_path / 'kvm')!r}"))
    assert (probe.device.exists, probe.ok, probe.real_mode) == (False, False, None)
    assert "No such file" in probe.why
    (tmp_path / "kvm").touch()
    probe = parse_probe(_run_script("kvm_probe.py", before=f"DEVICE = {str(tmp_path / 'kvm')!r}"))
    assert probe.device.opened, "it opens, and is no KVM"
    assert not probe.ok
    assert "ioctl" in probe.why
    refused = textwrap.dedent("""\
        def refuse(*_):
            raise PermissionError(13, "Permission denied")
        os.open = refuse
        """)
    before = f"DEVICE = {str(tmp_path / 'kvm')!r}\n{refused}"
    probe = parse_probe(_run_script("kvm_probe.py", before=before))
    assert (probe.device.exists, probe.device.opened) == (True, False)
    assert "Permission denied" in probe.why


@needs_qemu
def test_probe_passes_where_a_kernel_reaches_user_space(kernel: Path, tmp_path: Path) -> None:
    """The same probe under emulation, which runs unmodified kernels everywhere."""
    answer = kvm.functional_probe(tmp_path, kernel=kernel, accel="tcg", seconds=180)
    assert answer.usable, answer.why
    assert kvm.functional_probe(tmp_path, kernel=kernel, accel="tcg", seconds=0.1) == answer, "remembered"
    assert not _children() & {"qemu-system-x86_64", "qemu-system-x86"}


@needs_qemu
def test_kernel_without_time_or_without_sense_does_not_pass(kernel: Path, tmp_path: Path) -> None:
    slow = kvm.boot(kernel, "tcg", Deadline.after(0.3))
    assert "does not reach user space" in slow
    broken = tmp_path / "vmlinuz"
    broken.write_bytes(b"not a kernel")
    assert "QEMU ended before" in kvm.boot(broken, "tcg", Deadline.after(30))
    assert not _children() & {"qemu-system-x86_64", "qemu-system-x86"}


@needs_qemu
@needs_device
def test_hardware_answer_comes_in_time_and_leaves_no_process(kernel: Path, tmp_path: Path) -> None:
    """Passes on hosts with a working KVM and on those where it hangs: the answer must be honest."""
    answer = kvm.functional_probe(tmp_path, kernel=kernel, seconds=20)
    assert answer.why
    assert not _children() & {"qemu-system-x86_64", "qemu-system-x86"}
    assert json.loads((tmp_path / "kvm-probe-kvm.json").read_text())["usable"] == answer.usable
    assert answer.usable == (kvm.boot(kernel, "kvm", Deadline.after(20)) == "")
