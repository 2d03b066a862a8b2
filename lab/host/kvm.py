"""May QEMU use hardware KVM on this host? Answered by booting a kernel to user space under it.

/dev/kvm existing, opening, answering its version and even running a few instructions proves
little: on some hosts it does all that and then hangs every unmodified kernel.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from lab.core import files, proc
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, LabError, ending
from lab.host import facts, tiny_guest
from lab.probes.kvm import Probe, own_module, parse_probe, script

DEVICE = Path("/dev/kvm")
BOOT_SECONDS = 20.0
"""How long the tiny guest may take to its user space: about a second on working hardware."""

_KVMS_WORD = re.compile(r"does not reach user space|KVM|kvm|MSR|entry failed|internal error")
"""How a boot ends that will do so again. One of a QEMU that was killed may not."""
_PASSING = re.compile(
    r"cannot allocate memory|out of memory|too many open files|permission denied"
    r"|operation not permitted|resource (?:busy|temporarily unavailable)",
    re.IGNORECASE,
)
"""What was wanting just then, whoever says so: QEMU hands an errno on in KVM's name."""

_QEMU = "qemu-system-x86_64"
_CACHE = "kvm-probe-{accel}.json"

Accelerator = Literal["kvm", "tcg"]


@dataclass(frozen=True)
class KvmAnswer:
    """Whether hardware KVM may be used, in one sentence why, and whether it hands virtualization on."""

    usable: bool
    why: str
    nested: bool
    checked: dict[str, Any] = field(default_factory=dict)
    """What the answer rests on: device, versions, boot id, kernel, the tiny guest's runs."""


_REMEMBERED = TypeAdapter(KvmAnswer)


def functional_probe(
    cache_dir: Path,
    *,
    fresh: bool = False,
    kernel: Path | None = None,
    accel: Accelerator = "kvm",
    seconds: float = BOOT_SECONDS,
    qemu: str = _QEMU,
    asking: Asking | None = None,
) -> KvmAnswer:
    """Decide, or recall the decision made since this host booted with this kernel and QEMU.

    `kernel` is an x86-64 Linux kernel to boot; without it, one of the host's own. Where no
    kernel can be had the answer is "not proven", hence not usable, and is not kept. `accel` and `asking`
    are for tests of the probe itself. Raises InterruptedByUser; a broken KVM is an answer.
    """
    asking = asking or Asking()
    device, nested = asking.root / "dev/kvm", nested_parameter(asking.root)
    if refusal := _refusal(device, accel, qemu):
        return KvmAnswer(False, refusal, nested)
    key = asking.identity(qemu)
    kept = cache_dir / _CACHE.format(accel=accel)
    if not fresh and (answer := _recalled(kept, key, nested)):
        return answer
    checked: dict[str, Any] = {**key, "accelerator": accel}
    usable, why, final = _decide(asking, checked, kernel or host_kernel(asking.root), accel, seconds, qemu)
    answer = KvmAnswer(usable, why, nested, checked)
    if final:
        files.write_json(kept, asdict(answer), files.PUBLIC)
    return answer


def _refusal(device: Path, accel: Accelerator, qemu: str) -> str:
    """Why there is nothing to probe: cheap to find out, so never kept."""
    if platform.system() != "Linux":
        return f"KVM is Linux's, and this host runs {platform.system()}"
    if platform.machine() != "x86_64":
        return f"this host's CPU is {platform.machine()}: x86-64 guests are emulated on it"
    if shutil.which(qemu) is None:
        return f"{qemu} is not installed"
    if accel == "kvm" and not device.exists():
        return f"there is no {device}"
    if accel == "kvm" and not os.access(device, os.R_OK | os.W_OK):
        return f"this user may not open {device} (group kvm may)"
    return ""


def _identity(qemu: str) -> dict[str, str]:
    version = proc.run([qemu, "--version"], deadline=Deadline.after(10)).out.splitlines()
    return {
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "host_kernel": os.uname().release,
        "qemu": version[0] if version else "",
    }


def _recalled(kept: Path, key: dict[str, str], nested: bool) -> KvmAnswer | None:
    try:
        answer = _REMEMBERED.validate_python(files.read_json(kept))
    except (OSError, ValueError):
        return None
    same = all(answer.checked.get(name) == value for name, value in key.items())
    return answer if same and answer.nested == nested else None


def _decide(
    asking: Asking,
    checked: dict[str, Any],
    kernel: Path | None,
    accel: Accelerator,
    seconds: float,
    qemu: str,
) -> tuple[bool, str, bool]:
    """Whether KVM is usable, why, and whether to keep that; what it rests on is added to `checked`.

    It is not kept where a tool, memory or a right was missing.
    """
    checked["kernel"] = str(kernel) if kernel else ""
    if accel == "kvm":
        run = asking.entries()
        checked["entries"] = run.model_dump() if run else "the probe did not run"
        if run is not None and run.device.error:
            return False, run.device.error, False
        if run is not None and not (run.real_mode and run.real_mode.ok):
            lasting = run.real_mode is not None and run.real_mode.failure in ("kvm", "timeout")
            what = "KVM does not run a guest's first instructions" if lasting else "not proven"
            return False, f"{what}: {run.why}", lasting
    if kernel is None:
        why = "not proven: there is no kernel here yet to boot under it (lab's guest image brings one)"
        return False, why, False
    try:
        failure = asking.boot(kernel, accel, Deadline.after(seconds), qemu)
    except OSError as error:
        return False, f"not proven: {error}", False
    if failure:
        lasting = _KVMS_WORD.search(failure) is not None and not _PASSING.search(failure)
        return False, failure if lasting else f"not proven: {failure}", lasting
    return True, f"a kernel boots to user space under it ({kernel.name}, {checked['qemu']})", True


def _tiny_entries() -> Probe | None:
    """The functional probe that also runs inside the VM, run here; None if it could not be."""
    argv = [sys.executable, "-I", "-", "--seconds", "5"]
    try:
        return parse_probe(proc.run(argv, stdin=script("kvm_probe.py"), deadline=Deadline.after(30)).out)
    except LabError:
        return None


def boot(kernel: Path, accel: Accelerator, deadline: Deadline, qemu: str = _QEMU) -> str:
    """Boot `kernel` with an /init of ours; empty when its word came, else one sentence why not.

    The word is said by a user-space program of the guest, and is new each time. QEMU ends in
    any case. Raises InterruptedByUser, and OSError when the kernel cannot be read.
    """
    with kernel.open("rb"):
        pass
    word = f"lab-user-space-{secrets.token_hex(8)}"
    with tempfile.TemporaryDirectory(prefix="lab-kvm-") as folder:
        archive, serial = Path(folder) / "initramfs.cpio", Path(folder) / "serial.log"
        archive.write_bytes(tiny_guest.initramfs(word))
        try:
            done = proc.run(
                tiny_guest.command(qemu, accel, kernel, archive, serial), deadline=deadline, check=False
            )
        except DeadlineError:
            output = _printed(serial)
            return "" if word in output else _silence(output, deadline.seconds)
        output = _printed(serial)
    if word in output:
        return ""
    reason = proc.tail(done.err, 1) or proc.tail(output, 1) or ending(done.status)
    return f"QEMU ended before its guest reached user space: {reason}"


def _silence(output: str, seconds: float) -> str:
    last = proc.tail(output, 1)
    heard = f"its last words: {last}" if last else "it said nothing"
    return f"a kernel booted under it does not reach user space in {seconds:.0f} s ({heard})"


def _printed(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def host_kernel(root: Path = Path("/")) -> Path | None:
    """The newest readable kernel in /boot, if any: on many hosts only root may read them."""
    kernels = [path for path in (root / "boot").glob("vmlinuz-*") if os.access(path, os.R_OK)]
    return max(kernels, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)], default=None)


def nested_parameter(root: Path = Path("/")) -> bool:
    """Whether KVM's module for this processor lets its guests have vmx or svm."""
    module = own_module(facts.linux_cpu(root).extensions)
    return facts.read_kvm(root).parameters.get(f"{module}.nested") in ("Y", "1")


@dataclass(frozen=True)
class Asking:
    """What the probe asks of a host whose files are below `root`: this one's, or a test's."""

    root: Path = Path("/")
    identity: Callable[[str], dict[str, str]] = _identity
    entries: Callable[[], Probe | None] = _tiny_entries
    boot: Callable[[Path, Accelerator, Deadline, str], str] = boot
