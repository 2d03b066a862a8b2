"""Host-side ADB against Debian's real adbd, in the canary's own L2 on an emulated CPU."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab import emulators
from lab.adb import AdbServer
from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError
from lab.core.journal import Journal
from tests.integration import l2

NONCE = "integration-nonce"
BOOT_SECONDS = 240.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return l2.unpack(l2.image(), tmp_path_factory.mktemp("canary"))


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with l2.booted(root, NONCE, tmp_path_factory.mktemp("l2") / "console") as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AdbServer]:
    made = AdbServer(tmp_path / "adb", Journal(tmp_path / "journal"))
    yield made
    made.stop()


def listening(process: psutil.Process) -> set[tuple[str, int]]:
    return {
        (str(one.laddr.ip), int(one.laddr.port))
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }


def test_l2_answers_for_itself_and_is_seen_to_be_emulated(address: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    place = emulators.Place("u", cache=tmp_path, secrets=tmp_path, state=tmp_path, journal=journal)
    canary = emulators.emulator("canary", place)
    try:
        # Its console is not read here, which says last of all that the boot is over: so ask on.
        deadline = Deadline.after(BOOT_SECONDS)
        while not (proof := canary.prove(address, tmp_path / "adb", deadline)).boot_completed:
            assert not deadline.passed
    finally:
        AdbServer(tmp_path / "adb", journal).stop()
    assert proof.nonce == NONCE and proof.nonce != "another lab's"
    assert proof.boot_completed
    assert proof.kernel.endswith("-cloud-amd64")
    assert proof.boot_id and proof.boot_id != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # What the ladder's nested.adb refuses: this L2 does not run under KVM, and says so.
    assert proof.hypervisor == "TCGTCGTCGTCG"
    assert proof.clocksource != "kvm-clock"
    assert proof.seconds is None


def _property(server: AdbServer, address: str, name: str) -> str:
    """A property of the device; empty when it is unknown there."""
    return server.shell(address, "getprop", name, deadline=Deadline.after(BOOT_SECONDS)).strip()


def test_shell_and_properties(address: str, server: AdbServer) -> None:
    deadline = Deadline.after(BOOT_SECONDS)
    assert server.shell(address, "echo", "two words; $HOME", deadline=deadline) == "two words; $HOME"
    values = {"ro.lab.canary": "1 not Android", "ro.no.such.thing": "", "../../etc/passwd": ""}
    for name, value in values.items():
        assert _property(server, address, name) == value


def test_adb_itself_on_the_device_ends_as_the_command_did(address: str, server: AdbServer) -> None:
    words = server.command(address, "shell", "echo 'a  b'; exit 7", deadline=Deadline.after(BOOT_SECONDS))
    done = proc.run(words, check=False, deadline=Deadline.after(30))
    assert (done.out, done.status) == ("a  b\n", 7)
    assert words[1:4] == ["-P", str(server.port()), "-s"]


def test_server_is_the_labs_own(address: str, server: AdbServer) -> None:
    server.connect(address, Deadline.after(BOOT_SECONDS))
    (entry,) = server.journal.entries("process")
    process = psutil.Process(entry.facts["pid"])
    assert listening(process) == {("127.0.0.1", server.port())}
    assert server.port() != 5037
    assert (server.folder / ".android" / "adbkey").is_file()

    again = AdbServer(server.folder, server.journal)  # as the next command would find it
    assert again.ensure() == server.port() and again.journal.entries("process")[0].facts["pid"] == process.pid

    port = again.port()
    again.stop()
    assert not process.is_running() and again.journal.entries("process") == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_server_that_was_not_recorded_is_found_and_ended(server: AdbServer) -> None:
    server.ensure()
    (entry,) = server.journal.entries("process")
    server.record.unlink()  # as if the command had been killed right after the start
    server.stop()
    assert not psutil.pid_exists(entry.facts["pid"])


def test_a_killed_server_is_replaced(address: str, server: AdbServer) -> None:
    server.connect(address, Deadline.after(BOOT_SECONDS))
    (entry,) = server.journal.entries("process")
    psutil.Process(entry.facts["pid"]).send_signal(signal.SIGKILL)
    assert _property(server, address, "ro.lab.nonce") == NONCE


def test_a_hung_server_is_replaced(address: str, server: AdbServer) -> None:
    server.ensure()
    (entry,) = server.journal.entries("process")
    psutil.Process(entry.facts["pid"]).suspend()
    assert _property(server, address, "ro.lab.nonce") == NONCE
    assert not psutil.pid_exists(entry.facts["pid"])


def test_an_l2_that_stands_still_ends_with_the_deadline_and_answers_afterwards(
    address: str, server: AdbServer
) -> None:
    server.connect(address, Deadline.after(BOOT_SECONDS))
    port = int(address.rpartition(":")[2])
    (pid,) = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    }
    assert pid is not None
    machine = psutil.Process(pid)
    machine.suspend()
    try:
        with pytest.raises(DeadlineError, match=address):
            server.shell(address, "echo", "still", deadline=Deadline.after(3), seconds=1)
    finally:
        machine.resume()
    deadline = Deadline.after(BOOT_SECONDS)
    assert server.shell(address, "echo", "again", deadline=deadline) == "again"


def test_silence_ends_with_the_deadline(server: AdbServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DeadlineError, match=place):
            server.shell(place, "true", deadline=Deadline.after(2))
