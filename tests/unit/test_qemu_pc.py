"""How an emulated PC is described to QEMU, and how its endings are told apart. QEMU is a script here."""

from __future__ import annotations

import itertools
import os
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError, LabError, UsageError
from lab.rehearsal import choice, models, process
from lab.rehearsal.bochs import BochsPc
from lab.rehearsal.pc import PcFacts, PcSpec, powered
from lab.rehearsal.qemu import QemuPc

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="an emulated PC is for Linux")

_VERSION = """case "$*" in *--version*) case "$*" in *-sandbox*) exit 1;; esac
echo "QEMU emulator version 7.2.22 (Debian 1:7.2)"; exit 0;; esac
"""
_GREETING = '{"QMP": {"version": {}}}'


def _event(reason: str) -> str:
    guest = str(reason.startswith("guest")).lower()
    return (
        f'{{"timestamp": {{"seconds": 1}}, "event": "SHUTDOWN", '
        f'"data": {{"guest": {guest}, "reason": "{reason}"}}}}'
    )


@pytest.fixture
def pc(tmp_path: Path) -> QemuPc:
    for name in ("vmlinuz", "initramfs"):
        (tmp_path / name).write_text(f"the {name}")
    spec = PcSpec(
        str(uuid.uuid4()),
        tmp_path / "a, b",
        "amd",
        512,
        tmp_path / "vmlinuz",
        tmp_path / "initramfs",
        "quiet",
    )
    os.mkfifo(tmp_path / "never")
    return QemuPc(spec, program=str(tmp_path / "qemu-system-x86_64"))


def does(pc: QemuPc, script: str) -> None:
    path = Path(pc.program)
    path.write_text(f"#!/bin/sh\n{_VERSION}{script}\n")
    path.chmod(0o755)


def tells(*messages: str, status: int = 0) -> str:
    """QEMU's protocol: a greeting, an answer to what it is asked first, its events."""
    lines = "".join(f"echo '{message}'\n" for message in messages)
    return f"echo '{_GREETING}'; read -r asked; echo '{{\"return\": {{}}}}'\n{lines}exit {status}"


def _ended(pc: QemuPc, script: str) -> LabError:
    does(pc, script)
    with pytest.raises(LabError) as caught, powered(pc):
        pc.wait(Deadline.after(20))
    assert not pc.running()
    return caught.value


@linux_only
def test_a_pc_that_switches_itself_off_ends_well(pc: QemuPc) -> None:
    does(pc, f"printf 'one\\ntwo' >serial.log\n{tells(_event('guest-shutdown'))}")
    heard: list[str] = []
    with powered(pc):
        pc.wait(Deadline.after(20), heard.append)
    assert heard == ["one", "two"]
    assert not pc.running()


@linux_only
def test_every_other_end_says_nothing_of_the_guest_and_names_itself(pc: QemuPc) -> None:
    restarted = _ended(pc, f"echo last words >serial.log; {tells(_event('guest-reset'))}")
    assert isinstance(restarted, InconclusiveError)
    assert "restarted" in restarted.what and "last words" in restarted.tail
    assert str(pc.serial) in restarted.evidence
    assert "QEMU calls it host-signal" in _ended(pc, tells(_event("host-signal"))).what
    silent = _ended(pc, "echo 'could not open lab-disk' >&2; exit 1")
    assert "ended with status 1" in silent.what and "could not open lab-disk" in silent.tail
    assert "SIGKILL" in _ended(pc, "kill -KILL $$").what
    assert "ended with status 0" in _ended(pc, tells()).what, "nobody said that the guest did it"
    assert "status 3" in _ended(pc, tells(_event("guest-shutdown"), status=3)).what
    assert "restarted" in _ended(pc, tells(_event("guest-shutdown"), _event("guest-reset"))).what
    odd = tells("torn", "[1]", '{"event": "SHUTDOWN"}', '{"event": "SHUTDOWN", "data": 3}')
    assert isinstance(_ended(pc, odd), InconclusiveError)


@linux_only
def test_a_guest_cannot_say_what_qemu_says(pc: QemuPc) -> None:
    forged = _event("guest-shutdown")
    assert isinstance(_ended(pc, f"echo '{forged}' | tee serial.log >&2; {tells()}"), InconclusiveError)


@linux_only
def test_a_deadline_leaves_no_process_and_another_command_ends_it(pc: QemuPc) -> None:
    does(pc, f"trap '' TERM; read -r nothing <>'{Path(pc.program).with_name('never')}'")
    with pytest.raises(DeadlineError), powered(pc):
        pc.wait(Deadline.after(0.5))
    assert process.find(pc.spec.folder / "process.json", pc.sign) is None
    with powered(pc):
        again = QemuPc(pc.spec)
        with pytest.raises(UsageError, match="runs already"):
            QemuPc(pc.spec, program=pc.program).start()
        assert again.running()
        again.end()
    assert not pc.running() and not again.running()


def test_its_qemu_must_be_one_that_emulates_well(pc: QemuPc) -> None:
    does(pc, "exit 0")
    assert pc.facts() == PcFacts("qemu", "7.2.22", "max")
    with pytest.raises(BlockedError, match="not installed"):
        QemuPc(pc.spec, program="/nowhere/qemu-system-x86_64").start()
    for version, why in (("7.1.0", r"QEMU 7\.1\.0 emulates AMD-V not well enough"), ("x", "which QEMU")):
        Path(pc.program).write_text(f"#!/bin/sh\necho QEMU emulator version {version}\n")
        with pytest.raises(BlockedError, match=why):
            pc.start()


def test_nothing_in_its_arguments_can_listen(pc: QemuPc) -> None:
    does(pc, "exit 0")
    argv = pc.arguments(pc.facts())
    words = dict(itertools.pairwise(argv))
    assert [words[name] for name in ("-nic", "-display", "-vga", "-qmp")] == ["none", "none", "none", "stdio"]
    assert words["-serial"] == "file:serial.log"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert not any(word in " ".join(argv) for word in ("socket", "tcp:", "unix:", "vnc", "hostfwd", "-drive"))
    assert words["-cpu"].startswith("max,svm=on,npt=on,la57=off") and ",xsave=off," in words["-cpu"]
    assert words["-append"] == "quiet" and words["-uuid"] == pc.spec.uuid


def test_it_is_put_into_a_sandbox_where_its_build_has_one(pc: QemuPc) -> None:
    does(pc, "exit 0")
    assert "-sandbox" not in pc.arguments(pc.facts())
    Path(pc.program).write_text("#!/bin/sh\necho QEMU emulator version 8.0\n")
    argv = pc.arguments(pc.facts())
    assert argv[argv.index("-sandbox") + 1].startswith("on,")


def test_its_disks_are_links_in_its_folder_and_the_system_disk_is_a_snapshot(
    pc: QemuPc, tmp_path: Path
) -> None:
    does(pc, tells(_event("guest-shutdown")))
    for name in ("a, system", "a, disk"):
        (tmp_path / name).write_bytes(bytes(512))
    both = QemuPc(
        replace(pc.spec, system=tmp_path / "a, system", disk=tmp_path / "a, disk"), program=pc.program
    )
    argv = both.arguments(both.facts())
    drives = [argv[place + 1] for place, word in enumerate(argv) if word == "-drive"]
    assert drives == [
        "if=none,id=lab-system,file=lab-system,format=raw,cache=unsafe,snapshot=on",
        "if=none,id=lab-disk,file=lab-disk,format=raw,cache=unsafe,snapshot=off",
    ]
    with powered(both):
        assert (pc.spec.folder / "lab-system").readlink() == tmp_path / "a, system"
        assert (pc.spec.folder / "lab-disk").readlink() == tmp_path / "a, disk"
        both.wait(Deadline.after(20))
    with powered(pc):
        assert not any(os.path.lexists(pc.spec.folder / name) for name in ("lab-system", "lab-disk"))
        pc.wait(Deadline.after(20))


def test_a_command_line_that_is_none_is_refused(pc: QemuPc) -> None:
    does(pc, "exit 0")
    odd = QemuPc(replace(pc.spec, command_line="quiet\nrdinit=/other"), program=pc.program)
    with pytest.raises(UsageError, match="one line of ASCII"):
        odd.start()


def test_a_processor_decides_the_kind_of_its_pc(pc: QemuPc) -> None:
    assert isinstance(choice.pc(pc.spec), QemuPc)
    intel = choice.pc(replace(pc.spec, cpu="haswell"), bochs="/opt/bochs")
    assert isinstance(intel, BochsPc)
    assert intel.program == "/opt/bochs"
    with pytest.raises(UsageError, match="no emulated processor 'z80'") as caught:
        choice.pc(replace(pc.spec, cpu="z80"))
    assert all(name in caught.value.hint for name in ("haswell", "prescott", "amd"))
    with pytest.raises(UsageError, match="no emulated processor 'haswell'"):
        QemuPc(replace(pc.spec, cpu="haswell"), program=pc.program).start()
    with pytest.raises(UsageError, match="no emulated processor 'amd'"):
        BochsPc(pc.spec).start()


def test_what_runs_vms_is_known_of_every_processor() -> None:
    assert set(models.PROCESSORS) == set(models.BOCHS) | set(models.QEMU)
    assert len(models.PROCESSORS) == len(models.BOCHS) + len(models.QEMU)
    extensions = {name: processor.extension for name, processor in models.PROCESSORS.items()}
    assert {name for name, extension in extensions.items() if extension == "AMD-V"} == {
        "bulldozer",
        "zen",
        "amd",
    }
    assert [name for name, extension in extensions.items() if not extension] == ["prescott"]
