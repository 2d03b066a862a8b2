from dataclasses import replace
from pathlib import Path

import pytest

from lab.engines.virtualbox.diagnosis import can_start_64bit, caution, expected_engine, findings
from lab.engines.virtualbox.host import HostVirtualBox, Installed

LINUX = HostVirtualBox(
    "linux",
    "AMD EPYC 7R32",
    ("svm",),
    bare_metal=True,
    driver_loaded=True,
    driver_device=True,
    driver_usable=True,
)
MAC = HostVirtualBox("macos", "Intel Core i9", ("vmx", "hv_support"), bare_metal=True)
M3 = HostVirtualBox("macos", "Apple M3", ("hv_support",), bare_metal=True, silicon=True)
V7 = Installed(Path("/usr/lib/virtualbox"), "7.2.22_Debianr175245")
V6 = Installed(Path("/Applications/VirtualBox.app/Contents/MacOS"), "6.1.50r161033")


@pytest.mark.parametrize(
    ("host", "installed", "engine", "usable", "why"),
    [
        (LINUX, None, "default", False, "not installed"),
        (LINUX, V7, "default", True, "on svm by its driver"),
        (LINUX, V7, "hwvirt", True, "on svm by its driver"),
        (replace(LINUX, extensions=()), V7, "default", False, "no vmx or svm"),
        (replace(LINUX, driver_device=False), V7, "default", False, "there is no /dev/vboxdrv"),
        (replace(LINUX, driver_device=False, driver_loaded=False), V7, "default", False, "is not loaded"),
        (replace(LINUX, driver_usable=False), V7, "default", False, "can open neither"),
        (replace(LINUX, five_level_paging=True), V7, "default", True, "5-level paging"),
        (replace(LINUX, kvm_modules=("kvm", "kvm_amd")), V7, "default", True, "unless kvm_amd runs a guest"),
        (
            replace(LINUX, kvm_modules=("kvm", "kvm_amd"), kvm_at_load=True),
            V7,
            "default",
            True,
            "unless kvm_amd holds",
        ),
        (replace(LINUX, driver_device=False, extensions=()), V7, "interpreter", True, "slow"),
        (LINUX, V6, "interpreter", False, "from 7.1 on"),
        (M3, V7, "default", False, "Apple silicon"),
        (M3, V7, "interpreter", False, "Apple silicon"),
        (MAC, V7, "default", True, "Hypervisor.framework"),
        (replace(MAC, extensions=()), V7, "default", False, "does not offer"),
        (MAC, V6, "default", False, "kernel extension"),
        (replace(MAC, driver_device=True), V6, "default", True, "its own kernel extension"),
    ],
)
def test_whether_a_vm_can_be_started(host, installed, engine, usable, why):
    found = can_start_64bit(host, installed, engine)
    assert found.usable is usable
    assert why in found.why
    assert found.usable or found.hint


def test_a_caution_only_where_a_whole_host_can_be_lost():
    assert "#30" in caution(LINUX) and "#712" in caution(LINUX)
    for host in (replace(LINUX, bare_metal=False), MAC, M3):
        assert caution(host) == ""


def test_a_sound_linux_host():
    found = findings(LINUX, V7, "7.2.22_Debian", "vboxapi from /usr/lib/python3/dist-packages", "hwvirt")
    lines = [item for item in found if not item.source]
    assert [item.name for item in lines] == [
        "version", "api", "host's loopback", "driver", "cpu", "kvm modules", "last run",
    ]  # fmt: skip
    assert all(item.good for item in lines)
    assert {"host-hard-lock", "svm-guest-modes"} <= {item.name for item in found if item.source}
    assert all(not item.good and item.observed for item in found if item.source)


def test_what_is_bad_has_a_hint():
    host = replace(
        LINUX,
        driver_device=False,
        driver_loaded=False,
        kvm_modules=("kvm", "kvm_amd"),
        kvm_at_load=True,
        bare_metal=False,
    )
    by_name = {item.name: item for item in findings(host, V7, "7.2.22", "", "interpreter", "no module xpcom")}
    assert "no module xpcom" in by_name["api"].observed
    assert "itself in a virtual machine" in by_name["cpu"].observed
    assert "modprobe" in by_name["driver"].hint
    assert "rmmod kvm_amd" in by_name["kvm modules"].hint
    assert not by_name["last run"].good
    assert "host-hard-lock" not in by_name


def test_before_linux_6_12_a_loaded_kvm_is_nothing_bad():
    host = replace(LINUX, kvm_modules=("kvm", "kvm_amd"))
    by_name = {item.name: item for item in findings(host, V7, "7.1.12", "x", "")}
    assert by_name["kvm modules"].good and "while a guest of it runs" in by_name["kvm modules"].observed
    assert not {"kvm-holds-the-cpu", "kvm-beside-virtualbox"} & set(by_name)


@pytest.mark.parametrize(("version", "closed"), [("7.0.0", True), ("7.2.22", True), ("6.1.50r161033", False)])
def test_where_nat_leads_to_the_hosts_loopback(version, closed):
    by_name = {item.name: item for item in findings(LINUX, V7, version, "x", "")}
    finding = by_name["host's loopback"]
    assert finding.good is closed and bool(finding.hint) is not closed


def test_not_installed():
    found = findings(LINUX, None, "", "", "")
    assert [item.name for item in found] == ["driver", "cpu", "kvm modules"]


def test_macos():
    on_mac = {item.name: item for item in findings(MAC, V7, "7.2.22", "x", "native")}
    assert on_mac["hypervisor"].good
    assert not on_mac["last run"].good
    assert "kvm modules" not in on_mac
    assert not on_mac["macos-hypervisor-framework"].good
    assert "driver" in {item.name for item in findings(MAC, V6, "6.1.50", "x", "")}
    assert not {item.name: item for item in findings(M3, V7, "7.2.22", "x", "")}["cpu"].good


@pytest.mark.parametrize("release", ["12.7.4", "13.6.7", "26.1"])
def test_who_has_6_1_on_a_mac_is_not_sent_to_another_version(release):
    """6.1 is the theory's open cell: 7.0 there answers another question."""
    host = replace(MAC, macos_version=release)
    blocked = can_start_64bit(host, V6)
    driver = next(item for item in findings(host, V6, "6.1.50", "x", "") if item.name == "driver")
    for hint in (blocked.hint, driver.hint):
        assert "System Settings" in hint and "7.0" not in hint and "modprobe" not in hint
        assert ("macOS 12" in hint) is (release != "12.7.4")
    assert "vboxdrv" not in driver.observed and not driver.good
    hints = [item.hint for item in findings(host, V6, "6.1.50", "x", "")]
    assert not [hint for hint in hints if "VirtualBox 7" in hint or "upgrade" in hint or "newer" in hint]
    loaded = findings(replace(host, driver_device=True, driver_usable=True), V6, "6.1.50", "x", "")
    assert next(item for item in loaded if item.name == "driver").good


@pytest.mark.parametrize(
    ("host", "installed", "broken"),
    [
        (MAC, V6, True),
        (replace(MAC, extensions=()), V7, True),
        (MAC, None, False),
        (M3, V7, False),  # no VirtualBox runs an x86 VM there: nothing is to be mended
        (MAC, V7, False),
    ],
)
def test_what_is_broken_is_told_from_what_is_not_there(host, installed, broken):
    assert can_start_64bit(host, installed).broken is broken


@pytest.mark.parametrize(
    ("host", "version", "engine"),
    [
        (LINUX, "7.2.22", "hwvirt"),
        (MAC, "7.2.22", "native"),
        (MAC, "6.1.50", "hwvirt"),
    ],
)
def test_the_engine_to_expect(host, version, engine):
    assert expected_engine(host, version) == engine
