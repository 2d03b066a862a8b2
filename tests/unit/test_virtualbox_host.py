import os
import sys
from pathlib import Path

import pytest

from lab.engines.virtualbox import host
from lab.engines.virtualbox.host import HostVirtualBox, glue, installed, parse_version
from lab.host.cpu import Cpu
from lab.host.facts import HostFacts, Kvm, Mac

MODULES = """\
vboxnetadp 28672 0 - Live 0x0000000000000000 (OE)
vboxdrv 729088 2 vboxnetadp,vboxnetflt, Live 0x0000000000000000 (OE)
kvm_amd 237568 0 - Live 0x0000000000000000
"""
WARNING = """\
WARNING: The vboxdrv kernel module is not loaded. Either there is no module
         available for the current kernel (6.1.0-1036-oem) or it failed to
         load. Please recompile the kernel module and install it by

           sudo /sbin/vboxconfig

         You will not be able to start VMs until this problem is fixed.
7.0.14r161095
"""


def facts(cpu, **more):
    return HostFacts("Debian", "13", "6.12", "x86_64", cpu, 2, 2**34, 2**33, "boot", **more)


@pytest.fixture
def on(monkeypatch):
    def switch(platform):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.delenv(host._PROGRAM_PATH, raising=False)

    return switch


def program_folder(folder, server="VBoxSVC", says="7.2.22_Debianr175245"):
    folder.mkdir(parents=True)
    (folder / server).touch()
    manage = folder / "VBoxManage"
    manage.write_text(f"#!/bin/sh\ncat <<'E'\n{says}\nE\n")
    manage.chmod(0o755)
    return folder


def test_linux(tmp_path, on, monkeypatch):
    on("linux")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/modules").write_text(MODULES)
    (tmp_path / "dev").mkdir()
    for name in ("vboxdrv", "vboxdrvu"):
        (tmp_path / "dev" / name).symlink_to("/dev/null")
    cpu = Cpu("AMD EPYC 9115", "AuthenticAMD", ("svm",), False, True)
    found = host.read(facts(cpu, kvm=Kvm(("kvm", "kvm_amd"))), tmp_path)
    assert found == HostVirtualBox(
        "linux",
        "AMD EPYC 9115",
        ("svm",),
        five_level_paging=True,
        bare_metal=True,
        driver_loaded=True,
        driver_device=True,
        driver_usable=True,
        kvm_modules=("kvm", "kvm_amd"),
    )
    assert found.holders == ("kvm_amd",)

    # Hardened: only the set-uid programs may open vboxdrv, and everybody vboxdrvu.
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "vboxdrv" and access(path, mode))
    assert host.read(facts(cpu), tmp_path).driver_usable
    (tmp_path / "dev/vboxdrvu").unlink()
    assert not host.read(facts(cpu), tmp_path).driver_usable


@pytest.mark.parametrize(("extension", "holders"), [("svm", ("kvm_amd",)), ("vmx", ("kvm_intel",))])
def test_the_other_vendors_module_holds_nothing(
    tmp_path: Path, extension: str, holders: tuple[str, ...]
) -> None:
    """Both may be built into the kernel."""
    cpu = Cpu("A CPU", "", (extension,))
    found = host.read(facts(cpu, kvm=Kvm(("kvm", "kvm_amd", "kvm_intel"))), tmp_path)
    assert found.holders == holders


@pytest.mark.parametrize(
    ("parameter", "at_load"), [("Y\n", True), ("1\n", True), ("N\n", False), (None, None)]
)
def test_whether_kvm_keeps_the_extension_is_read_where_linux_tells(tmp_path, on, parameter, at_load):
    on("linux")
    if parameter is not None:
        (tmp_path / "sys/module/kvm/parameters").mkdir(parents=True)
        (tmp_path / "sys/module/kvm/parameters/enable_virt_at_load").write_text(parameter)
    assert host.read(facts(Cpu()), tmp_path).kvm_at_load is at_load


def test_a_module_without_a_device_and_a_file_that_is_none(tmp_path, on):
    on("linux")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/modules").write_text(MODULES)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/vboxdrv").touch()
    found = host.read(facts(Cpu(hypervisor=True)), tmp_path)
    assert (found.driver_loaded, found.driver_device, found.driver_usable) == (True, False, False)
    assert not found.bare_metal
    assert host.read(root=tmp_path / "nothing").extensions == ()


def test_macos(tmp_path, on):
    on("darwin")
    intel = facts(Cpu("i9", "GenuineIntel", ("vmx", "hv_support")), mac=Mac("MacBookPro16,1", False))
    found = host.read(intel, tmp_path)
    assert (found.system, found.silicon, found.bare_metal) == ("macos", False, True)
    assert found.kvm_modules == ()
    assert host.read(facts(Cpu(), mac=Mac("Mac14,9", True)), tmp_path).silicon


@pytest.mark.parametrize(
    ("mode", "program"), [(0o644, ""), (0o755, "#!/nowhere\n"), (0o755, "#!/bin/sh\nexit 1\n")]
)
def test_what_does_not_answer_is_empty(tmp_path, mode, program):
    (tmp_path / "VBoxManage").write_text(program)
    (tmp_path / "VBoxManage").chmod(mode)
    (tmp_path / "VBoxSVC").touch()
    assert host.installed(str(tmp_path)).version_hint == ""


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7.2.22_Debianr175245\n", "7.2.22_Debianr175245"),
        (WARNING, "7.0.14r161095"),
        ("7.1.12r169651\r\n", "7.1.12r169651"),
        ("VBoxManage: not found", ""),
        ("", ""),
    ],
)
def test_versions(text, version):
    assert parse_version(text) == version


def test_found_in_the_usual_place_with_debians_glue(tmp_path, on):
    on("linux")
    folder = program_folder(tmp_path / "usr/lib/virtualbox", says=WARNING)
    debian = tmp_path / "usr/lib/python3/dist-packages"
    (debian / "vboxapi").mkdir(parents=True)
    (debian / "vboxapi/__init__.py").touch()
    found = installed(root=tmp_path)
    assert found is not None
    assert (found.folder, found.version_hint, found.glue) == (folder, "7.0.14r161095", (debian,))
    assert installed(root=tmp_path / "elsewhere") is None


def test_a_home_that_is_given_is_the_only_one(tmp_path, on, monkeypatch):
    on("linux")
    folder = program_folder(tmp_path / "usr/lib/virtualbox")
    assert installed(str(tmp_path / "none"), tmp_path) is None
    found = installed(str(folder), tmp_path / "elsewhere")
    assert found is not None
    assert found.version_hint == "7.2.22_Debianr175245"
    monkeypatch.setenv("VBOX_PROGRAM_PATH", str(folder))
    by_variable = installed(root=tmp_path / "elsewhere")
    assert by_variable is not None
    assert by_variable.folder == folder


def test_without_vboxmanage_the_version_is_not_known(tmp_path, on):
    on("darwin")
    (tmp_path / "VBoxSVC").touch()
    found = installed(str(tmp_path))
    assert found is not None
    assert (found.version_hint, found.glue) == ("", ())


@pytest.mark.parametrize(
    ("system", "layout"),
    [
        ("linux", "sdk/installer/python/vboxapi/src/vboxapi/__init__.py"),
        ("linux", "sdk/installer/vboxapi/__init__.py"),
        ("linux", "../python3.12/site-packages/vboxapi/__init__.py"),
        ("linux", "../python3/dist-packages/vboxapi.py"),
        ("macos", "sdk/installer/python/vboxapi/src/vboxapi/__init__.py"),
    ],
)
def test_layouts_of_the_glue(tmp_path, system, layout):
    folder = tmp_path / "lib/virtualbox"
    file = Path(os.path.normpath(folder / layout))
    file.parent.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    assert glue(folder, system) == ()
    file.touch()
    assert glue(folder, system) == (file.parent.parent if file.name == "__init__.py" else file.parent,)


def test_the_surest_glue_is_first(tmp_path):
    folder = tmp_path / "lib/virtualbox"
    places = [
        tmp_path / "lib/python3/dist-packages",
        folder / "sdk/installer/python/vboxapi/src",
        tmp_path / "lib/python3.13/site-packages",
    ]
    for place in reversed(places):
        (place / "vboxapi").mkdir(parents=True)
        (place / "vboxapi/__init__.py").touch()
    assert glue(folder, "linux") == tuple(places)
