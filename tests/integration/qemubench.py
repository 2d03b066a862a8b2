"""Machines of the QEMU engine with a real QEMU: emulation, and a guest of one boot sector."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from bootsector import Heart, base_disk

from lab.core.journal import Journal
from lab.engines.protocol import Forward, MachineSpec
from lab.engines.qemu.engine import QemuEngine
from lab.engines.qemu.host import HostQemu
from lab.engines.qemu.machine import QemuMachine


def no_kvm() -> None:
    """Under `tcg` nobody asks."""
    raise AssertionError("KVM must not be probed under tcg")


ENGINE = QemuEngine(HostQemu(no_kvm, "tcg"))  # type: ignore[arg-type]

Make = Callable[..., QemuMachine]


def bases(folder: Path) -> dict[bool, Path]:
    """The images that machines stand on: one whose guest is deaf, one that hears the power button."""
    return {polite: base_disk(folder / f"base-{polite}.qcow2", polite) for polite in (False, True)}


@contextlib.contextmanager
def machines(tmp_path: Path, bases: dict[bool, Path]) -> Iterator[Make]:
    """Makes machines; whatever they still run is ended by UUID, not by the code under test."""
    made: list[QemuMachine] = []
    seed = tmp_path / "seed.iso"
    seed.write_bytes(b"\0" * 65536)

    def build(polite: bool = False, folder: str = "engine", **changes: object) -> QemuMachine:
        spec = MachineSpec(
            uuid=str(uuid.uuid4()),
            name="test",
            folder=tmp_path / folder,
            base_disk=bases[polite],
            seed=seed,
            cpus=1,
            memory_mib=64,
            disk_gib=1,
        )
        spec = dataclasses.replace(spec, **changes)  # type: ignore[arg-type]
        made.append(ENGINE.machine(spec, Journal(tmp_path / "journal.jsonl")))
        return made[-1]

    yield build
    for machine in made:
        for running in processes(machine):
            running.kill()
            running.wait(10)


def processes(machine: QemuMachine) -> list[psutil.Process]:
    """What runs this machine, whatever lab says."""
    found = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            argv = candidate.cmdline()
            if ("-uuid", machine.spec.uuid) in itertools.pairwise(argv) and "qemu" in argv[0]:
                found.append(candidate)
    return found


def again(machine: QemuMachine) -> QemuMachine:
    """The same machine as another command sees it."""
    return ENGINE.machine(machine.spec, Journal(machine._journal.path))


def started(machine: QemuMachine, *forwards: Forward) -> QemuMachine:
    """The machine, made and booted."""
    machine.create()
    machine.start(forwards)
    Heart.wait(machine)
    return machine


def words(candidate: psutil.Process) -> list[str]:
    """A process's arguments; none when it has just ended."""
    with contextlib.suppress(psutil.Error):
        return list(candidate.cmdline())
    return []
