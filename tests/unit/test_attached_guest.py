"""Somebody's machine from within: its Docker as it is found, who may use it; and this machine without SSH."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, DeadlineError
from lab.core.steps import Steps
from lab.engines.attached.link import AttachedLink, Docker
from lab.guest import hostkeys, kvm, theirs
from lab.guest.hostkeys import HostKey, Known
from lab.guest.local import LocalGuest
from lab.guest.login import HostKeyError
from lab.guest.ssh import Guest, Result
from lab.guest.terms import Terms
from lab.tasks.lab import attach_machine
from lab.workflow import carrying
from lab.workflow.session import Session
from tests.unit.probed import cpu_facts, kvm_probe

OK, NO, NOT_FOUND = (0, ""), (1, ""), (127, "sh: 1: docker: not found")


class FakeGuest:
    """Answers by how the command begins; what is not in the table fails."""

    user = "dev"

    def __init__(self, answers: dict[str, tuple[int, str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], *, check: bool = True, **_: Any) -> Result:
        line = " ".join(argv)
        self.asked.append(line)
        status, text = next((known for start, known in self.answers.items() if line.startswith(start)), NO)
        assert status == 0 or not check, line
        return Result(list(argv), text if status == 0 else "", "" if status == 0 else text, status, 0.0)


def _found(answers: dict[str, tuple[int, str]]) -> theirs.DockerService | None:
    return theirs.find_docker(cast(Guest, FakeGuest(answers)))


INFO = "26.1.5 Debian GNU/Linux 13 (trixie) [name=seccomp,profile=builtin]\n"


def test_a_docker_that_the_user_reaches_is_used_as_it_is() -> None:
    assert _found({"docker info": (0, INFO), "sudo": OK}) == theirs.DockerService("Docker", "26.1.5")


def test_one_that_only_root_reaches_is_reached_by_sudo() -> None:
    found = _found({"docker info": NO, "sudo -n -- true": OK, "sudo -n -- docker info": (0, INFO)})
    assert found == theirs.DockerService("Docker", "26.1.5", by_sudo=True)


def test_a_rootless_one_is_found_by_its_socket_and_named() -> None:
    socket = "unix:///run/user/1000/docker.sock"
    rootless = "27.1.1 Debian [name=seccomp,profile=builtin name=rootless name=cgroupns]\n"
    found = _found(
        {"sh -c": (0, "/run/user/1000/docker.sock\n"), f"env DOCKER_HOST={socket} docker info": (0, rootless)}
    )
    assert found == theirs.DockerService("rootless Docker", "27.1.1", socket)


def test_podmans_socket_is_named_as_what_it_is() -> None:
    socket = "unix:///run/user/1000/podman/podman.sock"
    found = _found(
        {
            "sh -c": (0, "/run/user/1000/podman/podman.sock\n"),
            f"env DOCKER_HOST={socket} docker info": (0, "5.4.2 debian [name=seccomp name=rootless]\n"),
            f"env DOCKER_HOST={socket} docker version": (0, '{"Components":[{"Name":"Podman Engine"}]}'),
        }
    )
    assert found == theirs.DockerService("Podman", "5.4.2", socket)


def test_a_client_whose_engine_does_not_answer_is_no_docker() -> None:
    """`docker info` then ends with 0 and says nothing of the server."""
    assert _found({"docker info": (0, " \n")}) is None


@pytest.mark.parametrize(
    ("answer", "what", "hint"),
    [
        (NOT_FOUND, "has no Docker, and lab installs none without being asked", "--install-docker"),
        (
            (1, "permission denied while trying to connect to docker.sock"),
            "dev may not use it",
            "groups docker dev",
        ),
        ((1, "Cannot connect to the Docker daemon"), "its engine does not answer", "systemctl start docker"),
    ],
)
def test_why_there_is_no_docker_is_said_with_the_way_out(
    answer: tuple[int, str], what: str, hint: str
) -> None:
    error = theirs.why_no_docker(cast(Guest, FakeGuest({"docker version": answer})))
    assert isinstance(error, BlockedError)
    assert what in error.what and hint in error.hint


@pytest.mark.parametrize(
    ("answers", "what"),
    [
        ({}, "dev may not use sudo without a password"),
        ({"sudo": OK}, "lab installs Docker with apt alone"),
    ],
)
def test_docker_is_not_installed_where_lab_cannot(answers: dict[str, tuple[int, str]], what: str) -> None:
    with pytest.raises(BlockedError, match=what), Steps().step("install") as step:
        theirs.install_docker(cast(Guest, FakeGuest(answers)), step, Deadline.after(1))


# --- host keys -----------------------------------------------------------------------------------------

KEY, OTHER = HostKey("ssh-ed25519", "AAAA"), HostKey("ssh-ed25519", "BBBB")


def test_a_host_key_is_known_unknown_or_refused() -> None:
    assert hostkeys.judge(KEY, "box", Known((KEY,))) == "known"
    assert hostkeys.judge(KEY, "box", Known()) == "unknown"
    with pytest.raises(HostKeyError, match="shows another host key") as caught:
        hostkeys.judge(KEY, "box", Known((OTHER,)))
    assert "ssh-keygen -R 'box'" in caught.value.hint
    with pytest.raises(HostKeyError, match="revoked"):
        hostkeys.judge(KEY, "box", Known((KEY,), (KEY,)))


@pytest.mark.parametrize(
    ("kind", "name"), [("ssh-ed25519", "ED25519"), ("ssh-rsa", "RSA"), ("ecdsa-sha2-nistp256", "ECDSA")]
)
def test_a_fingerprint_is_written_as_ssh_does(kind: str, name: str) -> None:
    assert HostKey(kind, "AAAA").fingerprint.startswith(f"{name} SHA256:")
    assert not HostKey(kind, "AAAA").fingerprint.endswith("=")


# --- this machine --------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path) -> LocalGuest:
    return LocalGuest("me", Terms(somebodys=True, sudo=False, folder=str(tmp_path)))


def test_a_command_runs_here_with_its_input_lines_and_status(here: LocalGuest, tmp_path: Path) -> None:
    lines: list[str] = []
    done = here.run(["sh", "-c", "cat; echo $TMPDIR; echo bad >&2"], stdin="in\n", on_line=lines.append)
    assert (done.out, done.err, done.status) == (f"in\n{tmp_path}\n", "bad\n", 0)
    assert sorted(lines) == sorted(["in", str(tmp_path), "bad"])
    with pytest.raises(CommandError):
        here.run(["sh", "-c", "exit 3"])
    assert here.run(["sh", "-c", "exit 3"], check=False).status == 3
    assert here.run(["sh", "-c", "kill -9 $$"], check=False).status == -1
    assert here.run(["no-such-program"], check=False).status == 127


def test_a_command_of_which_much_goes_in_and_out_is_not_stuck(here: LocalGuest) -> None:
    content = os.urandom(3 << 20).hex()
    assert here.run(["cat"], stdin=content).out == content


def test_a_command_that_does_not_end_is_ended_with_its_children(here: LocalGuest, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(DeadlineError):
        here.run(["sh", "-c", f"sleep 60 & echo $! >{pid}; wait"], deadline=Deadline.after(0.5))
    until = time.monotonic() + 5
    while time.monotonic() < until and _runs(int(pid.read_text())):
        time.sleep(0.05)
    assert not _runs(int(pid.read_text()))


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def test_output_that_a_child_holds_open_is_not_waited_for(here: LocalGuest) -> None:
    began = time.monotonic()
    assert here.run(["sh", "-c", "echo done; sleep 20 &"]).out == "done\n"
    assert time.monotonic() - began < 10


def test_files_are_copied_and_appear_only_when_whole(here: LocalGuest, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(100_000))
    heard: list[tuple[int, int]] = []
    here.put(source, str(target), lambda done, total: heard.append((done, total)))
    assert target.read_bytes() == source.read_bytes()
    assert heard[-1] == (100_000, 100_000)
    here.get(str(target), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    with pytest.raises(FileNotFoundError):
        here.get(str(tmp_path / "nothing"), tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "source", "target"]


class KvmOfRoot(FakeGuest):
    """A machine whose /dev/kvm only root may use."""

    terms = Terms(somebodys=True, sudo=False, kvm_by_sudo=True)

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        by_root = self.terms.applied(argv, options.get("sudo", False))[1]
        text = json.dumps(kvm_probe() if "--seconds" in argv else cpu_facts())
        self.asked.append(f"{by_root} {' '.join(argv)}")
        return Result(list(argv), text, "", 0, 0.0)


def test_where_only_root_may_use_kvm_the_probe_alone_runs_as_root() -> None:
    """Whatever Docker takes: a user whom lab let into the group docker is not in group kvm."""
    guest = KvmOfRoot({})
    assert kvm.probe(cast(Guest, guest)).probe.ok
    assert guest.asked == ["True python3 - --seconds 20", "False python3 -"]


def test_a_machine_that_lab_has_no_python_for_is_blocked_with_the_way_out() -> None:
    guest = FakeGuest({"uname -m": (0, "riscv64\n")})
    with pytest.raises(BlockedError, match="it has no python3, and lab has none for riscv64") as caught:
        carrying.words(cast(Session, None), cast(Guest, guest), "it has no python3")
    assert "install it there" in caught.value.hint


@pytest.mark.parametrize(
    ("docker", "begun", "lacks"),
    [
        (None, False, True),
        (None, True, True),
        (Docker(kind="Docker", version="26", by_sudo=True), True, True),  # a kill came before the group
        (Docker(kind="Docker", version="26", by_sudo=True), False, False),  # its owner's: used as it is
        (Docker(kind="Docker", version="26"), True, False),
    ],
)
def test_docker_is_installed_where_there_is_none_or_lab_was_cut_short(
    docker: Docker | None, begun: bool, lacks: bool
) -> None:
    link = AttachedLink(destination="box", docker=docker, installs_docker=begun)
    assert attach_machine._lacks_docker(link) is lacks
