"""lab.guest.docker against a VM that is played by a table of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.deadline import Deadline
from lab.errors import BlockedError, CommandError
from lab.guest import docker
from lab.guest.ssh import Result
from lab.steps import Event, Steps

Answer = tuple[int, str, str]
OK: Answer = (0, "", "")


class FakeGuest:
    """A Debian-like VM: what is installed, running and allowed decides what commands answer."""

    user = "lab"

    def __init__(self, *, cached: bool = True, network: bool = True, running: bool = False) -> None:
        self.cached, self.network, self.running = cached, network, running
        self.installed = running
        self.lists = cached
        self.groups = {"lab"}
        self.member_of = {"lab"}
        self.client_apart = False
        self.installs: list[list[str]] = []
        self.trouble: list[Answer] = []
        self.start_log = ""

    def run(self, argv: list[str], *, sudo: bool = False, check: bool = True, **more: Any) -> Result:
        status, out, err = self._answer(list(argv), sudo)
        if check and status:
            raise CommandError(argv, status, tail=out + err)
        return Result(list(argv), out, err, status, 0.0)

    def reconnect(self) -> None:
        self.groups = set(self.member_of)

    def _answer(self, argv: list[str], sudo: bool) -> Answer:
        text = " ".join(argv)
        if "apt-get" in argv:
            return self._apt(argv)
        if argv[0] == "docker":
            return self._docker(argv, sudo)
        if "gpasswd" in text:
            joined = not set(argv[4:]) <= self.member_of
            self.member_of |= set(argv[4:])
            self.running = self.installed and not self.start_log
            return (0, "joined\n" if joined else "\n", "")
        if "command -v dockerd" in text:
            answers = self.running and "docker" in self.member_of
            return (0, "1.2\n" if answers else "installed\n" if self.installed else "", "")
        if argv[0] == "systemctl":
            return (0, "failed\n" if self.start_log else "active\n", "")
        return (0, self.start_log, "") if argv[0] == "journalctl" else OK

    def _apt(self, argv: list[str]) -> Answer:
        if self.trouble:
            return self.trouble.pop(0)
        if not self.network and (argv[-1] == "update" or "--no-download" not in argv):
            return (100, "", "E: Failed to fetch: Temporary failure resolving 'mirror'")
        if argv[-1] == "update":
            self.lists = True
            return OK
        wanted = argv[argv.index("install") + 1 :]
        known = (
            {"docker.io", "apparmor", *(["docker-cli"] if self.client_apart else [])} if self.lists else set()
        )
        if unknown := [name for name in wanted if name not in known]:
            return (100, "", "".join(f"E: Unable to locate package {name}\n" for name in unknown))
        self.installs.append(wanted)
        if "--no-download" in argv and not self.cached:
            return (100, "", "E: Unable to fetch some archives")
        self.installed = True
        return OK

    def _docker(self, argv: list[str], sudo: bool) -> Answer:
        if not self.running or not (sudo or "docker" in self.groups):
            return (1, "", "Cannot connect to the Docker daemon")
        return (0, '{"ServerVersion": "1.2"}' if "{{json .}}" in argv else "1.2\n", "")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def ensure(said: list[str]) -> Iterator[Callable[[FakeGuest], bool]]:
    steps = Steps(_collector(said))
    with steps.step("docker") as step:
        yield lambda guest: docker.ensure(guest, "docker.io", step, Deadline.after(5))  # type: ignore[arg-type]


def _collector(said: list[str]) -> Callable[[Event], None]:
    return lambda event: said.append(event.text)


def test_healthy_engine_is_left_alone(ensure: Callable[[FakeGuest], bool]) -> None:
    guest = FakeGuest(running=True)
    guest.member_of.add("docker")
    assert ensure(guest) is False
    assert guest.installs == []


def test_installed_from_the_cache_without_the_network(ensure: Callable[[FakeGuest], bool]) -> None:
    guest = FakeGuest(network=False)
    assert ensure(guest) is True
    assert guest.installs == [["docker.io", "apparmor"]]
    assert {"docker", "kvm"} <= guest.groups, "the connection must be opened anew for groups to count"
    assert ensure(guest) is False


def test_client_that_is_a_package_of_its_own_is_installed_too(ensure: Callable[[FakeGuest], bool]) -> None:
    guest = FakeGuest()
    guest.client_apart = True
    assert ensure(guest) is True
    assert guest.installs == [["docker.io", "docker-cli", "apparmor"]]


def test_network_is_used_only_when_the_cache_lacks_it_and_said(
    ensure: Callable[[FakeGuest], bool], said: list[str]
) -> None:
    guest = FakeGuest(cached=False)
    assert ensure(guest) is True
    assert any("from the network" in text for text in said)


def test_neither_cache_nor_network_is_blocked(ensure: Callable[[FakeGuest], bool]) -> None:
    with pytest.raises(BlockedError, match="cannot reach its package sources"):
        ensure(FakeGuest(cached=False, network=False))


def test_lock_is_waited_for_and_broken_installation_finished(
    ensure: Callable[[FakeGuest], bool], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.guest.apt.pause", lambda seconds: None)
    guest = FakeGuest()
    guest.trouble = [
        (100, "", "E: Could not get lock /var/lib/apt/lists/lock"),
        (100, "", "E: dpkg was interrupted, you must manually run 'dpkg --configure -a'"),
    ]
    assert ensure(guest) is True
    assert any("waiting for it" in text for text in said)
    assert any("finishing it" in text for text in said)


def test_engine_that_does_not_start_shows_its_log(ensure: Callable[[FakeGuest], bool]) -> None:
    guest = FakeGuest()
    guest.start_log = "failed to start daemon: no space left on device"
    with pytest.raises(BlockedError, match="disk is full") as caught:
        ensure(guest)
    assert "failed to start daemon" in caught.value.tail


def test_an_engine_that_shuts_its_user_out_lets_him_in(ensure: Callable[[FakeGuest], bool]) -> None:
    guest = FakeGuest(running=True)
    assert ensure(guest) is True
    assert guest.installs == [] and "docker" in guest.groups
