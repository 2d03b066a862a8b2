"""The job of the Mac's road: what the emulated PC is given, and its run."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import certifi
from imageserver import make_certificate

from lab.cli.console import PlainSink
from lab.config import load
from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.steps import Steps
from lab.core.tell import Terminal
from lab.records.evidence import Run
from lab.rehearsal import rehearsal
from lab.rehearsal.image import SystemImage
from lab.rehearsal.rehearsal import Rehearsal, Rehearsed
from lab.rehearsal.workdisk import FILES, Job
from lab.tasks.theory.rehearse import SETTINGS
from tests.signing import Signer

HERE = Path(__file__).parent
PROGRAM = HERE / "on_mac.py"
NAME = "debian-published"
"""The image's name, as `--image` takes it."""
DISK = "disk.vmdk"
BASE = "https://127.0.0.1:8443/"
"""Where the publisher is, in the PC."""

_SECONDS = 600.0
_TESTS = HERE.parent
_PC_SECONDS = 7200.0
_MACS_OWN = {"LAB_STATE_DIR", "LAB_CACHE_DIR", "LAB_IMAGE"}


def make_files(folder: Path, disk: Path, signer: Signer, fingerprint: str) -> None:
    """Write what on_mac.py needs: itself, the mask, and a publisher of lab's own image as a VMDK."""
    published = folder / "published"
    published.mkdir(parents=True)
    vmdk, sums = published / DISK, published / "SHA256SUMS"
    words = [
        "qemu-img",
        "convert",
        "-f",
        "qcow2",
        "-O",
        "vmdk",
        "-o",
        "subformat=streamOptimized",
        disk,
        vmdk,
    ]
    proc.run(words, deadline=Deadline.after(_SECONDS))
    with vmdk.open("rb") as stream:
        sums.write_text(f"{hashlib.file_digest(stream, 'sha256').hexdigest()} *{DISK}\n")
    signer.sign(sums, fingerprint)
    signer.export(folder / "key.gpg", fingerprint)
    certificate = make_certificate(folder)
    (folder / "trusted.pem").write_bytes(Path(certifi.where()).read_bytes() + certificate.read_bytes())
    (folder / "manifest.toml").write_text(
        f'name = "{NAME}"\nbase = "{BASE}"\nsums = "{sums.name}"\n'
        f'signature = "{sums.name}.gpg"\nkeyring = "keys/{NAME}.gpg"\nfingerprint = "{fingerprint}"\n'
        f'[files]\nvmdk = "{DISK}"\n'
    )
    copy_programs(folder)


def copy_programs(folder: Path) -> None:
    shutil.copy2(PROGRAM, folder / PROGRAM.name)
    mask = "integration/darwin"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(_TESTS / mask, folder / "tests" / mask, ignore=leave)
    (folder / "tests/__init__.py").touch()


def tasks(*lines: str) -> tuple[tuple[str, ...], ...]:
    """Each line a transport, and the words of a task."""
    return tuple((str(FILES / PROGRAM.name), *line.split(), "--json") for line in lines)


def drive(
    cpu: str, state: Path, files: Path, system: SystemImage, canary: Path, *lines: str, run: Run
) -> Rehearsed:
    """Have an emulated PC do those tasks; what comes of it is in `run`, what it takes is in `state`."""
    cache, bochs = load().cache_dir / "images", load().rehearsal.bochs
    steps = Steps(PlainSink(Terminal((run.path / "shown.txt").open("w", buffering=1))), run.steps)
    environment = {name: value for name, value in SETTINGS.items() if name not in _MACS_OWN}
    environment["LAB_REHEARSAL__PC"] = rehearsal.name(rehearsal.facts(cpu, bochs))
    plan = Rehearsal(
        cpu=cpu,
        job=Job(tasks(*lines), environment, files),
        system=system,
        images=[canary],
        milestones=(),
        seconds=_PC_SECONDS,
        folder=state / "rehearsals",
        cache=cache,
        bochs=bochs,
    )
    return rehearsal.rehearse(plan, run, steps)
