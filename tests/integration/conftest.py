"""Fixtures that more than one file uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import qemubench
import vboxbench
from registrybench import ANDROID, REPOSITORY, TAG, Bench, at
from registryserver import Registry, registry
from xdist.scheduler import LoadFileScheduling

from lab.core.deadline import Deadline
from lab.engines.virtualbox.transport import Transport
from lab.guest.ssh import Guest
from lab.guest.waiting import wait_for_ssh
from lab.host.packages import find_program
from tests.integration.sshserver import Server
from tests.integration.vboxroot import Instance, Root, built, mounted

if TYPE_CHECKING:
    from playwright.sync_api import Browser


_WITH_GUESTS = {
    "test_adb",
    "test_bochs",
    "test_canary_arm",
    "test_canary_image",
    "test_docker_android",
    "test_double",
    "test_kvm_probe",
    "test_qemu_engine",
    "test_qemu_faults",
    "test_qemu_network",
}
"""The files with guests on an emulated processor: one at a time, or their deadlines would be the host's."""


class _FileByFile(LoadFileScheduling):  # type: ignore[misc] # it has no types
    """A file's tests stay together, those with guests follow each other, and all else runs beside them."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "guests" if Path(file).stem in _WITH_GUESTS else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _FileByFile:
    return _FileByFile(config, log)


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


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry with one image."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    with registry(tmp_path_factory.mktemp("registry") / "storage") as made:
        made.push(REPOSITORY, TAG, ANDROID)
        yield made


@pytest.fixture
def bench(real: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """An empty cache, and a door in front of the registry."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with at(real, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    program = find_program("chromium")
    if program is None:
        pytest.skip("there is no chromium here (Debian's package of that name)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(program), args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def qemu_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return qemubench.bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture
def make_qemu(tmp_path: Path, qemu_bases: dict[bool, Path]) -> Iterator[qemubench.Make]:
    with qemubench.machines(tmp_path, qemu_bases) as make:
        yield make


@pytest.fixture(scope="module")
def vbox_bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    return vboxbench.bases(tmp_path_factory)


@pytest.fixture(scope="module")
def vbox_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=["vboxapi", "VBoxManage"])
def vbox_transport(request: pytest.FixtureRequest, vbox: Instance) -> Callable[[], Transport]:
    """Makes transports to the real VirtualBox, of the kind the test runs with."""
    return vboxbench.transports(request.param, vbox)


@pytest.fixture
def vbox_client(vbox_transport: Callable[[], Transport]) -> Iterator[Transport]:
    made = vbox_transport()
    yield made
    made.close()


@pytest.fixture
def make_vbox(
    tmp_path: Path, vbox_bases: dict[bool, Path], vbox_cache: Path, vbox_client: Transport
) -> Iterator[vboxbench.Make]:
    with vboxbench.machines(tmp_path, vbox_bases, vbox_cache, vbox_client) as make:
        yield make
