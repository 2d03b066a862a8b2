"""One container in L1's Docker, known by its name and the lab's label."""

from __future__ import annotations

import json
from typing import Any

from lab.deadline import Deadline
from lab.emulators.canary import console
from lab.emulators.protocol import ContainerState
from lab.errors import BlockedError, InconclusiveError, LabError
from lab.guest.ssh import Guest
from lab.proc import tail

LABEL = "io.lab.uuid"
_NOBODY = "65534:65534"
_MEMORY = "768m"
_PROCESSES = "64"

# Ends with the first line that ends the waiting. `docker logs --follow` alone would go on for ever,
# and asking again and again would take L2's processor from it.
_FOLLOW = """
pipe=$(mktemp -u) && mkfifo "$pipe" || exit 1
trap 'kill $logs 2>/dev/null; rm -f "$pipe"' EXIT
docker logs --follow "$1" >"$pipe" 2>&1 &
logs=$!
while read -r line; do
    printf '%s\\n' "$line"
    case $line in "$2"* | "$3"*) break ;; esac
done <"$pipe"
"""


class Container:
    """A container named `name`; methods raise LabError with Docker's own words in `tail`."""

    def __init__(self, name: str, lab_uuid: str) -> None:
        self.name = name
        self._uuid = lab_uuid

    def run(
        self, guest: Guest, reference: str, *, nonce: str, publish: int | None = None, accel: str = "kvm"
    ) -> None:
        """Start it, detached, with no more rights than L2 needs.

        `publish` is the port of its own ADB and of L1's address on which SSH came in: a host's
        forward reaches that address. Raises BlockedError when L1 has no /dev/kvm.
        """
        words = ["docker", "run", "--detach", "--name", self.name, "--label", f"{LABEL}={self._uuid}"]
        words += ["--restart", "no", "--user", _NOBODY, "--cap-drop", "ALL", "--read-only"]
        words += ["--security-opt", "no-new-privileges", "--tmpfs", "/tmp"]  # noqa: S108 - the container's
        words += ["--memory", _MEMORY, "--pids-limit", _PROCESSES]
        words += ["--env", f"CANARY_NONCE={nonce}", "--env", f"CANARY_ACCEL={accel}"]
        if accel == "kvm":
            words += ["--device", "/dev/kvm", "--group-add", _kvm_group(guest)]
        if publish is not None:
            words += ["--publish", f"{_address(guest)}:{publish}:{publish}"]
        guest.run([*words, reference], sudo=True)

    def follow(self, guest: Guest, deadline: Deadline) -> str:
        """Its log, once it says that L2 is ready or that it failed.

        Raises DeadlineError, and InconclusiveError when it ended without saying either.
        """
        words = ["sh", "-c", _FOLLOW, "follow", self.name, console.READY, console.FAILED]
        log = guest.run(words, sudo=True, check=False, deadline=deadline).out
        if not any(line.startswith((console.READY, console.FAILED)) for line in log.splitlines()):
            state = self.state(guest)
            raise InconclusiveError(
                f"the container {self.name} "
                + (f"ended (exit code {state.exit_code})" if state.exists else "is not there"),
                hint="`invoke lab.logs --source container` shows its log",
                tail=tail(log),
            )
        return log

    def state(self, guest: Guest) -> ContainerState:
        found = self._inspect(guest)
        if found is None:
            return ContainerState(exists=False, running=False)
        return parse(found)

    def log(self, guest: Guest) -> str:
        """All it wrote, each line with its time on L1's clock; empty when there is no container."""
        done = guest.run(
            ["sh", "-c", 'docker logs --timestamps "$1" 2>&1', "log", self.name], sudo=True, check=False
        )
        return done.out if done.status == 0 else ""

    def inspect_text(self, guest: Guest) -> str:
        return json.dumps(self._inspect(guest), indent=2) + "\n"

    def remove(self, guest: Guest) -> None:
        """End and remove it. Raises LabError when a container of that name is not lab's."""
        found = self._inspect(guest)
        if found is None:
            return
        if LABEL not in (found["Config"].get("Labels") or {}):
            raise LabError(
                f"a container named {self.name} exists that lab did not start",
                hint=f"rename it: `docker rename {self.name} NEW-NAME` in the VM",
            )
        guest.run(["docker", "rm", "--force", "--volumes", self.name], sudo=True)

    def _inspect(self, guest: Guest) -> dict[str, Any] | None:
        done = guest.run(["docker", "container", "inspect", self.name], sudo=True, check=False)
        if done.status == 0:
            found: dict[str, Any] = json.loads(done.out)[0]
            return found
        if "no such container" in done.err.lower() or "not found" in done.err.lower():
            return None
        raise InconclusiveError("Docker in the VM does not answer", tail=tail(done.out + done.err))


def parse(inspected: dict[str, Any]) -> ContainerState:
    """What one object of `docker container inspect` says."""
    state, config = inspected["State"], inspected["Config"]
    given = dict(word.split("=", 1) for word in config.get("Env") or [] if "=" in word)
    return ContainerState(
        exists=True,
        running=bool(state["Running"]),
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=None if state["Running"] else state.get("ExitCode"),
        image=inspected["Image"],
        facts={
            "nonce": given.get("CANARY_NONCE", ""),
            "acceleration": given.get("CANARY_ACCEL", "kvm"),
            "reference": config.get("Image", ""),
            "started": state.get("StartedAt", ""),
            "lab": (config.get("Labels") or {}).get(LABEL, ""),
        },
    )


def _kvm_group(guest: Guest) -> str:
    done = guest.run(["stat", "--format", "%g", "/dev/kvm"], check=False)
    if done.status != 0:
        raise BlockedError("the VM has no /dev/kvm, which the canary needs", hint="see the rung guest.kvm")
    return done.out.strip()


def _address(guest: Guest) -> str:
    """L1's own address on the network that SSH came in by."""
    words = guest.run(["printenv", "SSH_CONNECTION"]).out.split()
    if len(words) != 4:
        raise LabError(f"SSH_CONNECTION in the VM is {words}, expected four words")
    return words[2]
