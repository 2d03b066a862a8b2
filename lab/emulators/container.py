"""One container in L1's Docker, known by its name and the lab's label."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from lab.core import redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, InconclusiveError, LabError
from lab.core.proc import tail
from lab.emulators import lastwords
from lab.emulators.protocol import ContainerState, Tell
from lab.guest.gather import gather
from lab.guest.ssh import Guest
from lab.guest.trial import OWNER_LABEL
from lab.probes.kvm import script

LABEL = OWNER_LABEL
_LOG_SECONDS = 60.0
_WATCH_SECONDS = 24 * 3600.0
_SHOWN_LINES, _SHOWN_BYTES = 200, 16 << 10
"""Of a log that is followed, to begin with: of Docker's, and of each file in the container."""
_STRANGER, _NO_DOCKER, _NO_KVM = 90, 91, 92
_NEVER = "0001-01-01"
"""Docker's day for what has not happened."""

# In one go: each word to Docker over SSH costs an emulated processor most of a second. An image that is not
# there is not to be had from anywhere: only lab's own way brings one whose digest was checked. What is
# removed was named by its id in an answer on standard output: Docker's warnings come on the other one.
_RUN = """
name=$1 group=$2; shift 2
there=$(docker container ls --all --no-trunc --filter "name=^/?$name\\$" \
    --format '{{.ID}} {{.Label "io.lab.uuid"}}') || exit 91
if [ -n "$there" ]; then
    id=${there%% *} label=${there#* }
    [ -n "$label" ] && [ "$label" != "<no value>" ] && [ "$label" != "$there" ] || exit 90
    docker rm --force --volumes "$id" >/dev/null || exit
fi
if [ -n "$group" ]; then
    group=$(stat --format %g /dev/kvm) || exit 92
    exec docker run --pull never --detach --name "$name" --device /dev/kvm --group-add "$group" "$@"
fi
exec docker run --pull never --detach --name "$name" "$@"
"""

# Ends with the first line that ends the waiting, and then says what the container is like. `docker
# logs --follow` alone would go on for ever, and asking again and again would take L2's processor from it.
_FOLLOW = """
name=$1 mark=$2; shift 2
pipe=$(mktemp -u) && mkfifo "$pipe" || exit 1
trap 'kill $logs 2>/dev/null; rm -f "$pipe"' EXIT
docker logs --follow "$name" >"$pipe" 2>&1 &
logs=$!
while read -r line; do
    printf '%s\\n' "$line"
    for end; do case $line in "$end"*) break 2 ;; esac; done
done <"$pipe"
printf '\\n%s\\n' "$mark"
docker container inspect "$name"
"""


class Container:
    """A container named `name`; methods raise LabError with Docker's own words in `tail`."""

    def __init__(self, name: str, lab_uuid: str) -> None:
        self.name = name
        self._uuid = lab_uuid

    def run(
        self,
        guest: Guest,
        reference: str,
        options: Sequence[str],
        *,
        kvm: bool,
        publish: Mapping[int, int] | None = None,
    ) -> None:
        """Start it, detached and labelled, in the place of one that lab started before.

        `publish` maps ports of the container to ports of L1's address on which SSH came in: a
        host's forward reaches that address, and nothing else does. With `kvm` it is given
        /dev/kvm through the group that owns it. Raises BlockedError when L1 has no /dev/kvm.
        """
        words = ["--label", f"{LABEL}={self._uuid}", "--restart", "no", *options]
        if publish:
            address = guest.terms.publish or _address(guest)
            for inner, outer in publish.items():
                words += ["--publish", f"{address}:{outer}:{inner}"]
        argv = ["sh", "-c", _RUN, "run", self.name, "kvm" if kvm else "", *words, reference]
        done = guest.run(argv, sudo=True, check=False)
        output = tail(done.out + done.err)
        if done.status == _STRANGER:
            raise self._a_strangers()
        if done.status == _NO_DOCKER:
            raise InconclusiveError("Docker in the VM does not answer", tail=output)
        if done.status == _NO_KVM:
            raise BlockedError(
                f"the VM has no /dev/kvm, which {self.name} needs", hint="see the rung guest.kvm"
            )
        if done.status != 0 and lastwords.trouble(output) == lastwords.PORT:
            raise InconclusiveError(
                f"{lastwords.PORT}: Docker cannot publish {self.name}'s",
                hint="something else in the VM listens there: `ss -ltnp` in it, as root, says what",
                tail=output,
            )
        if done.status != 0:
            raise CommandError(["docker", "run", self.name], done.status, tail=output)

    def follow(
        self, guest: Guest, ends: Sequence[str], deadline: Deadline
    ) -> tuple[str, dict[str, Any] | None]:
        """Its log until a line that begins with one of `ends` (or until it ended), and what it is like then.

        The second is Docker's own description, None when there is no such container.
        """
        mark = secrets.token_hex(16)
        argv = ["sh", "-c", _FOLLOW, "follow", self.name, mark, *ends]
        done = guest.run(argv, sudo=True, check=False, deadline=deadline)
        log, _, described = done.out.partition(f"\n{mark}\n")
        return log, self._described(described, done.err)

    def watch(self, guest: Guest, files: Sequence[str], tell: Tell) -> None:
        """Tell the last lines of its log and of `files` in it, and then each line as it is written.

        Ends when the container does. Raises BlockedError when there is none.
        """
        if self.inspect(guest) is None:
            raise BlockedError(f"there is no container {self.name}", hint="`invoke emulator.up` starts it")
        wish = {"name": self.name, "files": list(files), "lines": _SHOWN_LINES, "bytes": _SHOWN_BYTES}

        def heard(line: str) -> None:
            file, tab, text = line.partition("\t")
            if tab:  # else it is the script's own trouble, which its failure tells
                tell(file, text)

        argv = ["python3", "-", json.dumps(wish)]
        text = script("container_follow.py")
        guest.run(argv, sudo=True, stdin=text, on_line=heard, deadline=Deadline.after(_WATCH_SECONDS))

    def inspect(self, guest: Guest) -> dict[str, Any] | None:
        """Docker's description; None when there is no such container."""
        done = guest.run(["docker", "container", "inspect", self.name], sudo=True, check=False)
        return self._described(done.out, done.err)

    def exec(
        self, guest: Guest, argv: Sequence[str], *, check: bool = True, deadline: Deadline | None = None
    ) -> str:
        """What a command in the container says on its standard output.

        Raises CommandError, with its errors too, unless `check` is False.
        """
        words = ["docker", "exec", self.name, *argv]
        return guest.run(words, sudo=True, check=check, deadline=deadline).out

    def evidence(self, guest: Guest) -> dict[str, str]:
        """Its log, each line with its time on L1's clock, and Docker's description of it."""
        description = "container-inspect.json"
        outputs = gather(
            guest,
            {
                "container.log": ["docker", "logs", "--timestamps", self.name],
                description: ["docker", "container", "inspect", self.name],
            },
            Deadline.after(_LOG_SECONDS),
            apart=[description],
        )
        with contextlib.suppress(LabError):  # what is no description holds no secret of one
            self._described(outputs[description], "")
        return outputs

    def remove(self, guest: Guest) -> None:
        """End and remove it. Raises LabError when a container of that name is not lab's."""
        inspected = self.inspect(guest)
        if inspected is None:
            return
        if not label(inspected):
            raise self._a_strangers()
        guest.run(["docker", "rm", "--force", "--volumes", inspected["Id"]], sudo=True)

    def _described(self, out: str, err: str) -> dict[str, Any] | None:
        """`docker container inspect`'s answer `out`; None when Docker gave none and `err` says why.

        Docker prints an empty list before its error.
        """
        try:
            objects, _ = json.JSONDecoder().raw_decode(out.strip())
        except ValueError:
            objects = []
        if objects:
            described: dict[str, Any] = objects[0]
            redact.register_variables(described["Config"].get("Env") or [])  # an earlier command's settings
            return described
        if re.search(rf"no such container: {re.escape(self.name)}$", err, re.IGNORECASE | re.MULTILINE):
            return None
        raise InconclusiveError("Docker in the VM does not answer", tail=tail(f"{out}\n{err}"))

    def _a_strangers(self) -> LabError:
        return LabError(
            f"a container named {self.name} exists that lab did not start",
            hint=f"rename it: `docker rename {self.name} NEW-NAME` in the VM",
        )


def parse(inspected: Mapping[str, Any] | None, facts: Mapping[str, str] | None = None) -> ContainerState:
    """What one object of `docker container inspect` says, with `facts` the emulator read from it."""
    if inspected is None:
        return ContainerState(exists=False, running=False)
    state = inspected["State"]
    return ContainerState(
        exists=True,
        running=bool(state["Running"]),
        health=(state.get("Health") or {}).get("Status", ""),
        exit_code=None if state["Running"] else state.get("ExitCode"),
        image=inspected["Image"],
        facts={
            "reference": inspected["Config"].get("Image", ""),
            "started": state.get("StartedAt", ""),
            "lab": label(inspected),
            "restarted": "yes" if _was_started_before(state) else "",
            "out_of_memory": "yes" if state.get("OOMKilled") else "",
            **(facts or {}),
        },
    )


def _was_started_before(state: Mapping[str, Any]) -> bool:
    """It runs, and has ended once before; lab makes a new container for each launch."""
    return bool(state["Running"]) and not state.get("FinishedAt", _NEVER).startswith(_NEVER)


def ending(state: ContainerState) -> str:
    """How an ended container ended, in words: `exit code 137, SIGKILL`."""
    killed = ", ended by the kernel for want of memory" if killed_for_memory(state) else ""
    return f"{lastwords.exit_code(state.exit_code)}{killed}"


def killed_for_memory(state: ContainerState) -> bool:
    """Docker says that the kernel ended it, or a process in it, for want of memory."""
    return bool(state.facts.get("out_of_memory"))


def label(inspected: Mapping[str, Any]) -> str:
    """The UUID of the lab that started it; empty for a stranger's."""
    return str((inspected["Config"].get("Labels") or {}).get(LABEL, ""))


def environment(inspected: Mapping[str, Any]) -> dict[str, str]:
    """The container's environment variables."""
    return dict(word.split("=", 1) for word in inspected["Config"].get("Env") or [] if "=" in word)


def available_mib(guest: Guest) -> int | None:
    """What is available of L1's memory, in MiB; None where its kernel does not say."""
    lines = guest.read("/proc/meminfo").splitlines()
    return next((int(line.split()[1]) >> 10 for line in lines if line.startswith("MemAvailable:")), None)


def _address(guest: Guest) -> str:
    """L1's own address on the network that SSH came in by."""
    words = guest.run(["printenv", "SSH_CONNECTION"]).out.split()
    if len(words) != 4:
        raise LabError(f"SSH_CONNECTION in the VM is {words}, expected four words")
    return words[2]
