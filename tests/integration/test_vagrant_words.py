"""What a real QEMU says of its user networks, as lab.engines.vagrant.libvirt reads it without libvirt."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import LabError
from lab.engines.protocol import Forward
from lab.engines.qemu.qmp import Monitor, MonitorLostError
from lab.engines.vagrant.libvirt import VagrantLibvirt
from lab.host.ports import free_port

QEMU = "qemu-system-x86_64"
pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"no {QEMU} here")


class Direct(VagrantLibvirt):
    """Asks QEMU itself, and not by way of virsh."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__("none")
        self.direct = monitor

    @property
    def _monitor(self) -> Monitor:
        return self.direct


def _opened(path: Path) -> Monitor:
    monitor = Monitor(path)
    try:
        monitor.open(Deadline.after(10))
    except MonitorLostError as error:  # QEMU begins
        monitor.close()
        raise NotYet(error.what) from error
    return monitor


Asked = Callable[..., AbstractContextManager[Direct]]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    @contextmanager
    def run(*words: str) -> Iterator[Direct]:
        path = tmp_path / "qmp"
        # Without a machine nothing is emulated; the networks are there all the same.
        start = [QEMU, "-S", "-machine", "none", "-display", "none", "-nodefaults"]
        process = subprocess.Popen([*start, "-qmp", f"unix:{path},server=on,wait=off", *words])
        try:
            monitor = poll(lambda: _opened(path), Deadline.after(30), "QEMU's monitor", every=0.1)
            try:
                yield Direct(monitor)
            finally:
                monitor.close()
        finally:
            process.kill()
            process.wait()

    return run


def test_labs_network_takes_a_forward_and_says_when_a_port_is_taken(asked: Asked) -> None:
    with asked("-netdev", "user,id=net0") as machine, socket.socket() as holder:
        assert machine.why_no_forwards() == ""
        wanted = Forward("adb", free_port(25555), 5555)
        assert machine.add_forward(wanted) == ""
        assert machine.forwards({(wanted.host_port, 5555): "adb"}) == [wanted]
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = Forward("vnc", holder.getsockname()[1], 5900)
        assert "host forwarding rule" in machine.add_forward(taken)
        assert machine.forwards({(wanted.host_port, 5555): "adb"}) == [wanted]


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (("-netdev", "user,id=hostnet0"), "those there are called hostnet0"),
        (("-netdev", "user,id=a", "-netdev", "user,id=b"), "those there are called a, b"),
        ((), "there is none"),
    ],
)
def test_another_network_is_told_by_its_name(asked: Asked, words: tuple[str, ...], there: str) -> None:
    with asked(*words) as machine:
        assert machine.why_no_forwards().endswith(there)
        with pytest.raises(LabError, match="net0"):
            machine.add_forward(Forward("adb", free_port(25555), 5555))
