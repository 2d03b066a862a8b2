"""The emulated host: a VM whose processor QEMU emulates in software, with AMD-V, for VirtualBox to run on."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab import proc
from lab.deadline import Deadline, NotYet, poll
from lab.engines.protocol import LOOPBACK, Forward, MachineSpec
from lab.engines.qemu.capabilities import capabilities
from lab.engines.qemu.command import build, hardware
from lab.engines.qemu.layout import QemuLayout
from lab.errors import LabError
from lab.guest import keys, seed
from lab.guest.ssh import Guest
from lab.guest.waiting import wait_for_ssh
from tests.e2e_virtualbox.work import CACHE, LABEL, MOUNT, PROJECT, STATE

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 6144
DISK_GIB = 8

# VirtualBox has the kernel call it at every task switch, which patches the scheduler; with two emulated
# processors, one runs the half-patched code and the kernel panics (docs/design.md, Decisions).
CPUS = 1

# With XSAVE in this processor the VM's kernel refuses its own signal frames ("bad frame in rt_sigreturn")
# and its init dies. What needs XSAVE has to go with it.
_WITHOUT = ("xsave", "xsaveopt", "avx", "avx2", "fma", "f16c", "vaes", "vpclmulqdq", "mpx", "pku")

_BOOT_SECONDS = 300.0
_TOOL_SECONDS = 120.0
_STOP_SECONDS = 60.0

SETTINGS = {
    "LAB_STATE_DIR": STATE,
    "LAB_CACHE_DIR": CACHE,
    "LAB_IMAGE": "debian-13",
    "LAB_INSTALL": "never",
    "LAB_VM__MEMORY_MIB": "2048",
    "LAB_VM__CPUS": "1",
    "LAB_VIRTUALBOX__ALLOW_NESTED_ON_HOST": "true",
    # Exits from the VM are what costs most here. Two knobs of VirtualBox spare them: readings
    # of the time stamp counter do not exit, and its timer interrupts at 500 Hz instead of 16 kHz.
    "LAB_VIRTUALBOX__EXTRA_DATA": json.dumps(
        ["VBoxInternal/TM/TSCMode=RealTSCOffset", "VBoxInternal/TM/HostHzMax=500"]
    ),
    "LAB_DEADLINES__BOOT": "1500",
    "LAB_DEADLINES__SSH": "600",
    "LAB_DEADLINES__DOCKER": "2400",
    "LAB_DEADLINES__STOP": "300",
}
"""A processor emulated in software runs VirtualBox, which runs the VM: all is small and patient."""


@dataclass(frozen=True)
class Answer:
    """What a task of lab left."""

    status: int
    document: dict[str, Any]
    err: str
    seconds: float


@dataclass(frozen=True)
class EmulatedHost:
    guest: Guest
    console: Path

    def lab(self, *words: str, seconds: float, log: Path) -> Answer:
        """Run a task there as its user does, with --json; `log` receives its progress as it comes."""
        dashes = words.index("--") if "--" in words else len(words)
        line = [f"{PROJECT}/bin/invoke", words[0], "--json", *words[1:dashes], *words[dashes:]]
        with log.open("a", buffering=1) as sink:
            done = self.guest.run(
                ["env", *(f"{name}={value}" for name, value in SETTINGS.items()), *line],
                check=False,
                deadline=Deadline.after(seconds),
                on_line=lambda text: print(text, file=sink),
            )
        try:
            document = json.loads(done.out)
        except ValueError:
            document = {}
        return Answer(done.status, document, done.err, done.seconds)

    def settle(self) -> None:
        """Have the second disk and VirtualBox's driver."""
        self.guest.run(["mount", "-o", "noatime", f"LABEL={LABEL}", MOUNT], sudo=True)

        def loaded() -> bool:
            if not self.guest.exists("/dev/vboxdrvu"):
                raise NotYet("there is no /dev/vboxdrvu")
            return True

        poll(loaded, Deadline.after(_TOOL_SECONDS), "VirtualBox's kernel driver")

    def keep(self, folder: Path) -> None:
        """Copy out what is evidence: all of lab's state but disks and secrets, and this host's own logs.

        What can be had of a host that is not well is had.
        """
        (folder / "host-console.log").write_bytes(self.console.read_bytes())
        with contextlib.suppress(LabError):
            self._keep(folder)

    def _keep(self, folder: Path) -> None:
        for name, words in (
            ("host-dmesg.txt", ["dmesg"]),
            ("host-journal.txt", ["journalctl", "--boot", "--no-pager"]),
            ("host-packages.txt", ["dpkg-query", "--show"]),
        ):
            (folder / name).write_text(self.guest.run(words, sudo=True, check=False).out)
        leave = [f"--exclude={pattern}" for pattern in ("keys", "*.iso", "*.vdi", "*.sav", "*.sock")]
        packed, target = "/var/tmp/state.tar", folder / "state.tar"  # noqa: S108 - in a VM of our own
        self.guest.run(["tar", *leave, "-C", STATE, "-cf", packed, "."], check=False)
        self.guest.get(packed, target)
        with tarfile.open(target) as archive:
            archive.extractall(folder / "state", filter="data")
        target.unlink()


@contextlib.contextmanager
def running(folder: Path, image: Path, work: Path) -> Iterator[EmulatedHost]:
    """The host of the disk image in `image`, with `work` as its second disk, for the block.

    Files are made in `folder`. QEMU ends with this process, however that ends.
    """
    spec = MachineSpec(
        uuid=str(uuid.uuid4()),
        name="vbox-host",
        folder=folder / "vm",
        base_disk=image / "disk.qcow2",
        seed=folder / "seed.iso",
        cpus=CPUS,
        memory_mib=MEMORY_MIB,
        disk_gib=DISK_GIB,
    )
    spec.folder.mkdir(parents=True)
    layout = QemuLayout(spec.folder, spec.uuid)
    pair = keys.ensure(folder / "keys", spec.name)
    seed.write(seed.Seed(spec.uuid, spec.name, pair), spec.seed)
    overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", spec.base_disk, "-F", "qcow2"]
    proc.run([*overlay, layout.disk], deadline=Deadline.after(_TOOL_SECONDS))
    port = _free_port()
    known = keys.write_known_hosts(folder / "known_hosts", pair.host, port)

    with layout.log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *_command(spec, layout, work, port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:

        def dead() -> str | None:
            return None if process.poll() is None else proc.tail(layout.log.read_text(errors="replace"))

        with wait_for_ssh(
            lambda: Guest(port=port, key=pair.user.private, known_hosts=known),
            Deadline.after(_BOOT_SECONDS),
            dead,
        ) as guest:
            host = EmulatedHost(guest, layout.console)
            host.settle()
            yield host
            with contextlib.suppress(LabError):
                guest.run(["systemctl", "poweroff"], sudo=True, check=False, deadline=Deadline.after(30))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
    finally:
        process.kill()
        process.wait()


def _command(spec: MachineSpec, layout: QemuLayout, work: Path, port: int) -> list[str]:
    """lab's own command for a VM, which leaves out 5-level paging, and the second disk."""
    found = capabilities(QEMU)
    virtual = hardware(spec, "tcg", found.machine)
    second = {
        "driver": "raw",
        "node-name": "work",
        "discard": "unmap",
        "file": {"driver": "file", "filename": str(work), "discard": "unmap"},
    }
    device = {"driver": "virtio-blk-pci", "drive": "work", "serial": "lab-work"}
    return [
        *build(
            QEMU,
            spec,
            replace(virtual, cpu=",".join([virtual.cpu, *(f"{name}=off" for name in _WITHOUT)])),
            layout,
            [Forward("ssh", port, 22)],
            sandbox=found.sandbox,
        ),
        *("-blockdev", json.dumps(second), "-device", json.dumps(device)),
        "-no-reboot",  # a kernel that panics ends the test (host/rootfs/etc/sysctl.d)
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
