"""Fixtures that more than one file uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.deadline import Deadline
from lab.guest.ssh import Guest
from lab.guest.waiting import wait_for_ssh
from tests.integration.sshserver import Server
from tests.integration.vboxroot import Instance, Root, built, mounted


@pytest.fixture(scope="session")
def vbox_root() -> Root:
    """The cached Debian root with VirtualBox, built if it is not there."""
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        pytest.skip("only root on Debian can have a root with VirtualBox")
    return built()


@pytest.fixture(scope="module")
def vbox(vbox_root: Root, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """An instance for the tests of one file; every `tmp_path` is in it at the same path."""
    temporary = tmp_path_factory.getbasetemp()
    with mounted(vbox_root, tmp_path_factory.mktemp("vbox") / "home", [temporary]) as instance:
        yield instance


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    wait_for_ssh(server.guest, Deadline.after(20), lambda: None).close()
    yield server
    server.stop()


@pytest.fixture
def guest(server: Server) -> Iterator[Guest]:
    with server.guest() as guest:
        yield guest
