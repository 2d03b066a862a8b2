"""Docker in L1: installed if it is not there, started, and the user let in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any, Literal

from lab.core import proc
from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import (
    BlockedError,
    CommandError,
    DeadlineError,
    InterruptedByUser,
    LabError,
    Symptom,
    diagnose,
    ending,
)  # fmt: skip
from lab.core.steps import Step
from lab.guest import apt, dockerrepo
from lab.guest.ssh import Guest

Package = Literal["docker.io", "docker-ce"]

GROUPS = ("docker", "kvm")
"""What lets the user reach the engine and /dev/kvm without being root."""

_INSTALLED = "installed"
_DAEMON_FILE = "/etc/docker/daemon.json"
_DAEMON = {"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "2"}}
_START_SECONDS = 180.0

# In one go, since at this time the VM's boot wants the processor as well. Says the engine's version if it
# answers the user, or that its package is wholly installed (it may just not run). Else settings are
# written before the engine first starts, unless the user has a file of his own there; and man-db's
# index, which nobody reads here, is not rebuilt.
_LOOK = f"""
if command -v dockerd >/dev/null; then
    runuser -u "$1" -- docker version --format '{{{{.Server.Version}}}}' 2>/dev/null && exit
    [ -n "$(dpkg --audit)" ] || {{ echo {_INSTALLED}; exit; }}
fi
set -e
mkdir -p /etc/docker
[ -e {_DAEMON_FILE} ] || echo {shlex.quote(json.dumps(_DAEMON))} >{_DAEMON_FILE}
rm -f /var/lib/man-db/auto-update
"""
_START = """
user=$0 joined=
for group; do
    getent group "$group" >/dev/null || groupadd --system "$group"
    case " $(id -nG "$user") " in
    *" $group "*) ;;
    *) gpasswd --add "$user" "$group" >/dev/null && joined=joined ;;
    esac
done
echo $joined
systemctl start docker.service
"""


def ensure(guest: Guest, package: Package, step: Step, deadline: Deadline) -> bool:
    """Have a working Docker engine that the user may use; True when anything had to be done.

    An engine that answers is left alone, whatever package it came from. Raises BlockedError
    (disk full, sources out of reach) or LabError with the last lines of what failed.
    """
    engine = guest.run(["sh", "-c", _LOOK, "look", guest.user], sudo=True, deadline=deadline).out.strip()
    if engine and engine != _INSTALLED:
        step.result = f"Docker {engine} is there"
        return False
    if engine != _INSTALLED:
        install(guest, package, step, deadline)
    step.result = f"Docker {start(guest, deadline)} ({package})"
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


def version(guest: Guest) -> str:
    """The engine's version, if it answers the user; else empty."""
    done = guest.run(["docker", "version", "--format", "{{.Server.Version}}"], check=False)
    return done.out.strip() if done.status == 0 else ""


def _info(guest: Guest) -> dict[str, Any]:
    """`docker info`. It ends with 0, and with everything empty, when only its client answers."""
    words = ["docker", "info", "--format", "{{json .}}"]
    try:
        answer: dict[str, Any] = json.loads(guest.run(words).out)
    except CommandError as error:
        raise explained(error) from error
    except ValueError as error:
        raise LabError("`docker info` in the VM did not answer in JSON") from error
    faults = "\n".join(map(str, answer.get("ServerErrors") or []))
    if faults or not answer.get("ServerVersion"):
        raise explained(CommandError(words, 0, tail=proc.tail(faults) or "it says nothing of its engine"))
    return answer


def install(guest: Guest, package: Package, step: Step, deadline: Deadline) -> None:
    """Install Docker's packages by apt, from the image's own cache where they are in it. Raises LabError."""
    if package == "docker-ce":
        dockerrepo.add(guest, step, deadline)
        apt.install(guest, ["docker-ce", "docker-ce-cli", "containerd.io", "apparmor"], step, deadline)
        return
    try:
        _install_distributions(guest, step, deadline, offline=True)
        step.note("installed from the image's own package cache, without the network")
    except (InterruptedByUser, DeadlineError):
        raise
    except LabError as error:
        if isinstance(error, BlockedError) and "disk is full" in error.what:
            raise
        reason = (error.tail or error.what).splitlines()[-1].removeprefix("E: ")  # `what` is for the network
        step.note(f"not from the image's package cache ({reason}): fetching from the network")
        apt.update(guest, step, deadline)
        _install_distributions(guest, step, deadline, offline=False)


def _install_distributions(guest: Guest, step: Step, deadline: Deadline, *, offline: bool) -> None:
    """Debian 13 has the client in a package of its own; Ubuntu's docker.io holds it, as apt says at once."""
    try:
        apt.install(guest, ["docker.io", "docker-cli", "apparmor"], step, deadline, offline=offline)
    except LabError as error:
        if not re.search(r"(locate package|candidate).*docker-cli|docker-cli.* no installation", error.tail):
            raise
        apt.install(guest, ["docker.io", "apparmor"], step, deadline, offline=offline)


def start(guest: Guest, deadline: Deadline, groups: Sequence[str] = GROUPS) -> str:
    """Put the user into these groups, start the engine, and give its version once it answers him."""
    started = guest.run(["sh", "-c", _START, guest.user, *groups], sudo=True, check=False)
    if "joined" in started.out:
        guest.reconnect()  # a group counts from a login on

    def answer() -> str:
        if answered := version(guest):
            return answered
        state = guest.run(["systemctl", "is-active", "docker.service"], check=False).out.strip()
        if state == "failed":
            raise _no_start(guest, started.err)
        if state == "active":
            guest.reconnect()  # somebody else may have let the user in since this login
        raise NotYet(f"docker.service is {state}, and its socket does not answer the user {guest.user}")

    return poll(
        answer,
        deadline.within(_START_SECONDS),
        "the Docker engine's answer",
        hint="`invoke lab.ssh` and look at `systemctl status docker`, `id` and `ls -l /run/docker.sock`",
    )


def _no_start(guest: Guest, output: str) -> LabError:
    argv = ["journalctl", "--unit=docker.service", "--identifier=dockerd", "--no-pager", "--lines=20"]
    log = guest.run([*argv, "--output=cat"], sudo=True, check=False).out
    return explained(CommandError(["dockerd"], 1, tail=proc.tail(f"{output}\n{log}")))


_SYMPTOMS = [
    Symptom(
        r"(?i)apparmor_parser",
        "Docker cannot load its AppArmor profile: the VM lacks apparmor_parser",
        "install the package apparmor in the VM (`invoke lab.ssh`, then `sudo apt-get install apparmor`)",
        LabError,
    ),
    Symptom(
        r"(?i)no space left on device",
        "the VM's disk is full",
        "give the lab a larger disk (disk_gib), then `invoke lab.up --fresh`",
    ),
    Symptom(
        r"(?i)permission denied.*docker\.sock|permission denied while trying to connect|"
        r"docker\.sock: connect: permission denied",
        "the VM's user may not use Docker",
        "`invoke lab.up` makes it a member of group docker",
        LabError,
    ),
    Symptom(
        r"(?i)cannot connect to the Docker daemon|failed to connect to the docker API|error during connect|"
        r"is the docker daemon running|dial unix .*docker\.sock|docker daemon is not running",
        "the Docker engine in the VM does not answer",
        "`invoke lab.up` starts it; its log is in `invoke lab.logs`",
        LabError,
    ),
    Symptom(
        r"(?i)client version \S+ is too (?:new|old)|client is newer than server",
        "Docker's client and its engine in the VM are of versions that do not go together",
        "`invoke lab.ssh`, then `docker version` shows both; install them from one source",
        LabError,
    ),
]


def explained(error: CommandError) -> LabError:
    """A failed docker command as the fault it shows."""
    if fault := diagnose(error.tail, _SYMPTOMS):
        return fault
    ended = f"failed in the VM: it {ending(error.status)}" if error.status else "in the VM tells of a fault"
    return LabError(
        f"`{' '.join(error.argv[:2])}` {ended}",
        hint="`invoke lab.ssh` and try it by hand; `sudo journalctl -u docker` has the engine's log",
        tail=error.tail,
    )
