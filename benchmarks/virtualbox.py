"""The VirtualBox engine against VBoxManage: `.venv/bin/python -m benchmarks.virtualbox [RUNS]`.

Create, configure and register a lab's machine through the engine, and the same through VBoxManage's
fastest sequence; `status` with the worker's start. Where VirtualBox is not installed, the throwaway root
of the integration tests is used (root on Debian): then both sides pay for entering it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import __version__
from lab.core.journal import Journal
from lab.dev.bench import measure
from lab.engines.options import VirtualBoxOptions
from lab.engines.protocol import MachineSpec, State
from lab.engines.virtualbox import basedisk, host
from lab.engines.virtualbox.client import WorkerClient
from lab.engines.virtualbox.machine import VirtualBoxMachine
from lab.host import facts

OPTIONS = VirtualBoxOptions()


def _never(*_: object) -> None:
    raise AssertionError("a qcow2 is not VirtualBox's to convert")


@contextlib.contextmanager
def virtualbox(work: Path) -> Iterator[tuple[Callable[[], WorkerClient], list[str]]]:
    """How to make a client, and the words that run VBoxManage."""
    if installed := host.installed():
        yield (
            lambda: WorkerClient("", installed.folder, installed.glue),
            [str(installed.folder / "VBoxManage")],
        )
        return
    from tests.integration.vboxroot import built, mounted

    home, glue = Path("/usr/lib/virtualbox"), Path("/usr/lib/python3/dist-packages")
    with mounted(built(), work / "home", [work]) as root:
        # Not Debian's own starter, a shell script, but the program behind it.
        manage = [*root.enter, "env", f"VBOX_USER_HOME={root.home}", f"HOME={root.home}"]
        yield lambda: WorkerClient(str(root.python), home, (glue,)), [*manage, str(home / "VBoxManage")]


def main(runs: int) -> dict[str, Any]:
    began, started = datetime.now(UTC), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as folder:
        work = Path(folder)
        with virtualbox(work) as (connect, manage):
            base = _base(work)
            seed = work / "seed.iso"
            seed.write_bytes(b"\0" * 65536)
            client = connect()
            client.call("describe")  # VBoxSVC is up for both sides
            engine, by_hand, status, missed = [], [], [], []
            for number in range(runs):
                machine = _machine(work / f"engine-{number}", work, base, seed, client)
                engine.append(_seconds(machine.create))
                by_hand.append(_seconds(lambda: _manage(manage, work / f"hand-{number}", work, seed)))  # noqa: B023
                status.append(_seconds(lambda: _status(connect, machine)))  # noqa: B023
                missed.append(_seconds(machine.settings))
                machine.destroy()
            client.close()
    ratios = [round(one / other, 3) for one, other in zip(engine, by_hand, strict=True)]
    engine, by_hand, status, read = (
        [round(value, 3) for value in values] for values in (engine, by_hand, status, missed)
    )
    measures = [
        measure("create, configure, register", "s", engine, None, "the engine, its worker running"),
        measure("the same through VBoxManage", "s", by_hand, None, "seven commands"),
        measure("engine against VBoxManage", "ratio", ratios, 1.5, "pairs of runs, in order"),
        measure("status, with the worker's start", "s", status, 0.5, ""),
        measure(
            "settings, worker running", "s", read, 0.3, "one attribute pyvbox looks for in vain is 0.3 s"
        ),
    ]
    return {
        "schema": "bench/1",
        "host": facts.read().as_dict(),
        "lab_version": __version__,
        "started": began.isoformat(timespec="milliseconds"),
        "seconds": round(time.monotonic() - started, 3),
        "measures": measures,
    }


def _base(work: Path) -> Path:
    """A base image as the cache has it, converted beforehand, as for every lab but the first."""
    image = work / "image"
    image.mkdir()
    disk = image / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1G"], check=True)
    basedisk.ensure(disk, 12, work, _never)
    return disk


def _machine(folder: Path, work: Path, base: Path, seed: Path, client: WorkerClient) -> VirtualBoxMachine:
    spec = MachineSpec(
        uuid=str(uuid.uuid4()),
        name="bench",
        folder=folder,
        base_disk=base,
        seed=seed,
        cpus=2,
        memory_mib=4096,
        disk_gib=12,
    )
    return VirtualBoxMachine(spec, Journal(work / "journal.jsonl"), lambda: client, OPTIONS, work)


def _manage(manage: list[str], folder: Path, work: Path, seed: Path) -> None:
    name = folder.name
    parent = basedisk.ensure(work / "image" / "disk.qcow2", 12, work, _never)
    settings = ["--memory", "4096", "--cpus", "2", "--paravirt-provider", "kvm", "--nested-hw-virt", "on"]
    settings += ["--nested-paging", "on", "--ioapic", "on", "--rtc-use-utc", "on", "--boot1", "disk"]
    settings += ["--graphicscontroller", "vmsvga", "--vram", "16", "--nic1", "nat", "--nic-type1", "virtio"]
    settings += [
        "--audio-enabled",
        "off",
        "--uart1",
        "0x3f8",
        "4",
        "--uart-mode1",
        "file",
        f"{folder}/console.log",
    ]
    place = ["--storagectl", "SATA", "--device", "0"]
    for words in (
        ["createvm", "--name", name, "--ostype", "Ubuntu_64", "--basefolder", str(folder), "--register"],
        ["modifyvm", name, *settings],
        ["setextradata", name, "lab/uuid", name],
        ["storagectl", name, "--name", "SATA", "--add", "sata", "--portcount", "2"],
        ["createmedium", "disk", "--filename", f"{folder}/disk.vdi", "--diffparent", str(parent)],
        ["storageattach", name, *place, "--port", "0", "--type", "hdd", "--medium", f"{folder}/disk.vdi"],
        ["storageattach", name, *place, "--port", "1", "--type", "dvddrive", "--medium", str(seed)],
    ):
        subprocess.run([*manage, "-q", *words], check=True, capture_output=True)


def _status(connect: Callable[[], WorkerClient], machine: VirtualBoxMachine) -> None:
    fresh = connect()
    seen = VirtualBoxMachine(machine.spec, machine._journal, lambda: fresh, OPTIONS, machine._cache)
    assert seen.status() is State.STOPPED  # noqa: S101 - a figure of something else would be worth nothing
    fresh.close()


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


if __name__ == "__main__":
    if not shutil.which("qemu-img"):
        raise SystemExit("qemu-img is not installed")
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5), indent=2))
