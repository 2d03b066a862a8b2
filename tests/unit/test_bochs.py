"""How an emulated PC is described to Bochs, and how its endings are told apart. Bochs is a script here."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import psutil
import pycdlib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import files
from lab.core.deadline import Deadline, cancelled, poll
from lab.core.errors import (
    BlockedError,
    DeadlineError,
    InconclusiveError,
    InterruptedByUser,
    LabError,
    UsageError,
)
from lab.rehearsal import bochs, iso, models, process
from lab.rehearsal.bochs import BochsPc
from lab.rehearsal.pc import PcFacts, PcSpec, powered

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="an emulated PC is for Linux")

_HELP = """if [ "$1" = --help ]; then
echo "                        Bochs x86 Emulator 2.7"
printf 'bx_generic\\ncorei5_arrandale_m520\\ncorei7_haswell_4770\\n'; exit 0; fi
"""
_SOFT_OFF = "echo '11368425880p[ACPI  ] >>PANIC<< ACPI control: soft power off' >>bochs.log; exit 1"
_TRIPLE = (
    "echo '00620172196p[CPU0  ] >>PANIC<< exception(): 3rd (13) exception with no resolution' >>bochs.log"
)


@pytest.fixture
def pc(tmp_path: Path) -> BochsPc:
    """A PC whose Bochs does nothing yet (`does`), in a folder that Bochs' settings could not name."""
    loader = iso.Loader(tmp_path / "isolinux.bin", tmp_path / "ldlinux.c32")
    for path in loader:
        path.write_bytes(bytes(4096))
    for name in ("vmlinuz", "initramfs"):
        (tmp_path / name).write_text(f"the {name}")
    folder = tmp_path / "a b, $HOME"
    spec = PcSpec(
        str(uuid.uuid4()), folder, "haswell", 512, tmp_path / "vmlinuz", tmp_path / "initramfs", "quiet"
    )
    os.mkfifo(tmp_path / "never")
    made = BochsPc(spec, program=str(tmp_path / "bochs"), loader=loader)
    does(made, "exit 0")
    return made


def stays(pc: BochsPc) -> str:
    """What goes on for ever, without a child: one has its parent's arguments for a moment."""
    return f"read -r nothing <>'{Path(pc.program).with_name('never')}'"


def does(pc: BochsPc, script: str) -> None:
    path = Path(pc.program)
    path.write_text(f"#!/bin/sh\n{_HELP}{script}\n")
    path.chmod(0o755)


def _ended(pc: BochsPc, script: str) -> LabError:
    does(pc, script)
    with pytest.raises(LabError) as caught, powered(pc):
        pc.wait(Deadline.after(20))
    assert not pc.running()
    return caught.value


@linux_only
def test_a_pc_that_switches_itself_off_ends_well_and_all_it_said_is_heard(pc: BochsPc) -> None:
    does(
        pc, f"printf 'one\\r\\ntwo\\nhalf' >serial.log; sleep 0.2; printf ' of it' >>serial.log; {_SOFT_OFF}"
    )
    heard: list[str] = []
    with powered(pc):
        assert pc.running()
        pc.wait(Deadline.after(20), heard.append)
    assert heard == ["one", "two", "half of it"]
    assert not pc.running()


@linux_only
def test_every_other_end_says_nothing_of_the_guest_and_names_itself(pc: BochsPc) -> None:
    panic = _ended(pc, f"echo last words >serial.log; {_TRIPLE}; exit 1")
    assert isinstance(panic, InconclusiveError)
    assert "exception(): 3rd (13) exception with no resolution" in panic.what
    assert "last words" in panic.tail and str(pc.serial) in panic.evidence
    silent = _ended(pc, "echo 'no display library term' >&2; exit 7")
    assert isinstance(silent, InconclusiveError)
    assert "ended with status 7" in silent.what and "no display library term" in silent.tail
    killed = _ended(pc, "kill -KILL $$")
    assert "SIGKILL" in killed.what
    later = _ended(pc, f"({_SOFT_OFF}); {_TRIPLE}")
    assert "3rd (13)" in later.what, "the last word counts"
    before = _ended(pc, f"{_TRIPLE}; {_SOFT_OFF}")
    assert "3rd (13)" in before.what, "what came after a panic is of a broken machine"
    guest = "echo '007p[BIOS  ] >>PANIC<< ACPI control: soft power off' >bochs.log; exit 1"
    assert "[BIOS  ]" in _ended(pc, guest).what, "a guest can make the BIOS say anything"
    settings = "echo \"000p[SIM   ] >>PANIC<< numerical parameter 'host_size' was set to 4096\"; exit 1"
    assert "'host_size' was set to 4096" in _ended(pc, settings).what


@linux_only
def test_an_earlier_runs_good_end_is_not_this_ones(pc: BochsPc) -> None:
    does(pc, _SOFT_OFF)
    with powered(pc):
        pc.wait(Deadline.after(20))
    assert isinstance(_ended(pc, "exit 1"), InconclusiveError)


@linux_only
def test_what_writes_without_end_is_ended(pc: BochsPc) -> None:
    pc.most_log_bytes = 1 << 20
    ended = _ended(pc, "while :; do echo 0123456789012345678901234567890123456789012345678901234; done")
    assert isinstance(ended, InconclusiveError)
    assert "without end" in ended.what
    assert sum(path.stat().st_size for path in pc.logs if path.exists()) < 1 << 28


@linux_only
def test_a_deadline_and_ctrl_c_leave_no_process(pc: BochsPc) -> None:
    does(pc, f"echo waiting >serial.log; trap '' TERM INT; {stays(pc)}")
    with pytest.raises(DeadlineError) as late, powered(pc):
        pc.wait(Deadline.after(0.5))
    assert "waiting" in late.value.tail
    assert process.find(pc.spec.folder / "process.json", pc.sign) is None
    with pytest.raises(InterruptedByUser), powered(pc):
        cancelled.set()
        pc.wait(Deadline.after(20))
    cancelled.clear()
    assert process.find(pc.spec.folder / "process.json", pc.sign) is None


@linux_only
def test_one_that_runs_is_not_started_again_and_goes_on(pc: BochsPc) -> None:
    does(pc, stays(pc))
    with powered(pc):
        again = BochsPc(pc.spec, program=pc.program)
        with pytest.raises(UsageError, match="runs already"), powered(again):
            pass
        assert pc.running()
        record = pc.spec.folder / "process.json"
        written = files.read_json(record)
        for lost in (None, {}, {"pid": 1, "created": 0.0}, {**written, "created": 1.0}):
            files.write_json(record, lost)
            assert again.running(), "it is found by its settings file, whatever was written down"
        again.end()
    assert not pc.running() and not again.running()


@linux_only
def test_only_a_bochs_of_these_settings_is_ever_ended(pc: BochsPc) -> None:
    argv = [sys.executable, "-c", "input()", "-f", pc.sign.mark]  # an editor, say
    pc.spec.folder.mkdir()
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as child:
        try:
            process.remember(pc.spec.folder / "process.json", child.pid)
            assert not pc.running()
            pc.end()
            process.kill(psutil.Process(child.pid), pc.sign)
            assert child.poll() is None
        finally:
            child.kill()


@linux_only
def test_it_is_known_as_soon_as_it_is_started_and_whatever_starts_it(pc: BochsPc) -> None:
    """A script that takes its time, and one whose Bochs is started by the dynamic loader."""
    slow = Path(pc.program).with_name("emulate")
    slow.write_text(f'#!/bin/sh\n{_HELP}sleep 0.5\nexec /bin/sh -c "{stays(pc)}" /opt/bochs-bin "$@"\n')
    slow.chmod(0o755)
    pc.program = str(slow)
    with powered(pc):
        assert BochsPc(pc.spec, program=pc.program).running()
        poll(
            lambda: True if BochsPc(pc.spec).running() else None, Deadline.after(10), "its Bochs", every=0.05
        )
        assert BochsPc(pc.spec).running(), "a command whose settings name another Bochs knows it, too"


@linux_only
def test_its_processor_must_be_one_that_this_bochs_has(pc: BochsPc) -> None:
    assert pc.facts() == PcFacts("bochs", "2.7", "corei7_haswell_4770")
    with pytest.raises(BlockedError, match=r"Bochs 2\.7 has no processor corei7_skylake_x"):
        BochsPc(replace(pc.spec, cpu="skylake"), program=pc.program).start()
    with pytest.raises(UsageError, match="no emulated processor 'z80'"):
        BochsPc(replace(pc.spec, cpu="z80"), program=pc.program).start()
    with pytest.raises(BlockedError, match="not installed"):
        BochsPc(pc.spec, program="/nowhere/bochs").start()
    Path(pc.program).write_text("#!/bin/sh\necho something else\n")
    with pytest.raises(BlockedError, match="which Bochs"):
        pc.start()


def test_nothing_in_the_settings_can_listen_and_no_path_of_the_users_is_in_them(pc: BochsPc) -> None:
    text = pc.settings("corei7_haswell_4770")
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    assert lines["display_library"] == "term"
    assert not {"e1000", "ne2k", "pcipnic"} & lines.keys()
    assert lines["com1"] == "enabled=1, mode=file, dev=serial.log"
    assert lines["cpu"].startswith("model=corei7_haswell_4770, count=1, ips=200000000")
    assert lines["ata0"] == "enabled=0" and "ata0-master" not in lines
    assert str(pc.spec.folder) not in text


@linux_only
def test_a_bochs_with_a_debugger_is_told_to_begin_and_one_without_is_not(pc: BochsPc) -> None:
    pc.spec.folder.mkdir()
    assert "-rc" not in pc.arguments(pc.facts())
    text = Path(pc.program).read_text()
    option = "  -rc filename     execute debugger commands stored in file"
    Path(pc.program).write_text(text.replace("printf", f"echo '{option}'; printf", 1))
    argv = pc.arguments(pc.facts())
    assert argv[-2:] == ["-rc", "begin"]
    assert (pc.spec.folder / "begin").read_text() == "c\n"


@linux_only
def test_a_disk_is_there_by_whole_cylinders(pc: BochsPc, tmp_path: Path) -> None:
    disk = tmp_path / "a disk.raw"
    with disk.open("wb") as stream:
        stream.truncate(bochs.disk_bytes(10 << 20))
    with_disk = BochsPc(replace(pc.spec, disk=disk), program=pc.program, loader=pc.loader)
    line = 'type=disk, path=lab-disk, mode=flat, cylinders=21, heads=16, spt=63, model="lab-disk"'
    assert f"\nata0-master: {line}\n" in with_disk.settings("m")
    assert "volatile" not in with_disk.settings("m")
    does(with_disk, f"printf changed | dd of=lab-disk conv=notrunc 2>/dev/null; {_SOFT_OFF}")
    with powered(with_disk):
        with_disk.wait(Deadline.after(20))
    assert disk.read_bytes()[:8] == b"changed\0"
    disk.write_bytes(bytes(512))
    with pytest.raises(UsageError, match="has 512 bytes"):
        with_disk.start()


def test_the_system_disk_comes_first_and_what_is_written_there_is_forgotten(
    pc: BochsPc, tmp_path: Path
) -> None:
    disks = {"system": tmp_path / "a system", "disk": tmp_path / "a disk"}
    for path, least in zip(disks.values(), (1 << 20, 10 << 20), strict=True):
        with path.open("wb") as stream:
            stream.truncate(bochs.disk_bytes(least))
    text = BochsPc(replace(pc.spec, **disks)).settings("m")
    assert "ata0: enabled=1," in text
    assert "ata0-master: type=disk, path=lab-system, mode=volatile, cylinders=3," in text
    assert "ata0-slave: type=disk, path=lab-disk, mode=flat, cylinders=21," in text
    disks["system"].write_bytes(bytes(512))
    with pytest.raises(UsageError, match="a system has 512 bytes"):
        BochsPc(replace(pc.spec, **disks)).settings("m")


@given(st.integers(min_value=0, max_value=100 << 30))
def test_a_disks_size_is_enough_and_stays_what_it_is(least: int) -> None:
    size = bochs.disk_bytes(least)
    assert least <= size < least + 2 * 516096
    assert bochs.disk_bytes(size) == size


def test_a_disk_that_bochs_cannot_have_is_refused() -> None:
    with pytest.raises(UsageError, match="no disk of more than"):
        bochs.disk_bytes(200 << 30)


def test_the_cd_boots_isolinux_and_holds_the_kernel(pc: BochsPc, tmp_path: Path) -> None:
    target = tmp_path / "boot.iso"
    iso.write(target, pc.spec.kernel, pc.spec.initramfs, "console=ttyS0 quiet", pc.loader)
    image = pycdlib.PyCdlib()
    image.open(str(target))
    entry = image.eltorito_boot_catalog.initial_entry
    assert (entry.sector_count, entry.boot_media_type) == (4, 0)

    def read(name: str) -> str:
        content = io.BytesIO()
        image.get_file_from_iso_fp(content, iso_path=f"/{name};1")
        return content.getvalue().decode()

    assert (read("VMLINUZ."), read("INITRD.")) == ("the vmlinuz", "the initramfs")
    assert "APPEND console=ttyS0 quiet\n" in read("ISOLINUX.CFG")
    image.close()


@pytest.mark.parametrize("line", ["quiet\nKERNEL /OTHER", "café", "x" * 2001, "a\0b"])
def test_a_command_line_that_is_none_is_refused(pc: BochsPc, tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match="one line of ASCII"):
        iso.write(tmp_path / "boot.iso", pc.spec.kernel, pc.spec.initramfs, line, pc.loader)


def test_a_missing_loader_is_named_with_its_package(pc: BochsPc, tmp_path: Path) -> None:
    pc.loader.first.unlink()
    with pytest.raises(BlockedError, match=r"isolinux\.bin is not there") as caught:
        iso.write(tmp_path / "boot.iso", pc.spec.kernel, pc.spec.initramfs, "quiet", pc.loader)
    assert "isolinux" in caught.value.hint


def test_every_short_name_is_a_model_of_its_own() -> None:
    assert len({processor.model for processor in models.BOCHS.values()}) == len(models.BOCHS)
    assert models.processor("westmere") == models.Processor("corei5_arrandale_m520", "VT-x")
