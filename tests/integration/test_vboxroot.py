"""The root in which other tests have a real VirtualBox: it works, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from lab.config.loading import PROJECT
from lab.core import proc
from lab.core.deadline import Deadline, poll
from tests.integration.vboxroot import Instance, Root, mounted

pytestmark = pytest.mark.slow

_GLUE = """
import vboxapi
manager = vboxapi.VirtualBoxManager(None, None)
print(vboxapi.__file__, manager.getVirtualBox().version)
"""
_LEFT_BEHIND = """
import sys, time
from pathlib import Path
from tests.integration.vboxroot import Root, mounted
with mounted(Root(Path(sys.argv[1])), Path(sys.argv[2])) as instance:
    instance.run("VBoxManage", "list", "vms")
    print(instance.keeper, instance.base, *instance.processes(), flush=True)
    time.sleep(600)
"""


def _python(vbox: Instance, *words: str | Path, **env: str) -> str:
    """What the wrapper prints: run as lab's engine runs it, without `Instance.run`."""
    return proc.run([vbox.python, *words], env=env, deadline=Deadline.after(60)).out


def _booted(vbox: Instance, root: Root, folder: Path) -> Path:
    """A VM that runs boot.s; the file that receives its serial port."""
    folder.mkdir(exist_ok=True)
    name, serial = f"boot-{uuid.uuid4()}", folder / "serial"
    disk = root.boot_disk(folder / "boot.vdi")
    manage = ("VBoxManage", "-q")
    vbox.run(*manage, "createvm", "--name", name, "--ostype", "Other", "--register", "--basefolder", folder)
    settings = ["--memory", "32", "--nic1", "none", "--vm-execution-engine", "interpreter"]
    vbox.run(*manage, "modifyvm", name, *settings, "--uart1", "0x3f8", "4", "--uart-mode1", "file", serial)
    vbox.run(*manage, "storagectl", name, "--name", "ide", "--add", "ide")
    place = ["--storagectl", "ide", "--port", "0", "--device", "0", "--type", "hdd"]
    vbox.run(*manage, "storageattach", name, *place, "--medium", disk)
    vbox.run(*manage, "startvm", name, "--type", "headless")
    return serial


def _says(serial: Path, text: str) -> None:
    def said() -> bool | None:
        return (serial.exists() and text in serial.read_text(errors="replace")) or None

    poll(said, Deadline.after(60), f"{text!r} on the guest's serial port", every=0.1)


def _alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # whose parent is not the tests
    return False


def _gone(keeper: int, base: Path, pids: list[int]) -> bool:
    """That neither a process nor a mount nor a folder is left."""
    mounts = Path("/proc/self/mountinfo").read_text()
    return not any(map(_alive, [keeper, *pids])) and str(base) not in mounts and not base.exists()


def test_the_wrapper_is_sids_python_with_the_callers_environment(vbox: Instance, tmp_path: Path) -> None:
    said = _python(vbox, "-c", "import sys, os; print(sys.version_info[:2], os.environ['WORD'])", WORD="kept")
    assert said.endswith(") kept\n") and eval(said.removesuffix(" kept\n")) >= (3, 13)  # noqa: S307
    assert vbox.path("/etc/debian_version").read_text().strip().endswith("/sid")
    where = tmp_path / "script.py"
    where.write_text("import os, lab, sys; print(os.getpid(), lab.__file__); open(sys.argv[1], 'w')")
    child = subprocess.Popen(
        [vbox.python, where, tmp_path / "made inside"],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.communicate(timeout=60)[0] == f"{child.pid} {PROJECT / 'lab/__init__.py'}\n"
    assert (tmp_path / "made inside").exists()


def test_virtualbox_answers_through_its_own_glue(vbox: Instance) -> None:
    # Debian's starter warns on standard output that there is no driver.
    assert vbox.run("VBoxManage", "--version").out.splitlines()[-1].startswith("7.2.")
    module, version = _python(vbox, "-c", _GLUE).split()
    assert module.startswith("/usr/lib/python3/dist-packages/vboxapi/")
    assert version.startswith("7.2.")
    assert "VBoxSVC" in vbox.processes().values()
    assert (vbox.home / "VBoxSVC.log").exists()


def test_a_guest_really_runs(vbox: Instance, vbox_root: Root, tmp_path: Path) -> None:
    serial = _booted(vbox, vbox_root, tmp_path)
    _says(serial, "BOOT-OK")
    name = next(path.stem for path in tmp_path.glob("*/*.vbox"))
    vbox.run("VBoxManage", "-q", "controlvm", name, "keyboardputstring", "echo")
    _says(serial, "echo")
    vbox.run("VBoxManage", "-q", "controlvm", name, "poweroff")


def test_nothing_is_left_even_of_a_running_guest(vbox_root: Root, tmp_path: Path) -> None:
    with mounted(vbox_root, tmp_path / "home", [tmp_path]) as one:
        with mounted(vbox_root, tmp_path / "other", [tmp_path]) as two:
            _says(_booted(one, vbox_root, tmp_path / "vm"), "BOOT-OK")
            two.run("VBoxManage", "list", "vms")
            other = list(two.processes())
            assert other and two.run("touch", "/etc/mark").status == 0
        assert _gone(two.keeper, two.base, other)
        mine = one.processes()
        assert {"VBoxSVC", "VBoxHeadless"} <= set(mine.values()), "another instance's end is none of ours"
        assert not one.path("/etc/mark").exists()
    assert _gone(one.keeper, one.base, list(mine))
    assert not (vbox_root.tree / "etc/mark").exists()
    assert (tmp_path / "home/VirtualBox.xml").exists(), "what was bind-mounted stays"


def test_nothing_is_left_when_the_tests_are_killed(vbox_root: Root, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _LEFT_BEHIND, vbox_root.folder, tmp_path / "home"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    keeper, base, *pids = child.stdout.readline().split()
    assert pids
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=10)
    everything = (int(keeper), Path(base), [int(pid) for pid in pids])
    poll(lambda: _gone(*everything) or None, Deadline.after(30), "the end of everything", every=0.1)


def test_what_holds_the_root_cannot_be_in_it(vbox_root: Root, tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="holds the root's own place"),
        mounted(vbox_root, tmp_path / "home", [Path("/")]),
    ):
        pass
