"""Docker without root, and Podman, as their user has them: attached, used as they are, left as they were."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.config import Settings
from lab.core.deadline import Deadline
from lab.core.steps import Steps
from lab.emulators.container import Container
from lab.engines.attached import link as links
from lab.guest import docker, trial
from lab.tasks.lab import attach_machine, detach
from lab.tasks.lab.attach_machine import Wanted
from lab.workflow.session import Session
from lab.workflow.workbench import Workbench
from tests.e2e_attach import rootless
from tests.e2e_attach.plainvm import free_port
from tests.e2e_attach.rootless import Rootless
from tests.unit.bed import checked

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("mmdebstrap"),
        reason="only root, with mmdebstrap, can make its root",
    ),
]

# Beside what the engine keeps for itself, and the folder that lab's own was in.
_OWN = ("/proc", "/sys", "/dev", "/run", "/var/tmp", "/home/dev/.local", "/home/dev/.cache")  # noqa: S108
_FILES = f"find / -xdev \\( {' -o '.join(f'-path {path}' for path in _OWN)} \\) -prune -o"
_CHANGED = f"({_FILES} ! -type d -cnewer /run/user/1000/before -print) 2>/dev/null; true"
_NAMES = f"({_FILES} -print) 2>/dev/null | sort"
_HAS = "docker container ls --all --quiet; docker image ls --all --quiet; docker volume ls --quiet"


@pytest.fixture(params=list(rootless.ENGINES))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Rootless]]:
    with rootless.running(tmp_path / "machine", request.param) as made:
        yield request.param, made


def test_it_is_used_as_it_is_and_left_as_it_was(machine: tuple[str, Rootless], tmp_path: Path) -> None:
    kind, made = machine
    socket = f"unix:///run/user/1000/{rootless.ENGINES[kind][0]}"
    config = tmp_path / "ssh_config"
    (tmp_path / "known_hosts").write_text(
        f"[127.0.0.1]:{made.server.port} {Path(f'{made.server.host_key}.pub').read_text()}"
    )
    config.write_text(
        f"Host box\n  HostName 127.0.0.1\n  Port {made.server.port}\n  User dev\n"
        f"  IdentityFile {made.server.key}\n  UserKnownHostsFile {tmp_path / 'known_hosts'}\n"
    )
    settings = Settings(
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
        emulator={"kind": "canary"},
        install="never",
    )
    session = Session(settings.with_origins({}), Steps(), False)
    before = made.ssh(f"export DOCKER_HOST={socket}; {_HAS}")
    made.ssh("touch /run/user/1000/before; sleep 1; echo >>engine.log")
    assert made.ssh(_CHANGED) == "/home/dev/engine.log\n", "a change is seen"
    names = made.ssh(_NAMES)
    document = checked(attach_machine.attach(session, Wanted("box", config=str(config))))
    assert f", {kind} " in document["notes"][0]
    bench = Workbench.open(session, "box")
    link = links.read(bench.lab.vm_folder)
    assert link and link.docker
    assert (link.docker.kind, link.docker.host, link.docker.by_sudo) == (kind, socket, False)
    with bench.new_guest() as guest:
        trial.container(guest)  # a container of lab's own image, which leaves nothing behind
        assert made.ssh(f"export DOCKER_HOST={socket}; {_HAS}") == before
        assert docker.facts(guest)["version"] == link.docker.version
        uuid = guest.terms.owner
        guest.run(["docker", "load"], stdin=trial.image("lab-proof:left", "word", uuid))
        port = free_port()
        container = Container("lab-left", uuid)
        for _ in range(2):  # the second in the place of the first
            container.run(guest, "lab-proof:left", [], kvm=False, publish={5555: port})
        log, known = container.follow(guest, ["word"], Deadline.after(30))
        assert log.strip() == "word" and known and known["Config"]["Labels"][trial.OWNER_LABEL] == uuid
        assert len(made.ssh(f"export DOCKER_HOST={socket}; {_HAS}").split()) == 2
    checked(detach.detach(session, "box"))
    assert made.ssh(f"export DOCKER_HOST={socket}; {_HAS}") == before
    assert made.ssh("ls -A /var/tmp") == ""
    assert made.ssh(_CHANGED) == "/home/dev/engine.log\n"
    assert made.ssh(_NAMES) == names
