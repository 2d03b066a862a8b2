"""lab.destroy with a real QEMU: whatever is left of the record, "gone" is said of a VM that has ended."""

from __future__ import annotations

import itertools
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from bootsector import base_disk

from lab.config import Settings
from lab.core.errors import ExitCode, InconclusiveError
from lab.core.steps import Steps
from lab.records.labs import Lab
from lab.records.record import new_record
from lab.workflow.destroy import destroy
from lab.workflow.session import Session
from lab.workflow.workbench import Workbench

pytestmark = pytest.mark.skipif(
    not shutil.which("qemu-system-x86_64") or not shutil.which("qemu-img"), reason="needs QEMU"
)

IMAGE = "debian-13-test"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = Settings(engine="qemu", state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")
    (tmp_path / "cache" / "images" / IMAGE).mkdir(parents=True)
    base_disk(tmp_path / "cache" / "images" / IMAGE / "disk.qcow2")
    return Session(settings, Steps(), False)


@pytest.fixture
def running(session: Session) -> Iterator[tuple[Lab, psutil.Process]]:
    """A lab whose VM runs, and its process; it is ended by its UUID, not by the code under test."""
    lab = session.store.place("x")
    lab.create(
        new_record(
            "x",
            engine="qemu",
            acceleration="tcg",
            emulator="none",
            image=IMAGE,
            cpus=1,
            memory_mib=64,
            disk_gib=1,
            paravirt="none",
            nested=False,
        )
    )
    bench = Workbench(session, lab)
    bench.spec.seed.write_bytes(bytes(65536))
    bench.machine.create()
    bench.machine.start([])
    (process,) = _processes(bench.record().uuid)
    yield lab, process
    for left in _processes(bench.spec.uuid if lab.record_file.exists() else _uuid_of(process)):
        left.kill()
        left.wait(10)


def _uuid_of(process: psutil.Process) -> str:
    try:
        return dict(itertools.pairwise(process.cmdline()))["-uuid"]
    except psutil.Error:
        return str(uuid.uuid4())  # it has ended


def _processes(wanted: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        argv = process.info["cmdline"] or []
        if ("-uuid", wanted) in itertools.pairwise(argv) and "qemu" in argv[0]:
            found.append(process)
    return found


def _newer(lab: Lab) -> None:
    lab.record_file.write_text(json.dumps(json.loads(lab.record_file.read_text()) | {"mood": "good"}))


def _record_lost(lab: Lab) -> None:
    lab.record_file.unlink()


def _both_torn(lab: Lab) -> None:
    lab.record_file.write_text(lab.record_file.read_text()[:30])
    lab.journal.path.write_text('{"verb": "int')


def _only_the_process(lab: Lab) -> None:
    """Nothing but the disk, and a process that has it."""
    for path in (
        lab.record_file,
        lab.journal.path,
        lab.vm_folder / "process.json",
        lab.vm_folder / "qemu.pid",
    ):
        path.unlink()


@pytest.mark.parametrize("harm", [_newer, _record_lost, _both_torn, _only_the_process])
def test_gone_is_gone(
    session: Session, running: tuple[Lab, psutil.Process], harm: Callable[[Lab], None]
) -> None:
    lab, process = running
    harm(lab)
    document = destroy(session, "x").document
    assert document["state"] == "absent" and not process.is_running()
    assert session.store.labs() == [] and not lab.folder.exists()


def test_what_cannot_be_known_is_left_as_it_is(session: Session, running: tuple[Lab, psutil.Process]) -> None:
    """Two machines are told of: the one that runs on the lab's disk, and the one in the record."""
    lab, process = running
    raw = json.loads(lab.record_file.read_text())
    lab.record_file.write_text(json.dumps(raw | {"uuid": str(uuid.uuid4())}))
    with pytest.raises(InconclusiveError) as refused:
        destroy(session, "x")
    assert refused.value.exit_code == ExitCode.INCONCLUSIVE
    assert f"process {process.pid}" in refused.value.tail and str(lab.vm_folder) in refused.value.evidence
    assert process.is_running() and lab.folder.is_dir()
    lab.record_file.write_text(json.dumps(raw))
    destroy(session, "x")
    assert not process.is_running()
