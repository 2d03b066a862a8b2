"""QEMU's argument list: forwards on the loopback whatever is asked, and the CPU it offers."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.engines.protocol import LOOPBACK, Forward, MachineSpec
from lab.engines.qemu.command import Hardware, accelerator_option, build, cpu_model, hardware
from lab.engines.qemu.layout import QemuLayout

SPEC = MachineSpec(
    uuid="5b0b2f4e-7a52-4e0f-9d3d-3f0c7d0d8a11",
    name="default",
    folder=Path("/state/engine"),
    base_disk=Path("/cache/base.qcow2"),
    seed=Path("/state/seed.iso"),
    cpus=2,
    memory_mib=4096,
    disk_gib=20,
)
VIRTUAL = Hardware("pc-q35-7.2", "tcg", "max", 2, 4096)

PORTS = st.integers(1, 65535)
FORWARDS = st.lists(st.builds(Forward, st.text(max_size=20), PORTS, PORTS), max_size=6)


def _argv(spec: MachineSpec = SPEC, forwards: list[Forward] | None = None, **more: str) -> list[str]:
    layout = QemuLayout(spec.folder, spec.uuid)
    return build("qemu-system-x86_64", spec, VIRTUAL, layout, forwards or [], host="x86_64", **more)  # type: ignore[arg-type]


def _values(argv: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(argv) if name == option]


def test_the_whole_list() -> None:
    argv = _argv(forwards=[Forward("ssh", 2222, 22), Forward("adb", 5556, 5555)])
    assert argv == [
        *("qemu-system-x86_64", "-name", "lab-default", "-uuid", SPEC.uuid),
        *("-nodefaults", "-no-user-config", "-msg", "timestamp=on", "-pidfile", "/state/engine/qemu.pid"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", "pc-q35-7.2", "-cpu", "max", "-smp", "2", "-accel", "tcg,thread=multi"),
        *("-m", "4096M", "-rtc", "base=utc", "-boot", "menu=off,strict=on"),
        "-blockdev",
        '{"driver": "qcow2", "node-name": "disk", "discard": "unmap", "file": {"driver": "file", '
        '"filename": "/state/engine/disk.qcow2", "discard": "unmap"}}',
        "-blockdev",
        '{"driver": "raw", "node-name": "seed", "read-only": true, "file": {"driver": "file", '
        '"filename": "/state/seed.iso", "read-only": true}}',
        "-device",
        '{"driver": "virtio-blk-pci", "drive": "disk", "bootindex": 0, "serial": "lab-disk"}',
        *("-device", '{"driver": "virtio-blk-pci", "drive": "seed", "serial": "lab-seed"}'),
        "-netdev",
        "user,id=net0,restrict=off,ipv6=off,hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.0.0.1:5556-:5555",
        *("-device", '{"driver": "virtio-net-pci", "netdev": "net0", "romfile": ""}'),
        *("-object", "rng-builtin,id=rng0", "-device", '{"driver": "virtio-rng-pci", "rng": "rng0"}'),
        *("-display", "none", "-vga", "std"),
        *("-chardev", "file,id=console,append=on,path=/state/engine/console.log"),
        *("-serial", "chardev:console"),
        *("-chardev", "socket,id=control,server=on,wait=off,path=/state/engine/qmp.sock"),
        *("-mon", "chardev=control,mode=control"),
    ]


@given(FORWARDS)
def test_every_forward_is_on_the_loopback(forwards: list[Forward]) -> None:
    (network,) = _values(_argv(forwards=forwards), "-netdev")
    rules = [part.removeprefix("hostfwd=") for part in network.split(",") if part.startswith("hostfwd=")]
    assert rules == [f"tcp:127.0.0.1:{item.host_port}-:{item.guest_port}" for item in forwards]
    assert network.count("tcp:") == len(forwards)


@given(FORWARDS)
def test_in_a_namespace_they_listen_on_its_own_address(forwards: list[Forward]) -> None:
    (network,) = _values(_argv(forwards=forwards, address="10.0.2.100"), "-netdev")
    assert LOOPBACK not in network and network.count("hostfwd=tcp:10.0.2.100:") == len(forwards)


def test_ipv6_is_no_way_to_the_hosts_loopback() -> None:
    (network,) = _values(_argv(), "-netdev")
    assert "ipv6=off" in network.split(",")


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1))
def test_no_path_or_name_smuggles_an_option(text: str) -> None:
    folder = Path("/state") / text.replace("/", "_")
    argv = _argv(replace(SPEC, name=text, folder=folder, seed=folder / "seed.iso"))
    disk, seed = (json.loads(value) for value in _values(argv, "-blockdev"))
    assert disk["file"]["filename"] == str(folder / "disk.qcow2")
    assert seed["file"]["filename"] == str(folder / "seed.iso") and seed["read-only"] is True
    assert _values(argv, "-name")[0].replace(",,", "").count(",") == 0
    for chardev in _values(argv, "-chardev"):
        path = chardev.split(",path=", 1)[1]
        assert "," not in path.replace(",,", "")


def test_a_saved_state_is_loaded() -> None:
    assert _values(_argv(load="lab:suspended"), "-loadvm") == ["lab:suspended"]
    assert "-loadvm" not in _argv()


@pytest.mark.parametrize(
    ("accelerator", "nested", "paravirt", "expected"),
    [
        ("tcg", True, "kvm", "max,la57=off,cx16=off,svm=on,npt=on"),
        ("tcg", False, "kvm", "max,la57=off,cx16=off,svm=off"),
        ("kvm", True, "kvm", "host"),
        ("kvm", True, "none", "host,kvm=off"),
        ("kvm", False, "default", "host,vmx=off,svm=off"),
    ],
)
def test_the_cpu(accelerator: str, nested: bool, paravirt: str, expected: str) -> None:
    assert cpu_model(accelerator, nested, paravirt) == expected  # type: ignore[arg-type]
    spec = replace(SPEC, nested=nested, paravirt=paravirt)  # type: ignore[arg-type]
    assert hardware(spec, accelerator, "q35").cpu == expected  # type: ignore[arg-type]


def test_threads_only_where_memory_ordering_allows() -> None:
    assert accelerator_option("tcg", "AMD64") == "tcg,thread=multi"
    assert accelerator_option("tcg", "arm64") == "tcg"
    assert accelerator_option("kvm", "x86_64") == "kvm"
