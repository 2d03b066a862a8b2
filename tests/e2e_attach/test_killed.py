"""lab.attach and lab.detach, killed hard at each step, where Docker is: they go on, or are undone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.guest import trial
from tests.e2e.conftest import Lab, lab_environment
from tests.e2e_attach import killing, rootless
from tests.e2e_attach.rootless import Rootless
from tests.e2e_attach.test_rootless import pytestmark as pytestmark

NAME = "box"
_SERVICE = rootless.SERVICES["rootless Docker"]
_SOCKET = f"DOCKER_HOST=unix://{_SERVICE.socket}"
_HAS = f"export {_SOCKET}; docker container ls --all --quiet; docker image ls --all --quiet"
_STEPS = {
    "its record": lambda lab: (lab / "lab.json").exists(),
    "the way": lambda lab: (lab / "vm" / "ssh_config").exists(),
    "the host key": lambda lab: (lab / "keys" / "known_hosts").exists(),
    "the key": lambda lab: _link(lab).get("key"),
    "what it is": lambda lab: _link(lab).get("about"),
    "its ports": lambda lab: _link(lab).get("ports_from"),
    "the forward": killing.forwards,
}
"""What `lab.attach` has done when it is killed; each true by the lab's folder, or by a process."""
_LEFT = {
    "nothing yet": "true",
    "the containers": 'test -z "$(docker container ls --all --quiet)"',
    "the images": 'test -z "$(docker image ls --all --quiet)"',
    "the folder": "! ls -d /var/tmp/lab-*",
}
"""What `lab.detach` has taken away when it is killed; each by a command in the machine."""


class Machine:
    """The machine, and a state folder of a lab that is attached to it."""

    def __init__(self, made: Rootless, folder: Path) -> None:
        self.made = made
        (folder / "known_hosts").write_text(
            f"[127.0.0.1]:{made.server.port} {Path(f'{made.server.host_key}.pub').read_text()}"
        )
        config = folder / "ssh_config"
        config.write_text(
            f"Host {NAME}\n  HostName 127.0.0.1\n  Port {made.server.port}\n  User dev\n"
            f"  IdentityFile {made.server.key}\n  UserKnownHostsFile {folder / 'known_hosts'}\n"
        )
        env = lab_environment(folder / "state") | {"LAB_EMULATOR__KIND": "canary"}
        del env["LAB_ENGINE"], env["LAB_IMAGE"]
        self.lab = Lab(folder / "state", env)
        self.attaching = ("lab.attach", "--ssh", NAME, "--ssh-config", str(config))

    @property
    def folder(self) -> Path:
        return self.lab.state / "labs" / NAME

    def must_be_as_it_was(self) -> None:
        """Nothing of lab's is there, here or in the machine."""
        assert killing.forwards(self.folder) == []
        assert self.lab.json("lab.list")["labs"] == []
        assert self.made.ssh("ls -d /var/tmp/lab-* 2>/dev/null; true") == ""
        assert self.made.ssh(_HAS) == ""


def _link(lab: Path) -> dict[str, Any]:
    file = lab / "vm" / "attached.json"
    link: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return link


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("killed")
    with rootless.running(folder / "machine", _SERVICE) as made:
        yield Machine(made, folder)


@pytest.mark.parametrize("then", ["lab.attach", "lab.detach"])
@pytest.mark.parametrize("step", _STEPS)
def test_attaching_that_was_killed_goes_on_or_is_undone(machine: Machine, step: str, then: str) -> None:
    killing.kill_when(machine.lab.start(*machine.attaching), lambda: _STEPS[step](machine.folder))
    if then == "lab.attach":
        assert machine.lab.json(*machine.attaching)["state"] == "running"
        assert len(killing.forwards(machine.folder)) == 1
    machine.lab.json("lab.detach", NAME)
    machine.must_be_as_it_was()


@pytest.mark.parametrize("left", _LEFT)
def test_detaching_that_was_killed_is_done_again(machine: Machine, left: str) -> None:
    machine.lab.json(*machine.attaching)
    uuid = json.loads((machine.folder / "lab.json").read_text())["uuid"]
    archive = trial.image("lab-proof:left", "word", uuid)  # as an emulator and its image
    machine.made.ssh(f"export {_SOCKET}; docker load --quiet", stdin=archive)
    machine.made.ssh(f"export {_SOCKET}; docker create --label {trial.OWNER_LABEL}={uuid} lab-proof:left")
    begun = machine.lab.start("lab.detach", NAME)
    command = f"export {_SOCKET}; {_LEFT[left]} >/dev/null 2>&1 && echo yes; true"
    killing.kill_when(begun, lambda: machine.made.ssh(command) == "yes\n")
    if machine.folder.exists():  # else the kill came after all was done
        machine.lab.json("lab.detach", NAME)
    machine.must_be_as_it_was()
