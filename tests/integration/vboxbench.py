"""Machines on the real VirtualBox 7.2, in its interpreter: their guest is one boot sector."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bootsector import VIRTUALBOX, Heart, base_disk

from lab.core.deadline import Deadline, poll
from lab.core.errors import LabError
from lab.core.journal import Journal
from lab.engines.options import VirtualBoxOptions
from lab.engines.protocol import Forward, MachineSpec, State
from lab.engines.virtualbox.client import WorkerClient
from lab.engines.virtualbox.machine import VirtualBoxMachine
from lab.engines.virtualbox.manage import Manage
from lab.engines.virtualbox.transport import ForeignError, Transport
from lab.engines.virtualbox.vm import vm_processes
from tests.integration.vboxroot import Instance

HOME = Path("/usr/lib/virtualbox")
GLUE = Path("/usr/lib/python3/dist-packages")
"""Where Debian's package puts them, in the root."""

OPTIONS = VirtualBoxOptions(execution_engine="interpreter")
Make = Callable[..., VirtualBoxMachine]


def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Base images as the cache has them: a folder each, whose name is the image's id."""
    found = {}
    for polite in (False, True):
        folder = tmp_path_factory.mktemp(f"image-{polite}")
        found[polite] = base_disk(folder / "disk.qcow2", polite, VIRTUALBOX)
    return found


def transports(kind: str, vbox: Instance) -> Callable[[], Transport]:
    """Makes transports to the real VirtualBox, of that kind."""
    if kind == "vboxapi":
        return lambda: WorkerClient(str(vbox.python), HOME, (GLUE,))
    return lambda: Manage(vbox.home)


@contextlib.contextmanager
def machines(tmp_path: Path, bases: dict[bool, Path], cache: Path, client: Transport) -> Iterator[Make]:
    """Makes machines, all destroyed at the end, with whatever still runs of them."""
    made: list[VirtualBoxMachine] = []
    seed = tmp_path / "seed.iso"
    seed.write_bytes(b"\0" * 65536)

    def build(polite: bool = False, folder: str = "vm", **changes: object) -> VirtualBoxMachine:
        spec = MachineSpec(
            uuid=str(uuid.uuid4()),
            name="test",
            folder=tmp_path / folder,
            base_disk=bases[polite],
            seed=seed,
            cpus=1,
            memory_mib=64,
            disk_gib=1,
            nested=False,
        )
        spec = dataclasses.replace(spec, **changes)  # type: ignore[arg-type]
        journal = Journal(tmp_path / "journal.jsonl")
        made.append(VirtualBoxMachine(spec, journal, lambda: client, OPTIONS, cache))
        return made[-1]

    yield build
    for machine in made:
        for running in vm_processes(machine.spec.uuid):
            running.kill()
        with contextlib.suppress(ForeignError):
            machine.destroy()


def again(machine: VirtualBoxMachine, client: Transport) -> VirtualBoxMachine:
    """The same machine as another command sees it."""
    return VirtualBoxMachine(
        machine.spec, Journal(machine._journal.path), lambda: client, OPTIONS, machine._cache
    )


def started(machine: VirtualBoxMachine, *forwards: Forward) -> VirtualBoxMachine:
    """The machine, made and booted."""
    machine.create()
    machine.start(forwards)
    Heart.wait(machine)
    return machine


def suspended(machine: VirtualBoxMachine) -> None:
    """Suspend it. VirtualBox 7.2.22's own process may crash of its virtio card meanwhile (a string lies
    where a semaphore's address was); that is told, and tried again with a fresh process.
    """
    for _ in range(5):
        try:
            return machine.suspend()
        except LabError as error:
            assert "crashed while it saved" in error.what, error.tail
            assert machine.status() is State.STOPPED
            machine.start([])
            Heart.wait(machine)
    raise AssertionError("VirtualBox crashed five times")


def in_a_process_of_its_own(vbox: Instance, code: str) -> subprocess.Popen[str]:
    """Python code that has VirtualBox's API, as lab's worker has it."""
    env = WorkerClient(str(vbox.python), HOME, (GLUE,))._env
    return subprocess.Popen([str(vbox.python), "-c", code], env=env, stdout=subprocess.PIPE, text=True)


def kill_a_holder(machine: VirtualBoxMachine, vbox: Instance) -> None:
    """Hold the VM's lock in a process of its own, and kill that."""
    holder = in_a_process_of_its_own(
        vbox,
        "import time\n"
        "from lab.engines.virtualbox.worker.api import Api\n"
        f"api = Api(); machine = api.find({machine.spec.uuid!r})\n"
        "with api.locked(machine, 'write'):\n    print('held', flush=True); time.sleep(600)\n",
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    poll(lambda: machine._vm.look()["state"] != "Saved" or None, Deadline.after(30), "the notice of it")


def kill(vbox: Instance, name: str) -> None:
    """Kill the processes of that name in the root."""
    victims = [pid for pid, comm in vbox.processes().items() if comm == name]
    assert victims
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
