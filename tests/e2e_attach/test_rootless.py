"""Docker without root, Podman, and Docker by sudo alone: attached, used as they are, left as they were."""

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
from tests.e2e_attach.rootless import Rootless, Service
from tests.unit.bed import checked

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("mmdebstrap"),
        reason="only root, with mmdebstrap, can make its root",
    ),
]

# Beside what the engine keeps for itself, and the folder that lab's own was in.
_OWN = (
    *("/proc", "/sys", "/dev", "/run", "/var/tmp"),  # noqa: S108
    *("/home/dev/.local", "/home/dev/.cache", "/var/lib/docker"),
)
_FILES = f"find / -xdev \\( {' -o '.join(f'-path {path}' for path in _OWN)} \\) -prune -o"
_CHANGED = f"({_FILES} ! -type d -cnewer /run/user/1000/before -print) 2>/dev/null; true"
_NAMES = f"({_FILES} -print) 2>/dev/null | sort"
_LISTS = ("container ls --all --quiet", "image ls --all --quiet", "volume ls --quiet")


@pytest.fixture(params=list(rootless.SERVICES))
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Service, Rootless]]:
    service = rootless.SERVICES[request.param]
    with rootless.running(tmp_path / "machine", service) as made:
        yield service, made


def test_it_is_used_as_it_is_and_left_as_it_was(machine: tuple[Service, Rootless], tmp_path: Path) -> None:
    service, made = machine
    has = "; ".join(f"{service.docker} {words}" for words in _LISTS)
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
    before = made.ssh(has)
    made.ssh("touch /run/user/1000/before; sleep 1; echo >>engine.log")
    assert made.ssh(_CHANGED) == "/home/dev/engine.log\n", "a change is seen"
    names = made.ssh(_NAMES)
    document = checked(attach_machine.attach(session, Wanted("box", config=str(config))))
    assert f", {service.kind} " in document["notes"][0]
    bench = Workbench.open(session, "box")
    link = links.read(bench.lab.vm_folder)
    assert link and link.docker
    assert (link.docker.kind, link.docker.by_sudo) == (service.kind, service.by_sudo)
    assert link.docker.host == ("" if service.by_sudo else f"unix://{service.socket}")
    with bench.new_guest() as guest:
        trial.container(guest)  # a container of lab's own image, which leaves nothing behind
        assert made.ssh(has) == before
        assert docker.facts(guest)["version"] == link.docker.version
        uuid = guest.terms.owner
        guest.run(["docker", "load"], stdin=trial.image("lab-proof:left", "word", uuid))
        options = ["--network", "none"] if service.by_sudo else []  # its engine was given no bridge
        publish = {} if service.by_sudo else {5555: free_port()}
        container = Container("lab-left", uuid)
        for _ in range(2):  # the second in the place of the first
            container.run(guest, "lab-proof:left", options, kvm=False, publish=publish)
        log, known = container.follow(guest, ["word"], Deadline.after(30))
        assert log.strip() == "word" and known and known["Config"]["Labels"][trial.OWNER_LABEL] == uuid
        assert len(made.ssh(has).split()) == 2
    checked(detach.detach(session, "box"))
    assert made.ssh(has) == before
    assert made.ssh("ls -A /var/tmp") == ""
    assert made.ssh(_CHANGED) == "/home/dev/engine.log\n"
    assert made.ssh(_NAMES) == names
