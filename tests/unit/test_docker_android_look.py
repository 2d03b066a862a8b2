"""The script that looks at a container from L1, with a docker of the test's own; and how noVNC is asked."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lab.emulators.docker_android import contract, looking, reading
from lab.formats import program
from lab.probes.kvm import ContainerLook, parsed
from tests.capabilities import needs_linux
from tests.unit import docker_android_looks as looks

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its root")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module that remembers in a folder of the test's own; it runs in VMs."""
    if sys.platform != "linux":
        pytest.skip("needs Linux")
    path = resources.files("lab.probes") / "scripts" / "container_look.py"
    spec = importlib.util.spec_from_file_location("container_look", str(path))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "MEMORY", tmp_path / "memory")
    return module


@contextmanager
def container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **state: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for the container's first, and a docker that describes it."""
    kvm = Path("/dev/kvm")
    opening = f"exec 7<{kvm};" if kvm.exists() and os.access(kvm, os.R_OK) else ""
    first = subprocess.Popen(["sh", "-c", f"{opening} sleep 60 & wait"])
    described = looks.inspected(Pid=first.pid, **state)
    (tmp_path / "inspected.json").write_text(json.dumps([described]))
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\ncase $1 in\n'
        f"container) echo 'WARNING: Error loading config file: EOF' >&2; cat {tmp_path}/inspected.json ;;\n"
        "logs) echo supervisord said this ;;\n"
        'exec) shift 2; echo "ran $*"; exit 3 ;;\nesac\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    time.sleep(0.2)
    try:
        yield first
    finally:
        subprocess.run(["pkill", "-P", str(first.pid)], check=False)
        first.kill()
        first.wait()


def looked(
    script: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **wish: Any
) -> ContainerLook:
    monkeypatch.setattr(sys, "argv", ["container_look.py", json.dumps({"name": "lab-x", **wish})])
    script.main()
    return parsed(ContainerLook, capsys.readouterr().out, "")


@as_root
def test_one_look_sees_processes_files_and_command(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "device.stdout.log").write_text("x" * 100 + "the end\n")
    wish = {
        "files": [f"{tmp_path}/logs/*.log", f"{tmp_path}/none"],
        "bytes": 8,
        "command": ["adb", "devices"],
    }
    with container(tmp_path, monkeypatch) as first:
        seen = looked(script, capsys, monkeypatch, **wish)
    assert {one.pid for one in seen.processes} > {first.pid} and len(seen.processes) == 2
    parent, child = sorted(seen.processes, key=lambda one: one.pid != first.pid)
    assert child.command == ["sleep", "60"] and abs(parent.started - time.time()) < 60
    if Path("/dev/kvm").exists():
        assert child.kvm == ["/dev/kvm"]
    assert seen.files == {f"{tmp_path}/logs/device.stdout.log": "the end\n"}
    assert (seen.status, seen.said) == (3, "ran adb devices\n") and seen.log == ""
    assert abs(seen.at - time.time()) < 60
    with container(tmp_path, monkeypatch):
        wish["beside"] = ["/qemu-system-", "/emulator"]
        alone = looked(script, capsys, monkeypatch, **wish)
    assert alone.status is None and alone.said == ""
    inside = reading.inside(seen, contract.NEW)
    assert inside.state.running and inside.state.facts["nonce"] == looks.NONCE


@as_root
def test_ended_container_is_asked_for_its_log_only(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with container(tmp_path, monkeypatch, Running=False, ExitCode=1):
        seen = looked(script, capsys, monkeypatch, files=["/etc/hostname"], command=["adb", "devices"])
    assert seen.log == "supervisord said this\n" and seen.processes == [] and seen.files == {}
    assert seen.status is None and "exec" not in (tmp_path / "asked").read_text()


def test_what_a_command_says_is_bounded_and_its_errors_are_apart(script: Any) -> None:
    long = "echo first; echo warning >&2; seq 1000000; echo last"
    status, out, err = script.run(["sh", "-c", long], 20)
    assert (status, err) == (0, "warning\n") and out.endswith("\n1000000\nlast\n")
    mark, _, rest = out.partition("\n")
    assert mark == f"[lab: {6888907 - script.LIMIT} bytes were left out here]" and len(rest) == script.LIMIT
    assert script.run(["sh", "-c", "echo a >&2; echo b"], 20, together=True) == (0, "a\nb\n", "")
    assert script.run(["sleep", "9"], 0.1)[0] == -1


@as_root
def test_files_of_any_number_are_told_up_to_a_size(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.log").write_text("x" * 100)
    monkeypatch.setattr(script, "ALL_FILES", 250)
    told = script.tails(os.getpid(), [f"{tmp_path}/*.log"], 1000)
    assert [len(text) for text in told.values()] == [100, 100, 50, len(script.LEFT_OUT)]


@pytest.mark.parametrize(
    ("said", "error"),
    [("Error: No such container: lab-x", ""), ("Cannot connect to the Docker daemon", "Cannot connect")],
)
def test_no_container_is_no_error_and_no_docker_is(
    script: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    error: str,
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho '[]'; echo '{said}' >&2; exit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seen = looked(script, capsys, monkeypatch)
    assert seen.container is None and (error in seen.error if error else seen.error == "")


def test_stages_are_remembered_for_this_start_only(script: Any) -> None:
    first = {"": {"novnc": 3.0}, "boot-1": {"adb-online": 9.0}}
    assert script.remembered("a", first) == first
    assert script.remembered("a", {"boot-1": {"adb-online": 12.0, "launcher": 30.0}}) == {
        "": {"novnc": 3.0},
        "boot-1": {"adb-online": 9.0, "launcher": 30.0},
    }
    # Another boot of L2 in the same start has reached nothing yet.
    assert script.remembered("a", {"boot-2": {"adb-online": 90.0}})["boot-2"] == {"adb-online": 90.0}
    assert script.remembered("a", {})["boot-1"] == {"adb-online": 9.0, "launcher": 30.0}
    assert script.remembered("b", {}) == {}


def test_guest_that_restarts_for_ever_fills_no_memory(script: Any) -> None:
    for number in range(50):
        known = script.remembered("a", {"": {"container": 0.0}, f"boot-{number}": {"adb-online": number}})
    assert list(known) == ["", *(f"boot-{number}" for number in range(50 - script.BOOTS, 50))]


def test_stages_that_an_older_lab_left_vouch_for_nothing(script: Any) -> None:
    script.MEMORY.mkdir()
    (script.MEMORY / "a.json").write_text(json.dumps({"launcher": 9.0}))
    assert script.remembered("a", {}) == {}


@as_root
def test_links_in_the_container_lead_nowhere_else(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "PROC", tmp_path / "proc")
    root = tmp_path / "proc" / "77" / "root"
    (root / "logs").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("of the machine")
    (root / "logs" / "a.log").symlink_to(secret)
    (root / "logs" / "b.log").symlink_to("../../../../../../../etc/hostname")
    (root / "logs" / "c.log").write_text("its own")
    os.mkfifo(root / "logs" / "d.log")
    assert script.tails(77, ["/logs/*.log"], 100) == {"/logs/c.log": "its own"}


@needs_linux
def test_programs_read_the_hypervisors_signature(tmp_path: Path) -> None:
    """Run here: what they say is what lab's own CPU probe says of this machine."""
    facts = subprocess.run(
        [sys.executable, str(resources.files("lab.probes") / "scripts" / "cpu_facts.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = json.loads(facts.stdout)["cpu"]["hypervisor"]
    if expected is None:
        pytest.skip("this machine is no x86-64")
    for name, made in (("64", program.hypervisor_signature()), ("32", program.hypervisor_signature_32())):
        path = tmp_path / name
        path.write_bytes(made)
        path.chmod(0o755)
        try:
            done = subprocess.run([str(path)], capture_output=True, check=False)
        except OSError:
            assert name == "32", "a 64-bit program must run"  # a kernel without 32-bit programs
            continue
        assert done.returncode == 0 and reading.signature(done.stdout.decode("latin-1")) == expected


@contextmanager
def serving(page: int = 200, upgrade: bool = True, banner: bytes = b"RFB 003.008\n") -> Iterator[str]:
    """A web server that has the page, and a VNC server's first words behind a WebSocket."""
    listening = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def answer() -> None:
        while not done.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                head = connection.recv(65536).decode()
                if head.startswith("GET /vnc.html "):
                    connection.sendall(f"HTTP/1.1 {page} X\r\nContent-Length: 0\r\n\r\n".encode())
                elif "Sec-WebSocket-Key: " in head and head.startswith("GET /websockify ") and upgrade:
                    key = head.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
                    mixed = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()  # noqa: S324
                    reply = "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    reply += f"Sec-WebSocket-Accept: {base64.b64encode(mixed).decode()}\r\n"
                    reply += "Sec-WebSocket-Protocol: binary\r\n\r\n"
                    connection.sendall(reply.encode() + bytes([0x82, len(banner)]) + banner)
                    connection.settimeout(2)
                    with suppress(OSError):
                        connection.recv(100)
                else:
                    connection.sendall(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        done.set()
        # Closing alone leaves the thread in accept(), whose descriptor may soon be another socket.
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        listening.close()


def test_novnc_is_asked_as_a_browser_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a proxy has no business here
    with serving() as address:
        seen = looking.novnc(address)
    assert seen.works and seen.page == 200 and seen.banner == "RFB 003.008\n"


def test_novnc_that_is_half_there_does_not_work() -> None:
    with serving(page=404) as address:
        assert not looking.novnc(address).works
    with serving(upgrade=False) as address:
        seen = looking.novnc(address)
        assert seen.page == 200 and not seen.works and "WebSocket" in seen.error
    with serving(banner=b"hello") as address:
        assert not looking.novnc(address).works
    closed = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    seen = looking.novnc(address)
    assert seen.page is None and seen.error
