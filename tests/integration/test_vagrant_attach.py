"""lab.attach on a machine with a real SSH server; Vagrant and libvirt are stand-ins here."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import throwaway_sshd
from throwaway_sshd import Machine

from lab.config import Settings
from lab.core.deadline import Deadline, poll
from lab.core.errors import UsageError
from lab.core.steps import Steps
from lab.engines.protocol import State
from lab.guest import adopt
from lab.guest.login import HostKeyError, UnreachableError
from lab.tasks.lab import attach
from lab.workflow.destroy import destroy
from lab.workflow.session import Session
from lab.workflow.workbench import Workbench
from tests import schema
from tests.unit.vagrant_world import World

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can throw a machine's users away"),
    pytest.mark.skipif(throwaway_sshd.program() is None, reason="no sshd here (package openssh-server)"),
]


@pytest.fixture(params=["ed25519", "rsa"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "machine"
    folder.mkdir()
    with throwaway_sshd.running(folder, request.param) as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> World:
    folder = tmp_path / "world"
    folder.mkdir()
    made = World(folder)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.delenv("VAGRANT_DOTFILE_PATH", raising=False)
    (folder / "ssh-config").write_text(
        f"Host vagrant\n  HostName 127.0.0.1\n  User root\n  Port {machine.port}\n"
        f"  IdentityFile {machine.key}\n"
    )
    (folder / "forwards").write_text(f"{machine.port} 22\n")
    place = made.root / ".vagrant/machines/vagrant/libvirt"
    place.mkdir(parents=True)
    (place / "id").write_text("id")
    made.state.write_text("running")
    return made


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = Settings(
        state_dir=tmp_path / "state", cache_dir=tmp_path / "cache", emulator={"kind": "canary"}
    )
    return Session(settings.with_origins({}), Steps(), False)


def _shown(machine: Machine) -> str:
    return poll(
        lambda: adopt.host_key(machine.port, Deadline.after(5)) if _listens(machine) else None,
        Deadline.after(20),
        "the server's start",
    )


def _listens(machine: Machine) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", machine.port)) == 0


def test_a_machine_becomes_a_lab_and_lab_logs_in_as_itself(
    machine: Machine, world: World, session: Session
) -> None:
    assert _shown(machine).split() == machine.host_key.split()[:2]
    reply = attach.attach(session, "", folder=str(world.root))
    schema.validate(reply.document)
    assert reply.document["state"] == "running"
    assert reply.document["changed"]
    bench = Workbench.open(session, "vagrant")
    record = bench.record()
    assert record.engine == "vagrant-libvirt"
    assert (record.cpus, record.memory_mib, record.nested) == (2, 3072, True), "as it is, not as configured"
    assert record.paravirt == "none"
    assert record.forwards["adb"].host_port != record.forwards["ssh"].host_port == machine.port
    assert {forward.name for forward in bench.machine.forwards()} == {"ssh", "adb"}
    with bench.new_guest() as guest:
        assert guest.run(["id", "-un"]).out.strip() == "lab"
        assert guest.run(["id", "-un"], sudo=True).out.strip() in ("lab", "root")  # by the stand-in for sudo
    assert (machine.over / "etc/sudoers.d/lab").read_text() == "lab ALL=(ALL) NOPASSWD:ALL\n"
    assert not Path("/etc/sudoers.d/lab").exists()

    again = attach.attach(session, "", folder=str(world.root))
    assert again.document["changed"] is False
    authorized = (machine.over / "home/lab/.ssh/authorized_keys").read_text()
    assert authorized == bench.keys.user.public_line() + "\n"


@pytest.mark.parametrize("what", ["the account lab", "/home/lab", "/etc/sudoers.d/lab"])
def test_what_lab_did_not_make_is_left_alone(
    machine: Machine, world: World, session: Session, what: str
) -> None:
    _shown(machine)
    over = machine.over
    if what == "the account lab":
        with (over / "etc/passwd").open("a") as stream:
            stream.write("lab:x:4242:4242:Somebody,,,:/home/lab:/bin/bash\n")
    elif what == "/home/lab":
        (over / "home/lab").mkdir()
    else:
        (over / "etc/sudoers.d/lab").write_text("%lab ALL=(ALL) ALL\n")
    before = _files(over)
    with pytest.raises(UsageError, match=f"the machine has {what} already, and lab did not make it"):
        attach.attach(session, "", folder=str(world.root))
    assert _files(over) == before
    assert session.store.find("vagrant") is None


def _files(over: Path) -> dict[str, str]:
    """What the machine knows of accounts and who may do what."""
    found = [over / "etc/passwd", over / "etc/group", *(over / "etc/sudoers.d").iterdir()]
    return {str(path): path.read_text() for path in found} | {str(path): "" for path in over.glob("home/*/*")}


def test_a_machine_that_a_lab_forgot_is_attached_again(
    machine: Machine, world: World, session: Session
) -> None:
    """Its account has lab's marker, and the new lab has a key of its own."""
    _shown(machine)
    attach.attach(session, "", folder=str(world.root))
    destroy(session, "vagrant")
    attach.attach(session, "", folder=str(world.root), name="second")
    with Workbench.open(session, "second").new_guest() as guest:
        assert guest.run(["id", "-un"]).out.strip() == "lab"
    assert len((machine.over / "home/lab/.ssh/authorized_keys").read_text().splitlines()) == 2
    account = next(
        line for line in (machine.over / "etc/passwd").read_text().splitlines() if line.startswith("lab:")
    )
    assert account.split(":")[4] == adopt.MARKER


def test_another_host_key_is_refused_later(machine: Machine, world: World, session: Session) -> None:
    _shown(machine)
    attach.attach(session, "", folder=str(world.root))
    pinned = session.store.get("vagrant").folder / "keys" / "pinned.pub"
    other = machine.key.with_name("other")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    pinned.write_text(other.with_suffix(".pub").read_text())
    with pytest.raises(HostKeyError, match="not this lab's"):
        attach.attach(session, "", folder=str(world.root))


def test_what_is_not_reached_through_the_loopback_is_said(world: World, session: Session) -> None:
    (world.folder / "ssh-config").write_text(
        "Host vagrant\n  HostName 192.0.2.7\n  User vagrant\n  Port 22\n  IdentityFile /nowhere\n"
    )
    with pytest.raises(UsageError, match=r"answers at 192\.0\.2\.7"):
        attach.attach(session, "", folder=str(world.root))
    assert session.store.find("vagrant") is None, "nothing was made"


def test_a_lab_is_one_machine_only(machine: Machine, world: World, session: Session) -> None:
    _shown(machine)
    attach.attach(session, "", folder=str(world.root))
    elsewhere = world.root / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(UsageError, match="is the machine vagrant of"):
        attach.attach(session, "", folder=str(elsewhere))


def test_the_state_is_asked_each_time(machine: Machine, world: World, session: Session) -> None:
    _shown(machine)
    attach.attach(session, "", folder=str(world.root))
    world.state.write_text("shut off")
    assert Workbench.open(session, "vagrant").machine_state() is State.STOPPED
    world.state.write_text("none")
    assert Workbench.open(session, "vagrant").machine_state() is State.ABSENT


def test_a_closed_port_shows_no_key() -> None:
    with pytest.raises(UnreachableError):
        adopt.host_key(9, Deadline.after(2))
