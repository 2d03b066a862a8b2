"""Docker in L1: installed if it is not there, and proven by running a container of lab's own."""

from __future__ import annotations

import json
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any, Literal

from lab import proc
from lab.deadline import Deadline, NotYet, poll
from lab.errors import BlockedError, CommandError, LabError
from lab.formats import oci, program
from lab.formats.cpio import Entry
from lab.guest import apt, dockerrepo
from lab.guest.ssh import Guest
from lab.steps import Step

Package = Literal["docker.io", "docker-ce"]

GROUPS = ("docker", "kvm")
"""What lets the user reach the engine and /dev/kvm without being root."""

_DAEMON_FILE = "/etc/docker/daemon.json"
_DAEMON = {"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "2"}}
_START_SECONDS = 180.0
_PROOF = "lab-proof"

# Written before the engine first starts, unless the user has a file of his own there; and man-db's
# index, which nobody reads here, is not rebuilt.
_PREPARE = (
    f'set -e; mkdir -p /etc/docker; [ -e {_DAEMON_FILE} ] || printf "%s\\n" "$0" > {_DAEMON_FILE}; '
    "rm -f /var/lib/man-db/auto-update"
)
_JOIN = (
    'u=$0; for g in "$@"; do getent group "$g" >/dev/null || groupadd --system "$g"; '
    'gpasswd --add "$u" "$g" >/dev/null; done'
)


def ensure(guest: Guest, package: Package, step: Step, deadline: Deadline) -> bool:
    """Have a working Docker engine that the user may use; True when anything had to be done.

    An engine that answers is left alone, whatever package it came from. Raises BlockedError
    (disk full, sources out of reach) or LabError with the last lines of what failed.
    """
    if answers(guest, sudo=False):
        step.result = f"Docker {_version(guest)} is there"
        return False
    if not answers(guest, sudo=True):
        if not _installed(guest):
            _install(guest, package, step, deadline)
        _start(guest, step, deadline)
    join_groups(guest, GROUPS)
    if not answers(guest, sudo=False):
        raise LabError(
            "Docker runs in the VM, and its user may not use it",
            hint="`invoke lab.ssh` and look at `id` and `ls -l /run/docker.sock`",
        )
    step.result = f"Docker {_version(guest)} ({package})"
    return True


def join_groups(guest: Guest, groups: tuple[str, ...] = GROUPS) -> bool:
    """Make the user a member of `groups`, and log in anew so that it counts; False if it was one."""
    if set(groups) <= set(guest.run(["id", "-nG"]).out.split()):
        return False
    guest.run(["sh", "-c", _JOIN, guest.user, *groups], sudo=True)
    guest.reconnect()
    return True


def facts(guest: Guest) -> dict[str, Any]:
    """What the engine says of itself: version, storage, cgroup, security, runtime, kernel."""
    info = _info(guest)
    return {
        "version": info.get("ServerVersion", ""),
        "storage": info.get("Driver", ""),
        "cgroup_version": info.get("CgroupVersion", ""),
        "cgroup_driver": info.get("CgroupDriver", ""),
        "security": info.get("SecurityOptions") or [],
        "runtime": info.get("DefaultRuntime", ""),
        "kernel": info.get("KernelVersion", ""),
        "system": info.get("OperatingSystem", ""),
        "root": info.get("DockerRootDir", ""),
    }


def prove(guest: Guest, deadline: Deadline | None = None) -> None:
    """Run a container from an image made here; nothing of it is left behind.

    The image's only file is a program that writes a word never used before. Raises LabError
    when the engine does not load it, does not run it, or something else comes out.
    """
    word = f"lab-container-{secrets.token_hex(12)}"
    reference = f"{_PROOF}:{secrets.token_hex(4)}"
    try:
        guest.run(["docker", "load", "--quiet"], stdin=proof_image(reference, word), deadline=deadline)
        out = guest.run(["docker", "run", "--rm", "--network", "none", reference], deadline=deadline).out
    except CommandError as error:
        raise _explained(error) from error
    finally:
        guest.run(["docker", "image", "rm", "--force", reference], check=False)
    if out.strip() != word:
        raise LabError(
            "a container ran and said something else than what its image holds",
            tail=proc.tail(f"expected {word}\ngot {out}"),
        )


def proof_image(reference: str, word: str) -> bytes:
    """An archive for `docker load`: one static program that writes `word`."""
    with tempfile.TemporaryDirectory(prefix="lab-proof-") as folder:
        target = Path(folder) / "image.tar"
        greeter = Entry.file(program.says(f"{word}\n"), 0o755)
        oci.write(target, reference=reference, entries={"proof": greeter}, config={"Entrypoint": ["/proof"]})
        return target.read_bytes()


def answers(guest: Guest, *, sudo: bool = True) -> bool:
    argv = ["docker", "info", "--format", "{{.ServerVersion}}"]
    done = guest.run(argv, sudo=sudo, check=False)
    return done.status == 0 and bool(done.out.strip())


def _info(guest: Guest) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(guest.run(["docker", "info", "--format", "{{json .}}"]).out)
    except CommandError as error:
        raise _explained(error) from error
    except ValueError as error:
        raise LabError("`docker info` in the VM did not answer in JSON") from error
    return answer


def _version(guest: Guest) -> str:
    return guest.run(["docker", "version", "--format", "{{.Server.Version}}"]).out.strip()


def _installed(guest: Guest) -> bool:
    """Whether dockerd's package is wholly installed (it may just not run)."""
    argv = ["sh", "-c", 'command -v dockerd >/dev/null && [ -z "$(dpkg --audit)" ]']
    return guest.run(argv, sudo=True, check=False).status == 0


def _install(guest: Guest, package: Package, step: Step, deadline: Deadline) -> None:
    guest.run(["sh", "-c", _PREPARE, json.dumps(_DAEMON)], sudo=True)
    if package == "docker-ce":
        dockerrepo.add(guest, step, deadline)
        names = ["docker-ce", "docker-ce-cli", "containerd.io", "apparmor"]
        apt.install(guest, names, step, deadline)
        return
    if apt.knows(guest, "docker.io"):
        try:
            apt.install(guest, _distribution_packages(guest), step, deadline, offline=True)
            step.note("installed from the image's own package cache, without the network")
            return
        except LabError as error:
            step.note(f"not from the image's package cache ({error.what}): fetching from the network")
            if isinstance(error, BlockedError) and "disk is full" in error.what:
                raise
    else:
        step.note("the image carries no Docker packages: fetching from the network")
    apt.update(guest, step, deadline)
    apt.install(guest, _distribution_packages(guest), step, deadline)


def _distribution_packages(guest: Guest) -> list[str]:
    """Debian 13 has the client in a package of its own; Ubuntu's docker.io holds it."""
    client = ["docker-cli"] if apt.knows(guest, "docker-cli") else []
    return ["docker.io", *client, "apparmor"]


def _start(guest: Guest, step: Step, deadline: Deadline) -> None:
    started = guest.run(["systemctl", "start", "docker.service"], sudo=True, check=False)

    def answer() -> bool | None:
        if answers(guest, sudo=True):
            return True
        state = guest.run(["systemctl", "is-active", "docker.service"], check=False).out.strip()
        if state == "failed":
            raise _no_start(guest, started.err)
        raise NotYet(f"docker.service is {state}")

    step.note("waiting for the Docker engine to answer")
    poll(answer, deadline.within(_START_SECONDS), "the Docker engine's answer")


def _no_start(guest: Guest, said: str) -> LabError:
    argv = ["journalctl", "--unit=docker.service", "--identifier=dockerd", "--no-pager", "--lines=20"]
    log = guest.run([*argv, "--output=cat"], sudo=True, check=False).out
    return _explained(CommandError(["dockerd"], 1, tail=proc.tail(f"{said}\n{log}")))


_FAULTS: list[tuple[str, type[LabError], str, str]] = [
    (
        r"apparmor_parser",
        LabError,
        "Docker cannot load its AppArmor profile: the VM lacks apparmor_parser",
        "install the package apparmor in the VM (`invoke lab.ssh`, then `sudo apt-get install apparmor`)",
    ),
    (
        r"no space left on device",
        BlockedError,
        "the VM's disk is full",
        "give the lab a larger disk (disk_gib), then `invoke lab.up --fresh`",
    ),
    (
        r"[Cc]annot connect to the Docker daemon",
        LabError,
        "the Docker engine in the VM does not answer",
        "`invoke lab.up` starts it; its log is in `invoke lab.logs`",
    ),
    (
        r"permission denied.*docker\.sock|permission denied while trying to connect",
        LabError,
        "the VM's user may not use Docker",
        "`invoke lab.up` makes it a member of group docker",
    ),
]


def _explained(error: CommandError) -> LabError:
    """A failed docker command as the fault it shows."""
    for pattern, kind, what, hint in _FAULTS:
        if re.search(pattern, error.tail, re.IGNORECASE):
            return kind(what, hint=hint, tail=error.tail)
    return LabError(
        f"`{' '.join(error.argv[:2])}` failed in the VM with status {error.status}",
        hint="`invoke lab.ssh` and try it by hand; `sudo journalctl -u docker` has the engine's log",
        tail=error.tail,
    )
