"""lab.attach --ssh on real SSH servers: two of them, the first the jump to the second.

Docker is a stand-in there (fakedocker): a real one is in tests/e2e/test_attach.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import sshserver
from sshserver import Server, eventually, keygen

from lab.config import Settings
from lab.core.errors import BlockedError, InconclusiveError, LabError, UsageError
from lab.core.steps import Steps
from lab.emulators.transfer import LOADED
from lab.engines.attached import link as links
from lab.engines.protocol import Forward
from lab.guest.login import AuthRefusedError, HostKeyError, LockedKeyError, UnreachableError
from lab.tasks.lab import attach_machine, detach, ssh
from lab.tasks.lab import status as status_task
from lab.tasks.lab.attach_machine import Wanted
from lab.workflow import attached
from lab.workflow.session import Session
from lab.workflow.workbench import Workbench
from tests.unit.bed import checked

pytestmark = [
    pytest.mark.skipif(sshserver.PROGRAM is None, reason="no sshd here (package openssh-server)"),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here"),
]


class Road:
    """A machine behind a jump, an ssh_config that names both, and a session whose user is at a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("jump", "box", "docker", "bin"):
            (folder / name).mkdir()
        self.jump, self.box = Server(folder / "jump"), Server(folder / "box")
        shutil.copy(Path(__file__).with_name("fakedocker"), folder / "bin" / "docker")
        self.docker = folder / "docker"
        for name, text in (("containers", ""), ("images", ""), ("labelled", ""), ("asked", "")):
            (self.docker / name).write_text(text)
        self.box.environment = f"PATH={folder / 'bin'}:{os.environ['PATH']} FAKE_DOCKER={self.docker}"
        self.known = folder / "known_hosts"
        self.config = folder / "config"
        self.answers: list[str] = []
        self.says = True
        self.configure()
        settings = Settings(
            state_dir=folder / "state",
            cache_dir=folder / "cache",
            emulator={"kind": "canary"},
            install="never",
        )
        self.session = Session(settings.with_origins({}), Steps(), True, ask=self._ask)

    def configure(self, box: str = "", jump: str = "") -> None:
        """`box` and `jump` are further lines of their parts of the ssh_config."""
        parts = [("jump", self.jump, jump), ("box", self.box, f"  ProxyJump jump\n{box}")]
        self.config.write_text(
            "".join(
                f"Host {name}\n{more}  HostName 127.0.0.1\n  Port {server.port}\n"
                f"  IdentityFile {server.key}\n  UserKnownHostsFile {self.known}\n"
                "  GlobalKnownHostsFile none\n"
                for name, server, more in parts
            )
        )

    def know(self, *servers: Server, key: Path | None = None) -> None:
        """Have their host keys in the user's known_hosts."""
        for server in servers:
            public = Path(f"{key or server.host_key}.pub").read_text().split()[:2]
            with self.known.open("a") as stream:
                stream.write(f"[127.0.0.1]:{server.port} {' '.join(public)}\n")

    def attach(self, destination: str = "box", **more: Any) -> dict[str, Any]:
        wanted = Wanted(destination, config=str(self.config), **more)
        return checked(attach_machine.attach(self.session, wanted))

    def bench(self, name: str = "box") -> Workbench:
        return Workbench.open(self.session, name)

    def _ask(self, question: str) -> bool:
        self.answers.append(question)
        return self.says


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    made = Road(tmp_path)
    made.jump.start()
    made.box.start()
    for server in (made.jump, made.box):
        eventually(lambda server=server: _listens(server.port))  # type: ignore[misc]
    try:
        yield made
    finally:
        for lab in made.session.store.labs():
            attached.close_ports(Workbench(made.session, lab))
            subprocess.run(["rm", "-rf", attached.folder(lab.record())], check=True)
        made.jump.stop()
        made.box.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _fingerprint(server: Server) -> str:
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", f"{server.host_key}.pub"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[1]


def _forwards(road: Road, name: str = "box") -> list[psutil.Process]:
    mark = f"SendEnv=LAB_{road.bench(name).record().uuid}"
    return [process for process in psutil.process_iter() if mark in _words(process)]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_machine_behind_a_jump_becomes_a_lab_and_is_left_as_it_was(road: Road) -> None:
    road.know(road.jump, road.box)
    document = road.attach()
    assert (document["state"], document["changed"]) == ("running", True)
    assert road.answers == [], "both host keys are known"
    bench = road.bench()
    record = bench.record()
    assert (record.engine, record.image) == ("attached", "as found")
    assert record.cpus == os.cpu_count()
    assert set(record.forwards) == {"adb"}
    with bench.new_guest() as guest:
        # Nobody was let in anew: it is the user's own key that opens it.
        assert guest.key == road.box.key
        assert guest.run(["printenv", "TMPDIR"]).out.strip() == attached.folder(record)
    assert (road.folder / "box" / "authorized").read_text() == (road.folder / "box" / "user.pub").read_text()
    status = checked(status_task.status(road.session, "box"))
    assert status["ssh"]["command"].startswith("ssh -F ")
    done = subprocess.run([*status["ssh"]["command"].split(), "echo", "in"], capture_output=True, text=True)
    assert done.stdout == "in\n", done.stderr
    done = checked(ssh.execute(road.session, "box", ["echo", "there"], True))
    assert (done["argv"], done["out"]) == (["echo", "there"], "there\n")
    assert road.attach()["changed"] is False
    assert checked(detach.detach(road.session, "box"))["state"] == "absent"
    assert road.session.store.find("box") is None
    assert not Path(attached.folder(record)).exists()


def test_a_host_key_that_is_not_known_is_asked_for_once_and_pinned(road: Road) -> None:
    road.attach()
    assert [question.split(": ")[1].split("\n")[0] for question in road.answers] == [
        f"ED25519 {_fingerprint(road.jump)}",
        f"ED25519 {_fingerprint(road.box)}",
    ]
    assert not road.known.exists(), "the user's own file is the user's"
    road.attach()
    assert len(road.answers) == 2


def test_a_host_key_that_is_not_agreed_to_leaves_no_lab(road: Road) -> None:
    road.says = False
    with pytest.raises(BlockedError, match="was not agreed to"):
        road.attach()
    assert road.session.store.labs() == []


def test_without_a_terminal_it_is_refused_with_what_to_type(road: Road) -> None:
    road.session.interactive = False
    road.know(road.jump)
    with pytest.raises(BlockedError, match="is not known: ED25519 SHA256:") as caught:
        road.attach()
    assert f"ssh -J {os.environ.get('USER', 'root')}@127.0.0.1:{road.jump.port} -p {road.box.port}" in (
        caught.value.hint
    )
    assert road.answers == []
    assert road.session.store.labs() == []


def test_another_key_than_is_known_is_never_asked_about(road: Road) -> None:
    road.know(road.jump)
    road.know(road.box, key=keygen(road.folder / "other"))
    with pytest.raises(HostKeyError, match="shows another host key than known_hosts has"):
        road.attach()
    assert road.answers == []


def test_a_revoked_key_is_refused(road: Road) -> None:
    road.know(road.jump, road.box)
    road.known.write_text(
        road.known.read_text() + f"@revoked * {Path(f'{road.box.host_key}.pub').read_text()}"
    )
    with pytest.raises(HostKeyError, match="revoked"):
        road.attach()


def test_a_key_that_changed_since_is_refused_by_lab_and_by_its_forwards(road: Road) -> None:
    road.know(road.jump)
    road.attach()
    road.box.stop()
    other = keygen(road.folder / "other")
    shutil.copy(other, road.box.host_key)
    shutil.copy(f"{other}.pub", f"{road.box.host_key}.pub")
    road.box.start()
    eventually(lambda: _listens(road.box.port))
    bench = road.bench()
    with pytest.raises(HostKeyError), bench.new_guest() as guest:
        guest.open()
    with pytest.raises(LabError) as caught:
        bench.machine.add_forward(Forward("adb", 15999, 15555))
    assert "verification failed" in caught.value.tail


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """An SSH agent of the test's own, to which keys may be given."""
    place = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    eventually(place.exists)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place))

    def give(key: Path, passphrase: str = "") -> None:
        ask = tmp_path / "ask"
        ask.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
        ask.chmod(0o700)
        env = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        subprocess.run(["ssh-add", "-q", str(key)], env=env, stdin=subprocess.DEVNULL, check=True)

    yield give
    process.kill()
    process.wait()


def _lock(key: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret words", "-f", key], check=True)


def test_a_key_with_a_passphrase_is_the_agents(road: Road, agent: Callable[..., None]) -> None:
    road.know(road.jump, road.box)
    _lock(road.box.key)
    with pytest.raises(LockedKeyError, match="has a passphrase") as caught:
        road.attach()
    assert "ssh-add" in caught.value.hint
    assert road.session.store.labs() == []
    agent(road.box.key, "secret words")
    road.attach()
    with road.bench().new_guest() as guest:
        assert guest.run(["echo", "in"]).out == "in\n"


def test_a_key_that_only_the_agent_has_opens_it_too(road: Road, agent: Callable[..., None]) -> None:
    road.know(road.jump, road.box)
    agent(road.box.key)
    road.box.key.unlink()
    Path(f"{road.box.key}.pub").unlink()
    road.attach()
    bench = road.bench()
    link = links.read(bench.lab.vm_folder)
    assert link is not None and link.key == bench.lab.folder / "keys" / "login.pub"
    with bench.new_guest() as guest:
        assert guest.run(["echo", "in"]).out == "in\n"


def test_of_several_keys_the_right_one_is_found(road: Road, agent: Callable[..., None]) -> None:
    """More wrong ones than the server lets be tried in one connection."""
    road.know(road.jump, road.box)
    wrong = [keygen(road.folder / f"wrong{number}") for number in range(8)]
    road.configure(box="".join(f"  IdentityFile {key}\n" for key in wrong))
    road.attach()
    link = links.read(road.bench().lab.vm_folder)
    assert link is not None and link.key == road.box.key


def test_no_key_that_opens_it_is_told(road: Road) -> None:
    road.know(road.jump, road.box)
    (road.folder / "box" / "authorized").write_text("")
    with pytest.raises(AuthRefusedError, match="with none of 1 keys"):
        road.attach()
    assert road.session.store.labs() == []


def test_a_jump_that_refuses_is_told_in_sshs_words(road: Road) -> None:
    road.know(road.jump, road.box)
    (road.folder / "jump" / "authorized").write_text("")
    with pytest.raises((UnreachableError, AuthRefusedError), match="Permission denied"):
        road.attach()


def test_forwards_outlive_the_command_and_end_with_the_lab(road: Road) -> None:
    road.know(road.jump, road.box)
    road.attach()
    (process,) = _forwards(road)
    assert os.getsid(process.pid) == process.pid, "signals to the terminal do not reach it"
    listening = [item.laddr.ip for item in process.net_connections() if item.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]
    bench = road.bench()
    (bench.lab.vm_folder / "forwards.json").unlink()  # a kill came before it was written down
    assert [forward.name for forward in bench.machine.forwards()] == ["adb"]
    road.attach()
    assert [again.pid for again in _forwards(road)] == [process.pid]
    process.send_signal(signal.SIGKILL)
    eventually(lambda: bench.machine.forwards() == [])
    road.attach()
    assert len(_forwards(road)) == 1
    uuid = bench.record().uuid
    detach.detach(road.session, "box")
    assert not [each for each in psutil.process_iter() if f"SendEnv=LAB_{uuid}" in _words(each)]


def test_a_record_that_names_another_process_ends_nobodys(road: Road) -> None:
    road.know(road.jump, road.box)
    road.attach()
    bench = road.bench()
    other = subprocess.Popen(["sleep", "60"])
    try:
        record = bench.lab.vm_folder / "forwards.json"
        row = {"pid": other.pid, "created": psutil.Process(other.pid).create_time(), "host": 1, "guest": 1}
        record.write_text(json.dumps({"adb": row}))
        detach.detach(road.session, "box")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_users_own_forwards_are_not_opened_a_second_time(road: Road) -> None:
    road.know(road.jump, road.box)
    road.configure(box="  LocalForward 127.0.0.1:18999 127.0.0.1:9\n")
    road.attach()
    assert not _listens(18999)


def test_detach_removes_what_lab_made_and_nothing_else(road: Road) -> None:
    road.know(road.jump, road.box)
    road.attach()
    lab = road.bench().lab
    uuid = lab.record().uuid
    (road.docker / "containers").write_text("c1\nc2\n")
    (road.docker / "labelled").write_text("sha256:proof\n")
    (road.docker / "images").write_text("sha256:proof\nlab-canary:1\nsomebodys:1\n")
    lab.journal.intend(LOADED, "lab-canary:1")
    lab.journal.intend(LOADED, "never-loaded:1")
    notes = checked(detach.detach(road.session, "box"))["notes"]
    assert notes[:2] == ["2 containers removed", "2 images removed"]
    assert (road.docker / "images").read_text() == "somebodys:1\n"
    asked = (road.docker / "asked").read_text()
    assert f"container ls --all --quiet --no-trunc --filter label=io.lab.uuid={uuid}" in asked
    assert "container rm --force --volumes c1 c2" in asked


def test_an_image_that_another_uses_stays_and_is_told(road: Road) -> None:
    road.know(road.jump, road.box)
    road.attach()
    (road.docker / "images").write_text("in-use\n")
    road.bench().lab.journal.intend(LOADED, "in-use")
    notes = checked(detach.detach(road.session, "box"))["notes"]
    assert notes[0] == "the image in-use stays: another container uses it"


def test_a_machine_that_is_gone_is_only_forgotten_when_that_is_asked_for(road: Road) -> None:
    road.know(road.jump, road.box)
    road.attach()
    uuid = road.bench().record().uuid
    folder = attached.folder(road.bench().record())
    road.box.stop()
    with pytest.raises(InconclusiveError, match="may still be there") as caught:
        detach.detach(road.session, "box")
    assert "--forget" in caught.value.hint
    assert checked(status_task.status(road.session, "box"))["lab"]["state"] == "unknown"
    notes = checked(detach.detach(road.session, "box", forget=True))["notes"]
    assert uuid in notes[0] and folder in notes[0]
    assert road.session.store.labs() == []
    shutil.rmtree(folder)


def test_one_machine_is_one_lab(road: Road) -> None:
    road.know(road.jump, road.box)
    road.attach()
    with pytest.raises(UsageError, match="is lab box already"):
        road.attach(name="second")
    road.know(road.jump)
    with pytest.raises(UsageError, match="lab box is root@"):
        road.attach("jump", name="box")


def test_a_machine_without_docker_is_attached_and_it_is_said(road: Road) -> None:
    (road.folder / "bin" / "docker").write_text("#!/bin/sh\necho 'sh: docker: not found' >&2\nexit 127\n")
    road.know(road.jump, road.box)
    notes = road.attach()["notes"]
    assert any("lab installs none without being asked" in note for note in notes)
    assert any("--install-docker" in note for note in notes)


def test_a_port_that_is_taken_there_is_passed_by(road: Road) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # then another test's lab has it
            stack.enter_context(socket.create_server(("127.0.0.1", 15555)))
        road.know(road.jump, road.box)
        road.attach()
    link = links.read(road.bench().lab.vm_folder)
    assert link is not None and link.ports_from > 10000
    assert road.bench().record().forwards["adb"].guest_port == 5555 + link.ports_from
