"""Somebody's machine, attached over SSH through a jump, to the nested guest, and left as it was.

Two plain Debian VMs that lab did not make, one after the other: with Docker and no sudo, and with sudo and no
Docker. The tests of one VM share it and stand on each other: they run in the order of this file.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.ladder.rungs import LADDER
from lab.model.domain import Claim
from tests.e2e.conftest import Lab, lab_environment
from tests.e2e_attach import killing, plainvm
from tests.e2e_attach.plainvm import PlainVm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))
from sshserver import PROGRAM, Server

pytestmark = [
    pytest.mark.timeout(2700),
    pytest.mark.skipif(bool(plainvm.missing()), reason=f"missing: {plainvm.missing()}"),
    pytest.mark.skipif(PROGRAM is None, reason="no sshd here (package openssh-server)"),
]

NAME = "plain"
_STEPS = ("machine.look", "emulator.upload", "emulator.load", "nested.boot")
"""Where `lab.up` is killed, hard."""
_LEFT = {
    "nothing yet": "true",
    "the containers": 'test -z "$(sudo docker container ls --all --quiet)"',
    "the images": 'test -z "$(sudo docker image ls --all --quiet)"',
}
"""What `lab.detach` has taken away when it is killed, hard; each by a command in the machine."""
_DOCKERS = re.compile(r"^/(etc|usr|lib|var|opt|home/dev$|home/dev/\.docker)(/|$)|^/$")
"""Where Docker's packages put their files."""


@dataclass
class Case:
    """One VM, the jump before it, and a lab's state folder."""

    vm: PlainVm
    lab: Lab
    config: Path
    before: dict[str, str] = field(default_factory=dict)
    docker_before: str = ""

    @property
    def folder(self) -> Path:
        return self.lab.state / "labs" / NAME

    @property
    def attaching(self) -> tuple[str, ...]:
        return ("lab.attach", "--ssh", NAME, "--ssh-config", str(self.config))

    def attach(self, *words: str, status: int = 0) -> dict[str, Any]:
        return self.lab.json(*self.attaching, *words, status=status)


def _case(name: str, docker: bool) -> Iterator[Case]:
    kept = plainvm.kept()
    folder = kept / name if kept else Path(tempfile.mkdtemp(prefix="lab-plain-"))
    (folder / "jump").mkdir(parents=True, exist_ok=True)
    port, before = folder / "jump" / "port", folder / "before.json"
    jump = Server(folder / "jump", int(port.read_text()) if port.exists() else 0)
    port.write_text(str(jump.port))
    jump.start()
    try:
        with plainvm.running(folder / "vm", sudo=not docker, docker=docker) as vm:
            known = folder / "known_hosts"
            known.write_text(
                f"[127.0.0.1]:{jump.port} {Path(f'{jump.host_key}.pub').read_text()}"
                f"[127.0.0.1]:{vm.port} {vm.host_key()}\n"
            )
            config = folder / "ssh_config"
            config.write_text(
                f"Host jump\n  HostName 127.0.0.1\n  Port {jump.port}\n  IdentityFile {jump.key}\n"
                f"Host {NAME}\n  HostName 127.0.0.1\n  Port {vm.port}\n  User dev\n  IdentityFile {vm.key}\n"
                f"  ProxyJump jump\nHost *\n  UserKnownHostsFile {known}\n"
            )
            env = lab_environment(folder / "state") | {"LAB_EMULATOR__KIND": "canary"}
            del env["LAB_ENGINE"], env["LAB_IMAGE"]
            lab = Lab(folder / "state", env)
            if not before.exists():
                before.write_text(json.dumps([vm.contents(), vm.docker_has() if docker else ""]))
            yield Case(vm, lab, config, *json.loads(before.read_text()))
            if not kept:
                lab.run("lab.detach", NAME, "--forget")
    finally:
        jump.stop()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def with_docker() -> Iterator[Case]:
    yield from _case("with-docker", docker=True)


@pytest.fixture(scope="module")
def with_sudo() -> Iterator[Case]:
    yield from _case("with-sudo", docker=False)


def _steps(case: Case) -> str:
    return "".join(path.read_text() for path in case.lab.state.glob(f"evidence/{NAME}/*-up/steps.jsonl"))


def _kill_at(case: Case, step: str) -> None:
    """Begin `lab.up`, and kill it hard once that step has begun."""
    seen = _steps(case).count(f'"name": "{step}"')
    process = case.lab.start("lab.up", "--name", NAME)
    try:
        until = time.monotonic() + 900
        while _steps(case).count(f'"name": "{step}"') <= seen and process.poll() is None:
            assert time.monotonic() < until, f"{step} was not reached"
            time.sleep(0.2)
        time.sleep(1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def _link(case: Case) -> dict[str, Any]:
    link: dict[str, Any] = json.loads((case.folder / "vm" / "attached.json").read_text())
    return link


def _forwards(case: Case) -> list[psutil.Process]:
    return killing.forwards(case.folder)


def _confirmed(document: dict[str, Any]) -> None:
    rungs = {rung["rung"]: rung for rung in document["rungs"]}
    for name in LADDER.required(Claim.NESTING):
        assert rungs[name]["status"] == "passed", rungs[name]
    assert document["claims"]["nesting"]["verdict"] == "confirmed"
    assert "KVMKVMKVM" in rungs["nested.adb"]["observed"]


# --- Docker, and no sudo -------------------------------------------------------------------------------


def test_a_machine_is_attached_as_its_user_and_said_to_be_what_it_is(with_docker: Case) -> None:
    document = with_docker.attach()
    assert document["notes"][0] == "it is a VM under QEMU's emulation, by SSH, Docker 26.1.5+dfsg1"
    assert with_docker.attach()["changed"] is False
    assert with_docker.vm.ssh("sudo -n true", user="dev", check=False)[0] != 0


@pytest.mark.parametrize("step", _STEPS)
def test_a_kill_at_any_step_leaves_a_lab_that_up_goes_on_with(with_docker: Case, step: str) -> None:
    _kill_at(with_docker, step)
    assert [row["name"] for row in with_docker.lab.json("lab.list")["labs"]] == [NAME]


def test_up_ends_with_nesting_confirmed(with_docker: Case) -> None:
    document = with_docker.lab.json("lab.up", "--name", NAME)
    _confirmed(document)
    cell = document["cell"]
    assert (cell["engine"], cell["acceleration"], cell["nesting"]) == ("attached", "tcg", "emulated")
    assert cell["engine_version"] == "a VM under QEMU's emulation, by SSH, Docker 26.1.5+dfsg1"
    assert cell["host"]["os"] == "Debian GNU/Linux 13"
    assert (Path(document["evidence"]) / "report.html").is_file()
    for private in ("journal.txt", "packages.txt", "docker-ps.txt"):
        assert not (Path(document["evidence"]) / private).exists()


def test_its_ports_are_on_both_loopbacks_alone(with_docker: Case) -> None:
    (process,) = _forwards(with_docker)
    listening = {item.laddr.ip for item in process.net_connections() if item.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}
    published = with_docker.vm.ssh("sudo docker ps --format '{{.Ports}}'")[1]
    assert re.fullmatch(r"127\.0\.0\.1:\d+->5555/tcp\n", published)


def test_the_same_tasks_as_for_any_lab(with_docker: Case) -> None:
    lab = with_docker.lab
    assert "nothing was changed" in lab.run("lab.up", "--name", NAME).out
    assert lab.json("lab.validate", "--name", NAME)["verdict"] == "confirmed"
    assert lab.json("lab.status", "--deep", "--name", NAME)["container"]["running"]
    assert lab.json("emulator.status", "--name", NAME)["emulators"][0]["health"]["usable"]
    assert lab.json("lab.exec", "--name", NAME, "--", "id", "-un")["out"] == "dev\n"
    assert lab.json("lab.evidence", "--collect", "--name", NAME)["runs"]


@pytest.mark.parametrize("task", ["lab.halt", "lab.suspend", "lab.resume", "lab.destroy", "lab.snapshots"])
def test_what_lab_does_not_do_there_it_says(with_docker: Case, task: str) -> None:
    refused = with_docker.lab.json(task, "--name", NAME, status=2)
    assert "is somebody's machine, and lab never" in refused["error"]["what"]


def test_forwards_that_died_are_opened_again(with_docker: Case) -> None:
    for process in _forwards(with_docker):
        process.kill()
    assert with_docker.lab.json("lab.validate", "--name", NAME)["verdict"] == "confirmed"
    assert len(_forwards(with_docker)) == 1


@pytest.mark.parametrize("left", _LEFT)
def test_detaching_that_was_killed_can_be_done_again(with_docker: Case, left: str) -> None:
    process = with_docker.lab.start("lab.detach", NAME)
    killing.kill_when(process, lambda: with_docker.vm.ssh(_LEFT[left], check=False)[0] == 0)
    assert [row["name"] for row in with_docker.lab.json("lab.list")["labs"]] == [NAME]


def test_detach_leaves_it_byte_for_byte_as_it_was(with_docker: Case) -> None:
    document = with_docker.lab.json("lab.detach", NAME)
    assert document["state"] == "absent"
    assert _forwards(with_docker) == []
    assert with_docker.vm.docker_has() == with_docker.docker_before
    assert _changed(with_docker) == {}


def _changed(case: Case) -> dict[str, tuple[str | None, str | None]]:
    """Path to what it was and what it is, of every file that differs."""
    before, after = case.before, case.vm.contents()
    return {
        path: (before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
        if before.get(path) != after.get(path)
    }


# --- sudo, and no Docker -------------------------------------------------------------------------------


def test_nothing_is_installed_that_was_not_asked_for(with_sudo: Case) -> None:
    document = with_sudo.attach()
    assert any("lab installs none without being asked to" in note for note in document["notes"])
    refused = with_sudo.lab.json("lab.up", "--name", NAME, status=11)
    assert refused["rungs"][-1]["status"] != "passed"
    with_sudo.lab.json("lab.detach", NAME)
    assert _changed(with_sudo) == {}


def test_docker_is_installed_when_that_is_asked_for(with_sudo: Case) -> None:
    """Killed hard in the middle of it, and asked for again."""
    process = with_sudo.lab.start(*with_sudo.attaching, "--install-docker")
    time.sleep(30)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    document = with_sudo.attach("--install-docker")
    assert "Docker 26.1.5" in document["notes"][0]
    assert any("lab uses sudo to probe it" in note for note in document["notes"])


def test_there_too_up_ends_with_nesting_confirmed(with_sudo: Case) -> None:
    _confirmed(with_sudo.lab.json("lab.up", "--name", NAME))


def test_without_a_python_of_its_own_it_is_climbed_with_labs(with_sudo: Case) -> None:
    with_sudo.vm.ssh("sudo chmod a-x /usr/bin/python3.*")
    try:
        _confirmed(with_sudo.lab.json("lab.validate", "--name", NAME))
        (brought,) = with_sudo.vm.ssh("sudo ls -d /var/tmp/lab-*/python-*")[1].split()
        assert _link(with_sudo)["python"][0] == f"{brought}/python3"
    finally:
        with_sudo.vm.ssh("sudo chmod a+x /usr/bin/python3.*")


def test_docker_stays_and_nothing_else(with_sudo: Case) -> None:
    notes = with_sudo.lab.json("lab.detach", NAME)["notes"]
    assert "Docker stays, which lab was asked to install" in notes
    assert with_sudo.vm.ssh("sudo docker ps --all --quiet; sudo docker image ls --all --quiet")[1] == ""
    strange = [path for path in _changed(with_sudo) if not _DOCKERS.match(path)]
    assert strange == []
    assert not [path for path in with_sudo.vm.contents() if "lab-" in path and path not in with_sudo.before]
