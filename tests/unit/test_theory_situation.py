"""Hosts as predictions see them: read, written by a person, or taken from a cell."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.host.cpu import Cpu
from lab.host.facts import HostFacts, Mac, mac_cpu, parse_sysctl
from lab.model.domain import Cell, Claim, Host, Nesting
from lab.theory.knowledge import Outlook, predict
from lab.theory.situation import FLAGS, SYSTEMS, Situation, cpu, of_cell, of_host, parse_engine, parse_host

CELL = Cell(
    Host("linux", "Debian GNU/Linux 12", "6.1.0", "AMD EPYC"),
    "qemu",
    "7.2.22",
    "tcg",
    Nesting.EMULATED,
    True,
    "none",
    "debian-13-1",
    "canary",
    "sha256:2",
)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", ("intel", 8)),
        ("Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz", ("intel", 9)),
        ("Intel(R) Core(TM) i7-1065G7 CPU @ 1.30GHz", ("intel", 10)),
        ("12th Gen Intel(R) Core(TM) i7-12700H", ("intel", 12)),
        ("Intel(R) Core(TM) i5-4670T CPU @ 2.30GHz", ("intel", 4)),
        ("Intel(R) Core(TM) i7 CPU 920 @ 2.67GHz", ("intel", None)),
        ("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", ("intel", None)),
        ("Apple M3 Pro", ("apple", 3)),
        ("Apple M1", ("apple", 1)),
        ("AMD EPYC 9115", ("amd", None)),
        ("aarch64", ("arm", None)),
        ("a CPU", (None, None)),
    ],
)
def test_processors(model: str, expected: tuple[str | None, int | None]) -> None:
    assert cpu(model) == expected


def test_the_vendor_goes_before_the_model() -> None:
    assert cpu("QEMU TCG CPU version 2.5+", "AuthenticAMD") == ("amd", None)
    assert cpu("", "", "aarch64") == ("arm", None)


def test_this_kind_of_host() -> None:
    facts = HostFacts(
        "Debian GNU/Linux",
        "12",
        "6.1",
        "x86_64",
        Cpu("AMD EPYC", "AuthenticAMD", (), True, False, "KVMKVMKVM"),
        2,
        1,
        1,
        "boot",
    )
    found = of_host(facts, False, False)
    assert found == Situation(
        "linux",
        "amd",
        "12",
        None,
        True,
        False,
        False,
        False,
        hyperv=False,
        kvm=False,
        nested=False,
        distribution="Debian",
        kernel="6.1",
    )
    assert found.describe() == (
        "Debian 12, Linux 6.1 on AMD, itself a virtual machine, no virtualization extensions, no usable KVM"
    )


def test_macs() -> None:
    values = parse_sysctl(
        "hw.optional.arm64: 1\nmachdep.cpu.brand_string: Apple M3 Max\nkern.hv_support: 1\n"
    )
    facts = HostFacts(
        "macOS", "15.2", "24", "arm64", mac_cpu(values), 8, 1, 1, "b", mac=Mac("Mac15,9", silicon=True)
    )
    found = of_host(facts, None, False)
    assert (found.system, found.cpu, found.generation, found.os_version) == ("macos", "apple", 3, "15.2")
    assert found.extensions is True and found.kvm is None
    assert found.describe() == "macOS 15.2 on Apple M3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("macos-intel:13", "macOS 13 on Intel"),
        ("macos-m3:15.1", "macOS 15.1 on Apple M3"),
        ("linux-intel8", "Linux on Intel, KVM works, KVM hands virtualization on"),
        (
            "linux-amd:24.04,vm,no-extensions",
            "Linux (release 24.04) on AMD, itself a virtual machine, no virtualization extensions, "
            "no usable KVM",
        ),
        ("windows-intel:11,hyperv", "Windows 11 on Intel, Hyper-V active"),
        ("Windows-AMD:10", "Windows 10 on AMD"),
        ("linux-arm", "Linux on Arm, no usable KVM"),
    ],
)
def test_hosts_a_person_writes(text: str, said: str) -> None:
    assert parse_host(text).describe() == said


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "macos",
        "macos-amd",
        "macos-m",
        "linux-m3",
        "linux-intel:x",
        "solaris-sparc",
        "linux-amd8",
        "linux-amd,",
    ],
)
def test_hosts_that_are_none(wrong: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_host(wrong)
    assert caught.value.hint


def test_a_word_that_says_nothing_has_a_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        parse_host("linux-amd,extension")
    assert "extensions" in caught.value.hint
    assert parse_engine("VirtualBox:7.1") == ("virtualbox", "7.1")
    assert parse_engine("qemu") == ("qemu", "")
    for wrong in ("virtualbix", "virtualbox:new"):
        with pytest.raises(UsageError) as caught:
            parse_engine(wrong)
        assert "virtualbox" in caught.value.hint


@given(st.text())
def test_any_text_is_a_host_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert parse_host(text).system in SYSTEMS


def test_a_cell_says_what_it_recorded_and_no_more() -> None:
    found = of_cell(CELL)
    assert (found.system, found.cpu, found.os_version) == ("linux", "amd", "12")
    assert (found.engine, found.engine_version, found.kvm) == ("qemu", "7.2.22", False)
    assert all(getattr(found, name) is None for name in FLAGS if name != "kvm")


def test_a_cell_of_this_host_is_filled_in_from_it() -> None:
    here = Situation(
        "linux", "amd", "12", None, True, False, False, False, hyperv=False, kvm=False, nested=False
    )
    virtualbox = dataclasses.replace(
        CELL, engine="virtualbox", acceleration="hwvirt", nesting=Nesting.HARDWARE, emulated=False
    )
    filled = dataclasses.replace(here, distribution="Debian", kernel="6.1.0")
    assert of_cell(virtualbox, here) == filled.on("virtualbox", "7.2.22")
    other = dataclasses.replace(here, os_version="13")
    assert of_cell(virtualbox, other).extensions is None


@pytest.mark.parametrize(("nesting", "nested"), [(Nesting.HARDWARE, True), (Nesting.NONE, False)])
def test_what_qemu_ran_with_is_known_of_its_cell(nesting: Nesting, nested: bool) -> None:
    cell = dataclasses.replace(CELL, acceleration="kvm", nesting=nesting, emulated=False)
    found = of_cell(cell, Situation("linux", "amd", "12", kvm=False, nested=None))
    assert (found.kvm, found.nested) == (True, nested)


def test_qemu_under_libvirt_is_qemu() -> None:
    """As Vagrant's road names it in a cell: what is predicted for QEMU is predicted for it."""
    by = dataclasses.replace(
        CELL, engine="libvirt-qemu", engine_version="7.2.22 by Vagrant 2.3.4 and libvirt 9.0.0"
    )
    assert dataclasses.replace(of_cell(by), engine_version="7.2.22") == of_cell(CELL)
    hardware = dataclasses.replace(by, acceleration="kvm", nesting=Nesting.HARDWARE, emulated=False)
    here = parse_host("linux-amd:12")
    for cell in (by, hardware):
        expected = predict(of_cell(cell, here))
        assert expected.claims == predict(of_cell(dataclasses.replace(cell, engine="qemu"), here)).claims
        assert expected.claims[Claim.NESTING] is Outlook.CONFIRMED


def test_an_emulated_processor_is_known_by_its_name() -> None:
    host = dataclasses.replace(CELL.host, cpu="QEMU TCG CPU version 2.5+")
    assert of_cell(dataclasses.replace(CELL, host=host)).emulated is True


@pytest.mark.parametrize(
    ("emulated", "acceleration", "nesting", "known"),
    [
        (True, "hwvirt", Nesting.HARDWARE, True),  # no other processor in the chain is software
        (True, "tcg", Nesting.EMULATED, None),
        (False, "hwvirt", Nesting.HARDWARE, None),  # told by the processor's name, once
        (None, "hwvirt", Nesting.HARDWARE, None),
    ],
)
def test_an_emulated_host_is_known_from_its_cell(
    emulated: bool | None, acceleration: str, nesting: Nesting, known: bool | None
) -> None:
    cell = dataclasses.replace(
        CELL, engine="virtualbox", acceleration=acceleration, nesting=nesting, emulated=emulated
    )
    assert of_cell(cell).emulated is known
    real = Situation("linux", "amd", "12", extensions=True, emulated=False)
    filled = of_cell(cell, real)
    assert (filled.extensions, filled.emulated) == ((None, True) if known else (True, False))


def test_a_processor_that_names_no_maker_is_the_hosts_own() -> None:
    cell = dataclasses.replace(CELL, host=dataclasses.replace(CELL.host, cpu="QEMU TCG CPU version 2.5+"))
    here = Situation("linux", "amd", "12", extensions=True, emulated=True)
    assert (of_cell(cell, here).cpu, of_cell(cell, here).extensions) == ("amd", True)
    assert of_cell(CELL, dataclasses.replace(here, cpu="intel")).extensions is None


@pytest.mark.parametrize(
    ("os", "kernel", "said"),
    [
        ("Debian GNU/Linux 12", "6.1.0-28-amd64", "Debian 12, Linux 6.1 on AMD"),
        ("Ubuntu 24.04", "6.8.0-41-generic", "Ubuntu 24.04, Linux 6.8 on AMD"),
        ("Arch Linux", "6.12.1-arch1-1", "Arch Linux, Linux 6.12 on AMD"),
        ("Debian GNU/Linux", "", "Debian, Linux on AMD"),
    ],
)
def test_a_distribution_is_named_and_its_release_is_none_of_linux(os: str, kernel: str, said: str) -> None:
    cell = dataclasses.replace(CELL, host=dataclasses.replace(CELL.host, os=os, kernel=kernel))
    name, _, version = os.rpartition(" ")
    version = version if version[0].isdigit() else ""
    facts = HostFacts(name if version else os, version, kernel, "x86_64", Cpu("AMD EPYC"), 2, 1, 1, "boot")
    for found in (of_cell(cell), of_host(facts, None, None)):
        assert found.describe().startswith(said), found.describe()
