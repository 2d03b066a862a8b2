"""lab.attach --here, against a real dockerd in network and mount namespaces of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sshserver import eventually

from lab.config import Settings
from lab.core.steps import Steps
from lab.guest import trial
from lab.tasks.lab import attach_machine, detach, ssh
from lab.tasks.lab.attach_machine import Wanted
from lab.workflow import attached
from lab.workflow.session import Session
from lab.workflow.workbench import Workbench
from tests.unit.bed import checked

_DAEMON = """
ip link set lo up
exec dockerd --host "unix://$1/run/docker.sock" --data-root "$1/data" --exec-root "$1/exec" \
    --pidfile "$1/pid" --storage-driver vfs --iptables=false --ip6tables=false --bridge=none
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a Docker"),
    pytest.mark.skipif(
        not (shutil.which("dockerd") and shutil.which("docker")), reason="no dockerd here (package docker.io)"
    ),
]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A Docker at a socket where a rootless one's would be; its folder."""
    (tmp_path / "run").mkdir()
    with (tmp_path / "log").open("wb") as log:
        words = [
            "unshare",
            "--mount",
            "--net",
            "--propagation=private",
            "sh",
            "-c",
            _DAEMON,
            "dockerd",
            tmp_path,
        ]
        daemon = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        eventually(lambda: _answers(tmp_path) or daemon.poll() is not None)
        if daemon.poll() is not None:
            pytest.skip(f"dockerd does not run here: {(tmp_path / 'log').read_text()[-300:]}")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        yield tmp_path
    finally:
        daemon.terminate()
        daemon.wait(30)


def _docker(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "DOCKER_HOST": f"unix://{folder}/run/docker.sock"}
    return subprocess.run(["docker", *words], env=env, capture_output=True, text=True, check=False)


def _answers(folder: Path) -> bool:
    return _docker(folder, "version").returncode == 0


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = Settings(
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
        emulator={"kind": "canary"},
        install="never",
    )
    return Session(settings.with_origins({}), Steps(), False)


def _attach(session: Session) -> dict[str, Any]:
    return checked(attach_machine.attach(session, Wanted(here=True)))


def test_this_machine_becomes_a_lab_and_is_left_as_it_was(docker: Path, session: Session) -> None:
    document = _attach(session)
    assert (document["lab"], document["state"], document["changed"]) == ("here", "running", True)
    assert ", here, Docker " in document["notes"][0]
    assert _attach(session)["changed"] is False, "what was found of its Docker the first time still holds"
    bench = Workbench.open(session, "here")
    access = bench.record().forwards["adb"]
    assert access.host_port == access.guest_port, "what is published here is on this loopback"
    assert (
        ssh.execute(session, "here", ["printenv", "DOCKER_HOST"], True).document["out"].startswith("unix://")
    )
    with bench.new_guest() as guest:
        trial.container(guest)  # which leaves nothing behind
        uuid = guest.terms.owner
        guest.run(["docker", "load"], stdin=trial.image("lab-proof:left", "word", uuid))  # a kill came before
        made = guest.run(["docker", "create", "--label", f"{trial.OWNER_LABEL}={uuid}", "lab-proof:left"])
        strangers = guest.run(["docker", "load"], stdin=trial.image("strangers:1", "word"))
    assert made.out.strip() and "strangers:1" in strangers.out
    folder = Path(attached.folder(bench.record()))
    assert folder.is_dir()
    assert checked(detach.detach(session, "here"))["notes"][:2] == ["1 container removed", "1 image removed"]
    assert _docker(docker, "container", "ls", "--all", "--quiet").stdout == ""
    assert _docker(docker, "image", "ls", "--format", "{{.Repository}}").stdout == "strangers\n"
    assert not folder.exists()
    assert session.store.labs() == []
