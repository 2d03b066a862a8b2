"""L1 on a real QEMU reaches the network and its own forwards, and no service on the host's loopback."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bootsector import Heart, base_disk, free_port
from platformdirs import user_cache_path

from lab.core.deadline import Deadline
from lab.core.journal import Journal
from lab.core.steps import Steps
from lab.engines.protocol import Forward, MachineSpec, PortTakenError
from lab.engines.qemu import network
from lab.engines.qemu.engine import QemuEngine
from lab.engines.qemu.host import HostQemu
from lab.engines.qemu.machine import QemuMachine
from lab.guest import keys, seed
from lab.guest.ssh import Guest
from lab.guest.waiting import wait_for_ssh
from lab.images import debian

pytestmark = pytest.mark.skipif(bool(network.why_open()), reason=network.why_open())


def _no_kvm() -> None:
    raise AssertionError("KVM must not be probed under tcg")


ENGINE = QemuEngine(HostQemu(_no_kvm, "tcg"))  # type: ignore[arg-type]

PROBE = r"""
import json, socket, struct, sys

def tcp(address, port):
    try:
        socket.create_connection((address, port), 4).close()
        return True
    except OSError:
        return False

def udp(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as stream:
        try:
            stream.sendto(b"lab", (address, port))
        except OSError:
            pass

def total(data):
    data += b"\0" * (len(data) % 2)
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return ~value & 0xFFFF

def crafted(card, target, port):
    # A first packet of TCP that L1's own kernel would not send, straight to the gateway.
    stream = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    stream.bind((card, 0))
    to, source = socket.inet_aton(target), socket.inet_aton("10.0.2.15")
    head = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 65535, 0, 0)
    check = total(source + to + struct.pack("!BBH", 0, 6, len(head)) + head)
    head = head[:16] + struct.pack("!H", check) + head[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(head), 1, 0, 64, 6, 0, source, to)
    ip = ip[:10] + struct.pack("!H", total(ip)) + ip[12:]
    frame = bytes.fromhex("525500000000")[:2] + socket.inet_aton("10.0.2.2")
    stream.send(frame + stream.getsockname()[4] + b"\x08\x00" + ip + head)

def resolver():
    stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    stream.settimeout(10)
    question = b"\x12\x34\x01\x00\x00\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01"
    for _ in range(3):
        stream.sendto(question, ("10.0.2.3", 53))
        try:
            return stream.recv(512)[:2] == b"\x12\x34"
        except OSError:
            pass
    return False

port, own, outside, card = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
reached = [name for name in ("10.0.2.2", "fec0::2", "10.0.2.100", "255.255.255.255") if tcp(name, port)]
for name in ("10.0.2.2", "fec0::2"):
    udp(name, port)
for name in ("127.0.0.1", "10.0.2.2", "0.0.0.0"):
    crafted(card, name, port)
print(json.dumps({"reached": reached, "out": tcp(own, outside), "dns": resolver()}))
"""


@pytest.fixture
def l1(tmp_path: Path) -> Iterator[tuple[QemuMachine, Guest]]:
    base = os.environ.get("LAB_CACHE_DIR") or user_cache_path("lab", appauthor=False)
    cache = Path(base) / "images"
    image = debian.find(cache)
    if image is None:
        with Steps().step("image.build") as step:
            image = debian.build(cache, step)
    known = keys.ensure(tmp_path / "keys", "test")
    identity = str(uuid.uuid4())
    seed.write(seed.Seed(identity, "lab-test", known), tmp_path / "seed.iso")
    spec = MachineSpec(
        uuid=identity,
        name="test",
        folder=tmp_path / "vm",
        base_disk=image / "disk.qcow2",
        seed=tmp_path / "seed.iso",
        cpus=2,
        memory_mib=1024,
        disk_gib=debian.recipe().disk.size_gib,
    )
    machine = ENGINE.machine(spec, Journal(tmp_path / "journal.jsonl"))
    port = free_port()
    machine.create()
    machine.start([Forward("ssh", port, 22)])
    try:
        hosts = keys.write_known_hosts(tmp_path / "known_hosts", known.host, port)
        guest = wait_for_ssh(
            lambda: Guest(port=port, key=known.user.private, known_hosts=hosts),
            Deadline.after(400),
            lambda: None,
        )
        with guest:
            yield machine, guest
    finally:
        machine.destroy()


def _own_address() -> str:
    """An address of this host that is not its loopback."""
    for addresses in psutil.net_if_addrs().values():
        for item in addresses:
            if item.family == socket.AF_INET and not item.address.startswith("127."):
                return item.address
    pytest.skip("this host has no address but its loopback's")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_l1_reaches_the_network_and_not_the_hosts_loopback(l1: tuple[QemuMachine, Guest]) -> None:
    machine, guest = l1
    assert machine.settings()["host_loopback"] == "out of reach"
    own = _own_address()
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.socket(socket.AF_INET6) as six,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.create_server((own, 0)) as outside,
    ):
        port = four.getsockname()[1]
        six.bind(("::1", port))
        six.listen()
        datagrams.bind(("127.0.0.1", port))
        card = guest.run(["sh", "-c", "ls /sys/class/net | grep -v lo"]).out.split()[0]
        words = ["python3", "-c", PROBE, str(port), own, str(outside.getsockname()[1]), card]
        answer = json.loads(guest.run(words, sudo=True, deadline=Deadline.after(180)).out)
        time.sleep(2)
        assert answer == {"reached": [], "out": True, "dns": True}
        assert select.select([four, six, datagrams], [], [], 0)[0] == [], "something of L1 came through"
        assert select.select([outside], [], [], 0)[0] == [outside]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[QemuMachine]:
    (tmp_path / "seed.iso").write_bytes(b"\0" * 65536)
    spec = MachineSpec(
        uuid=str(uuid.uuid4()),
        name="test",
        folder=tmp_path / "vm",
        base_disk=base_disk(tmp_path / "base.qcow2", False),
        seed=tmp_path / "seed.iso",
        cpus=1,
        memory_mib=64,
        disk_gib=1,
    )
    machine = ENGINE.machine(spec, Journal(tmp_path / "journal.jsonl"))
    machine.create()
    yield machine
    machine.destroy()


def _joined(machine: QemuMachine) -> list[psutil.Process]:
    """The machine's slirp4netns."""
    word, found = f"--api-socket={machine._layout.network}", []
    for item in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if word in item.cmdline():
                found.append(item)
    return found


def test_what_joins_the_namespace_to_the_host_ends_with_qemu(small: QemuMachine) -> None:
    small.start([Forward("ssh", free_port(), 22)])
    Heart.wait(small)
    (joined,) = _joined(small)
    small.stop(Deadline.after(0))
    psutil.wait_procs([joined], 10)
    assert _joined(small) == []
    assert small.settings() == {}


def test_without_it_no_forward_is_claimed(small: QemuMachine) -> None:
    forward = Forward("ssh", free_port(), 22)
    small.start([forward])
    (joined,) = _joined(small)
    assert small.forwards() == [forward]
    joined.kill()
    psutil.wait_procs([joined], 10)
    assert small.forwards() == []


def test_an_ordinary_user_may_do_it_too(tmp_path: Path) -> None:
    """Where the host lets one make user namespaces, which needs no root: root drops its rights for this."""
    if os.geteuid() != 0:
        pytest.skip("why_open() asked as an ordinary user already")
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    asked = [*drop, "sh", "-c", "unshare --user --map-root-user --net true && : <>/dev/net/tun"]
    if subprocess.run(asked, check=False, capture_output=True).returncode != 0:
        pytest.skip("this host does not let an ordinary user")
    code = "from lab.engines.qemu import network; print(repr(network.why_open()))"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(
        [*drop, sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd="/", env=env
    )
    assert done.stdout.strip() == "''", done


def test_in_a_user_namespace_as_without_root(small: QemuMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.os, "geteuid", lambda: 1000)
    forward, added = Forward("ssh", free_port(), 22), Forward("adb", free_port(), 5555)
    small.start([forward])
    Heart.wait(small)
    running = small._launcher.find()
    assert running is not None
    assert Path(f"/proc/{running.pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
    small.add_forward(added)
    assert small.forwards() == [forward, added]
    with socket.create_connection(("127.0.0.1", added.host_port), 5):
        pass
    small.suspend()
    small.resume([forward])
    Heart.wait(small)
    assert small.forwards() == [forward]


def test_a_taken_port_is_named_before_anything_runs(small: QemuMachine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortTakenError) as caught:
            small.start([Forward("ssh", port, 22)])
    assert caught.value.ports == [port]
    assert _joined(small) == []
    assert small._launcher.find() is None
