"""lab.guest.docker against a VM that is played by a table of answers."""

# ruff: noqa: E501 - what programs print is one line where they print one

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, DeadlineError, InterruptedByUser, LabError
from lab.core.steps import Event, Steps
from lab.guest import apt, clock, docker
from lab.guest.ssh import Result
from lab.guest.terms import OWN

Answer = tuple[int, str, str]
OK: Answer = (0, "", "")


class FakeGuest:
    """A Debian-like VM: what is installed, running and allowed decides what commands answer."""

    terms = OWN

    user = "lab"
    info = '{"ServerVersion": "1.2"}'

    def __init__(self, *, cached: bool = True, network: bool = True, running: bool = False) -> None:
        self.cached, self.network, self.running = cached, network, running
        self.installed = running
        self.lists = cached
        self.groups = {"lab"}
        self.member_of = {"lab"}
        self.client_apart = False
        self.installs: list[list[str]] = []
        self.trouble: list[Answer] = []
        self.configuring: list[Answer] = []
        self.breaks: LabError | None = None
        """What ends whatever apt is to do."""
        self.behind = 0.0
        self.asked: list[list[str]] = []
        self.start_log = ""

    def run(self, argv: list[str], *, sudo: bool = False, check: bool = True, **more: Any) -> Result:
        status, out, err = self._answer(list(argv), sudo)
        for line in (out + err).splitlines():
            (more.get("on_line") or len)(line)
        if check and status:
            raise CommandError(argv, status, tail=out + err)
        return Result(list(argv), out, err, status, 0.0)

    def reconnect(self) -> None:
        self.groups = set(self.member_of)

    def _answer(self, argv: list[str], sudo: bool) -> Answer:
        text = " ".join(argv)
        self.asked.append(argv)
        if argv == ["date", "+%s"]:
            return (0, f"{time.time() - self.behind:.0f}\n", "")
        if argv[0] == "date":
            assert sudo and "--set" in argv
            self.behind = 0.0
        if "dpkg --configure -a" in text:
            return self.configuring.pop(0) if self.configuring else OK
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
        if self.breaks:
            raise self.breaks
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
        return (0, self.info if "{{json .}}" in argv else "1.2\n", "")


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
    assert any("(Unable to locate package apparmor): fetching from the network" in text for text in said)


@pytest.mark.parametrize("error", [InterruptedByUser("interrupted"), DeadlineError("it did not end in 1 s")])
def test_an_end_that_was_asked_for_is_no_reason_to_go_on_with_the_network(
    ensure: Callable[[FakeGuest], bool], said: list[str], error: LabError
) -> None:
    guest = FakeGuest()
    guest.breaks = error
    with pytest.raises(type(error)):
        ensure(guest)
    assert not any("from the network" in text for text in said)
    assert not any("update" in argv for argv in guest.asked)


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


FRONTEND = """\
dpkg: error: dpkg frontend lock was locked by another process with pid 4513
Note: removing the lock file is always wrong, can damage the locked area
and the entire system. See <https://wiki.debian.org/Teams/Dpkg/FAQ#db-lock>.
"""
DEBCONF = """\
debconf: DbDriver "config": /var/cache/debconf/config.dat is locked by another process: Resource temporarily unavailable
dpkg: error processing package docker.io (--configure):
 installed docker.io package post-installation script subprocess returned error exit status 1
E: Sub-process /usr/bin/dpkg returned an error code (1)
"""


@pytest.mark.parametrize(
    "words",
    [
        FRONTEND,
        DEBCONF,
        "dpkg: error: dpkg status database is locked by another process",
        "dpkg: error: dpkg database lock was locked by another process with pid 9",
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (unattended-upgr)",
        "E: Unable to lock directory /var/lib/apt/lists/",
    ],
)
def test_every_lock_of_apts_and_dpkgs_is_waited_for(
    ensure: Callable[[FakeGuest], bool], said: list[str], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("lab.guest.apt.pause", pauses.append)
    guest = FakeGuest()
    broken_off = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a'"
    guest.trouble = [(100, "", words), (100, "", words), (100, "", broken_off)]
    guest.configuring = [(2, "", words)]
    assert ensure(guest) is True
    assert len(pauses) == 3
    assert sum("waiting for it" in text for text in said) == 2, "once by each of the two commands"


@pytest.mark.parametrize(
    "reason", ["E: Unable to fetch some archives", "E: dpkg was interrupted, run 'dpkg --configure -a'"]
)
def test_what_fails_after_apt_waited_is_not_the_lock_and_that_it_waits_is_said_once(
    ensure: Callable[[FakeGuest], bool], said: list[str], monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr("lab.guest.apt.pause", lambda _seconds: pytest.fail("it was tried again"))
    guest = FakeGuest()
    lock = "Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (unattended-upgr)"
    guest.trouble = [
        (100, f"Waiting for cache lock: {lock}... 0s\nWaiting for cache lock: {lock}... 1s\n", reason)
    ]
    assert ensure(guest) is True
    assert sum("waiting for it" in text for text in said) == 1


def test_a_lock_that_is_never_given_up_is_named() -> None:
    with pytest.raises(BlockedError, match="another package manager") as caught:
        raise apt.explained(CommandError(["env", "apt-get", "install"], 100, tail=FRONTEND))
    assert "pid 4513" in caught.value.tail


NOT_YET = (
    "E: Release file for http://archive.ubuntu.com/ubuntu/dists/bionic-updates/InRelease is not valid yet "
    "(invalid for another 46d 2h 17min 1s). Updates for this repository will not be applied."
)
NO_RELEASE = """\
Err:6 https://download.docker.com/linux/ubuntu eoan Release
  404  Not Found [IP: 192.0.2.1 443]
Reading package lists...
E: The repository 'https://download.docker.com/linux/ubuntu eoan Release' does not have a Release file.
"""


def test_a_clock_that_is_wrong_is_named_and_set(ensure: Callable[[FakeGuest], bool], said: list[str]) -> None:
    guest = FakeGuest(cached=False)
    guest.behind = 46 * 86400
    guest.trouble = [(100, "", "E: Unable to fetch some archives"), (100, "", NOT_YET)]
    assert ensure(guest) is True
    assert any("46 days behind this machine's: it was set" in text for text in said)
    assert guest.behind == 0


def test_a_clock_that_is_right_is_not_set_and_both_are_named(ensure: Callable[[FakeGuest], bool]) -> None:
    guest = FakeGuest(cached=False)
    guest.trouble = [(100, "", "E: Unable to fetch some archives"), (100, "", NOT_YET)]
    with pytest.raises(BlockedError, match="by the VM's clock, which says the same as this machine's"):
        ensure(guest)
    assert not any("--set" in argv for argv in guest.asked)


@pytest.mark.parametrize(("behind", "words"), [(-10800.0, "3 hours ahead of"), (90.0, "90 seconds behind")])
def test_how_wrong_a_clock_is_is_told(behind: float, words: str) -> None:
    guest = FakeGuest()
    guest.behind = behind
    assert words in clock.correct(guest)  # type: ignore[arg-type]
    assert clock.correct(guest) == ""  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (NO_RELEASE, "has nothing for its release"),
        (
            "E: The repository 'http://x y Release' no longer has a Release file.",
            "has nothing for its release",
        ),
        ("E: Failed to fetch http://x/a.deb  Hash Sum mismatch", "not what they promise"),
        (
            "E: Failed to fetch http://x/P  File has unexpected size (1 != 2). Mirror sync in progress?",
            "promise",
        ),
        (
            "E: Failed to fetch http://x/InRelease  Clearsigned file isn't valid, got 'NOSPLIT' "
            "(does the network require authentication?)",
            "promise",
        ),
        ("E: Failed to fetch http://x/a.deb  404  Not Found [IP: 192.0.2.1 80]", "do not have"),
        ("E: Failed to fetch http://x/a.deb  503  Service Unavailable [IP: 192.0.2.1 80]", "and refuse"),
        ("E: Failed to fetch http://x/a.deb  403  Forbidden [IP: 192.0.2.1 80]", "and refuse"),
        ("E: Failed to fetch http://x/a  407  Proxy Authentication Required", "wants a login"),
        (
            "E: Failed to fetch https://x/I  Certificate verification failed: The certificate is NOT trusted. "
            "The certificate issuer is unknown.",
            "does not trust the certificate",
        ),
        (
            "E: Failed to fetch https://x/I  Certificate verification failed: The certificate is NOT trusted. "
            "The certificate chain uses not yet valid certificate.",
            "VM's clock",
        ),
        ("E: Release file for http://x is expired (invalid since 3d 1h).", "VM's clock"),
        (
            "Err: http://x InRelease  Sub-process /usr/bin/sqv: Not live until 2026-01-01T00:00:00Z",
            "VM's clock",
        ),
        (
            "E: Failed to fetch http://x/I  Could not connect to x:80 (192.0.2.1), connection timed out",
            "reach",
        ),
        ("E: Failed to fetch http://x/I  Temporary failure resolving 'x'", "cannot reach"),
        ("E: Failed to fetch http://x/I  Connection failed [IP: 192.0.2.1 80]", "cannot reach"),
        ("E: Failed to fetch http://x/I  Something nobody knows", "apt's own reason"),
        ("W: GPG error: http://x InRelease: ... couldn't be verified ... NO_PUBKEY 1", "not signed"),
        ("E: Unable to locate package docker.io", "do not offer"),
        (
            "The following packages have unmet dependencies:\n containerd.io : Conflicts: containerd",
            "go together",
        ),
        ("dpkg: error: unable to create '/x': Read-only file system", "can only be read"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "disk is full"),
    ],
)
def test_apts_words_are_told_as_what_they_mean(words: str, what: str) -> None:
    error = apt.explained(CommandError(["env", "apt-get", "update"], 100, tail=words))
    assert isinstance(error, BlockedError) and what in error.what and error.tail == words and error.hint


def test_what_nobody_knows_is_told_with_its_words() -> None:
    error = apt.explained(CommandError(["env", "apt-get", "update"], 100, tail="E: new words"))
    assert not isinstance(error, BlockedError) and error.tail == "E: new words"
    assert error.what == "apt-get failed in the VM with status 100"


SERVER_ERROR = (
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
)


@pytest.mark.parametrize(
    ("answer", "what", "words"),
    [
        (
            {"ServerVersion": "", "ServerErrors": [SERVER_ERROR]},
            "engine in the VM does not answer",
            SERVER_ERROR,
        ),
        ({"ServerVersion": "1", "ServerErrors": ["a new fault"]}, "tells of a fault", "a new fault"),
        ({"ServerVersion": ""}, "tells of a fault", "nothing of its engine"),
    ],
)
def test_an_engine_that_does_not_answer_has_no_facts(answer: object, what: str, words: str) -> None:
    guest = FakeGuest(running=True)
    guest.groups.add("docker")
    guest.info = json.dumps(answer)
    with pytest.raises(LabError, match=what) as caught:
        docker.facts(guest)  # type: ignore[arg-type]
    assert words in caught.value.tail
    guest.info = FakeGuest.info
    assert docker.facts(guest)["version"] == "1.2"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (
            "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct "
            "and if the daemon is running: dial unix /var/run/docker.sock: connect: no such file or directory",
            "does not answer",
        ),
        (SERVER_ERROR, "does not answer"),
        ("error during connect: Get http://x/v1.24/version: EOF", "does not answer"),
        (
            "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock",
            "may not use Docker",
        ),
        (
            "Got permission denied while trying to connect to the Docker daemon socket at "
            "unix:///var/run/docker.sock: Get http://x/v1.24/version: dial unix /var/run/docker.sock: connect: permission denied",
            "may not use Docker",
        ),
        (
            "Error response from daemon: client version 1.52 is too new. Maximum supported API version is 1.4",
            "versions",
        ),
        ("write /var/lib/docker/x: no space left on device", "disk is full"),
        ("a new fault", "`docker load` failed in the VM: it ended with status 1"),
    ],
)
def test_dockers_words_are_told_as_what_they_mean(words: str, what: str) -> None:
    error = docker.explained(CommandError(["docker", "load"], 1, tail=words))
    assert re.search(what, error.what) and error.tail == words and error.hint
