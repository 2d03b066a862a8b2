"""What is left of a lab whose record cannot be read is enough to end its VM, or destroying it is refused."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from lab import engines
from lab.core.errors import ExitCode, InconclusiveError, LabError
from lab.engines.protocol import MachineSpec
from lab.engines.qemu.host import HostQemu
from lab.engines.qemu.machine import QemuMachine
from lab.engines.vagrant import link
from lab.records.labs import Lab, Store
from lab.records.record import Record, new_record
from lab.tasks.lab.up import up
from lab.workflow import remains
from lab.workflow.destroy import destroy
from tests.unit.bed import Bed, checked
from tests.unit.fakes import FakeEngine

NAME = "default"
UUID = "0b4c4f0e-0f1a-4d1c-8f0e-3c6b8d1f2a3b"
OTHER = "11111111-0f1a-4d1c-8f0e-3c6b8d1f2a3b"

VBOX = f"""<?xml version="1.0"?>
<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">
  <Machine uuid="{{{UUID}}}" name="lab-x" OSType="Ubuntu_64" snapshotFolder="Snapshots">
    <Hardware/>
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Store(tmp_path).place("x")


def _record(**more: Any) -> Record:
    made = new_record(
        "x", engine="qemu", emulator="canary", cpus=2, memory_mib=64, disk_gib=4, paravirt="kvm", nested=True,
        image="debian-13-abc",
    )  # fmt: skip
    return made.model_copy(update={"uuid": UUID, **more})


def _file(lab: Lab, how: str) -> None:
    """The record's file: whole, newer, without its UUID, torn, lost."""
    raw = _record().model_dump()
    content = {
        "whole": json.dumps(raw),
        "newer": json.dumps(raw | {"mood": "good", "cpus": {"cores": 2}}),
        "nameless": json.dumps({key: value for key, value in raw.items() if key != "uuid"}),
        "torn": json.dumps(raw)[:60],
    }.get(how)
    if content is not None:
        lab.record_file.write_text(content)


def _journal(lab: Lab, how: str) -> None:
    """The journal: whole, of a lab made by an older lab, only about the VM, torn, lost."""
    journal = lab.journal
    if how == "whole":
        journal.intend("lab", UUID, name="x", record=_record().model_dump())
        journal.done("lab", UUID)
    elif how == "bare":
        journal.intend("lab", UUID, name="x")
        journal.done("lab", UUID)
    elif how == "vm":
        journal.intend("process", UUID, socket="/x/qmp.sock")
    elif how == "torn":
        journal.path.write_text('{"verb": "intend", "kind": "lab", "ke')


def _traces(lab: Lab, how: str) -> None:
    """The engine's own files: a process's record, only a disk, an empty folder, none."""
    if how == "none":
        return
    lab.vm_folder.mkdir()
    if how in ("process", "torn"):
        content = json.dumps({"pid": 1, "uuid": UUID})
        (lab.vm_folder / "process.json").write_text(content if how == "process" else content[:9])
    if how == "disk":
        (lab.vm_folder / "disk.qcow2").write_text("")


COMBINATIONS = list(
    itertools.product(
        ("whole", "newer", "nameless", "torn", "lost"),
        ("whole", "bare", "vm", "torn", "lost"),
        ("process", "torn", "disk", "empty", "none"),
    )
)


def _expected(file: str, journal: str, trace: str) -> str:
    """known: its VM is ended; nothing: there is none; refused."""
    uuid = file in ("whole", "newer") or journal in ("whole", "bare", "vm") or trace == "process"
    engine = file in ("whole", "newer") or journal in ("whole", "vm") or trace in ("process", "torn", "disk")
    if uuid and engine:
        return "known"
    made = journal == "vm" or trace not in ("none", "empty")
    return "refused" if made else "nothing"


@pytest.mark.parametrize(("file", "journal", "trace"), COMBINATIONS)
def test_each_combination_of_what_is_readable(lab: Lab, file: str, journal: str, trace: str) -> None:
    _file(lab, file)
    _journal(lab, journal)
    _traces(lab, trace)
    read: Record | None = None
    try:
        read = lab.read()
    except LabError:
        assert file != "whole"
    expected = _expected(file, journal, trace)
    if expected == "refused":
        with pytest.raises(InconclusiveError) as refused:
            remains.record(lab, read)
        assert refused.value.exit_code == ExitCode.INCONCLUSIVE
        assert {str(lab.record_file), str(lab.vm_folder)} <= set(refused.value.evidence)
        assert str(lab.folder) in refused.value.hint
        return
    found = remains.record(lab, read)
    if expected == "nothing":
        assert found is None
    else:
        assert found is not None and (found.uuid, found.engine, found.name) == (UUID, "qemu", "x")
        assert found.image, "else nobody asks the engine"


def test_what_is_usable_of_a_newer_record_is_kept(lab: Lab) -> None:
    _file(lab, "newer")
    found = remains.record(lab)
    assert found is not None
    assert (found.memory_mib, found.image, found.emulator) == (64, "debian-13-abc", "canary")


def test_signs_that_tell_of_two_machines_are_not_chosen_among(lab: Lab) -> None:
    _file(lab, "whole")
    lab.vm_folder.mkdir()
    (lab.vm_folder / "process.json").write_text(json.dumps({"pid": 1, "uuid": OTHER}))
    with pytest.raises(InconclusiveError) as refused:
        remains.record(lab, lab.read())
    assert UUID in refused.value.tail and OTHER in refused.value.tail


@pytest.mark.parametrize("name", ["lab.vbox", "lab.vbox-prev"])
def test_a_machine_of_virtualbox_is_known_by_its_settings(lab: Lab, name: str) -> None:
    lab.vm_folder.mkdir()
    (lab.vm_folder / name).write_text(VBOX)
    found = remains.record(lab)
    assert found is not None and (found.uuid, found.engine) == (UUID, "virtualbox")
    (lab.vm_folder / name).write_text(VBOX[:60])
    with pytest.raises(InconclusiveError):
        remains.record(lab)


def test_a_machine_of_vagrants_is_known_by_its_link(lab: Lab, tmp_path: Path) -> None:
    made = link.VagrantLink(root=tmp_path, machine="m", provider="libvirt", made=True)
    link.write(lab.vm_folder, made)
    found = remains.record(lab)
    assert found is not None and found.engine == "vagrant-libvirt"
    (lab.vm_folder / link.FILE).write_text("{")
    with pytest.raises(LabError, match=r"vagrant\.json"):
        remains.record(lab)


def test_a_process_tells_by_its_arguments_whose_it_is(lab: Lab) -> None:
    """All files but the disk are lost, and the VM runs."""
    _traces(lab, "disk")
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "-uuid", UUID]
    with subprocess.Popen([*argv, "-pidfile", str(lab.vm_folder / "qemu.pid")]) as process:
        try:
            assert (UUID, f"process {process.pid}") in [
                (trace.uuid, trace.sign) for trace in engines.traces(lab.vm_folder)
            ]
            found = remains.record(lab)
            assert found is not None and found.uuid == UUID
        finally:
            psutil.Process(process.pid).kill()


def test_a_vm_whose_program_has_a_name_of_its_own_is_ended_by_its_arguments(lab: Lab) -> None:
    """The record, which has that name, is lost, and another program is configured now."""
    _traces(lab, "disk")
    host = cast(HostQemu, SimpleNamespace(binary="qemu-system-x86_64", image_tool="qemu-img"))
    known = MachineSpec(UUID, "x", lab.vm_folder, lab.folder, lab.folder, 1, 64, 4)
    argv = [sys.executable, "-c", "import time; time.sleep(60)", "-uuid", UUID]
    with (
        subprocess.Popen([*argv, "-pidfile", str(lab.vm_folder / "qemu.pid")]) as mine,
        subprocess.Popen([*argv, "-pidfile", str(lab.folder / "qemu.pid")]) as another,
    ):
        try:
            QemuMachine(known, lab.journal, host).destroy()
            assert mine.wait(10) != 0
            assert another.poll() is None
        finally:
            mine.kill()
            another.kill()


# lab.destroy, and who calls it


def _ready(bed: Bed) -> Lab:
    assert up(bed.session(), NAME).code == 0
    return bed.lab()


@pytest.mark.parametrize("how", ["newer", "lost", "torn", "null"])
def test_destroy_ends_the_vm_of_a_record_that_cannot_be_read(bed: Bed, how: str) -> None:
    lab = _ready(bed)
    file = lab.record_file
    uuid = lab.record().uuid
    if how == "lost":
        file.unlink()
    else:
        newer = json.dumps(json.loads(file.read_text()) | {"mood": "good"})
        file.write_text({"newer": newer, "torn": file.read_text()[:50], "null": "null"}[how])
    asked: list[str] = []
    machine = FakeEngine.machine
    bed.patch.setattr(
        FakeEngine,
        "machine",
        lambda self, spec, journal: (asked.append(spec.uuid), machine(self, spec, journal))[1],
    )
    document = checked(destroy(bed.session(), NAME))
    assert "destroy" in bed.world.calls and set(asked) == {uuid}
    assert any("cannot be read" in note for note in document["notes"])
    assert bed.session().store.labs() == []


def test_destroy_does_not_say_gone_of_what_it_cannot_know(bed: Bed) -> None:
    lab = _ready(bed)
    lab.record_file.unlink()
    lab.journal.path.unlink()
    with pytest.raises(InconclusiveError, match="which one cannot be told"):
        destroy(bed.session(), NAME)
    assert lab.folder.is_dir() and "destroy" not in bed.world.calls
    with pytest.raises(InconclusiveError):
        up(bed.session(), NAME, fresh=True)
    assert lab.folder.is_dir()


def test_up_makes_no_second_vm_in_the_place_of_one_whose_record_was_lost(bed: Bed) -> None:
    lab = _ready(bed)
    lab.record_file.unlink()
    with bed.untouched(), pytest.raises(LabError, match="cannot be read") as refused:
        up(bed.session(), NAME)
    assert "lab.destroy" in refused.value.hint
    assert up(bed.session(), NAME, fresh=True).code == 0
    assert bed.world.calls.count("destroy") == 1
