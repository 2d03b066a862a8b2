"""The way to a machine over SSH, as the user's own OpenSSH goes it: ssh_config, ProxyJump, ProxyCommand.

`ssh -G` says what is configured, whatever files and conditions that is from. lab writes it down in a
configuration of its own (`written`): the same hosts, users and keys, but nothing is asked, no key of a host
is accepted that is not known, and none of the user's own forwards is opened a second time.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.core import proc
from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import DeadlineError, UsageError

MACHINE = "lab-machine"
"""What lab's own configuration calls the machine."""

_SECONDS = 20.0
_LONGEST_CHAIN = 8
_GREETING_SECONDS = 60.0
_USER_AT_HOST = re.compile(
    r"^(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:@\s\[\]-][^:@\s\[\]]*))"
    r"(?::(?P<port>[0-9]{1,5}))?$"
)
_TEXT_BYTES = 16 << 10


class Hop(BaseModel):
    """One host on the way, as `ssh -G` resolves it; the last hop is the machine itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str
    port: int
    user: str
    alias: str = ""
    """HostKeyAlias: the name its host key is kept under, where that is another."""
    command: str = ""
    """ProxyCommand, its tokens not yet replaced; empty: it is reached directly, or from the hop before."""
    keys: tuple[Path, ...] = ()
    agent: str = "SSH_AUTH_SOCK"
    """IdentityAgent: a socket's path, SSH_AUTH_SOCK for the environment's, `none`."""
    only_these_keys: bool = False
    """IdentitiesOnly: of the agent's keys only those that are in `keys` too."""
    known_hosts: tuple[Path, ...] = ()

    @property
    def own_agent(self) -> str:
        """The socket of its agent; empty for the environment's."""
        return "" if self.agent == "SSH_AUTH_SOCK" else str(Path(self.agent).expanduser())

    @property
    def key_name(self) -> str:
        """What known_hosts calls it."""
        name = self.alias or self.host
        return name if self.port == 22 or self.alias else f"[{name}]:{self.port}"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == 22 else f":{self.port}")


class SshWay(BaseModel):
    """All hops to a machine, the first one first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hops: tuple[Hop, ...]

    @property
    def machine(self) -> Hop:
        return self.hops[-1]

    def until(self, number: int) -> SshWay:
        """The way to the hop of that number, counted from 0."""
        return SshWay(hops=self.hops[: number + 1])

    def __str__(self) -> str:
        through = ", ".join(str(hop) for hop in self.hops[:-1])
        return f"{self.machine} through {through}" if through else str(self.machine)


def split(destination: str) -> list[str]:
    """The words of `ssh` for `host` or `user@host[:port]`. Raises UsageError for anything else."""
    match = _USER_AT_HOST.match(destination)
    if match is None or int(match["port"] or 1) not in range(1, 65536):
        raise UsageError(
            f"{destination!r} is no destination of SSH's",
            hint="a host of your ssh_config, or user@host, user@host:port, user@[v6::address]:port",
        )
    words = ["-p", match["port"]] if match["port"] else []
    words += ["-l", match["user"]] if match["user"] else []
    return [*words, match["six"] or match["host"]]


def resolve(destination: str, config: Path | None = None) -> SshWay:
    """The way to `destination` by the user's ssh_config, or by `config` in its place.

    Raises UsageError for a destination or configuration that ssh refuses, BlockedError without ssh.
    """
    return SshWay(hops=tuple(_chain(destination, config, _LONGEST_CHAIN)))


def _chain(destination: str, config: Path | None, most: int) -> list[Hop]:
    if most == 0:
        raise UsageError(f"the ProxyJump chain to {destination} has no end", hint="see `ssh -G` of each host")
    values = _asked(destination, config)
    hop = _hop(values)
    jumps = values.get("proxyjump", ["none"])[0]
    if jumps == "none":
        return [hop]
    first, *rest = jumps.split(",")
    through = _chain(first, config, most - 1)
    return [*through, *(_hop(_asked(each, config)) for each in rest), hop]


def _asked(destination: str, config: Path | None) -> dict[str, list[str]]:
    """What `ssh -G` prints: lower-case option to its values."""
    words = ["ssh", *(["-F", str(config)] if config else []), "-G", *split(destination)]
    done = proc.run(words, check=False, deadline=Deadline.after(_SECONDS))
    if done.status != 0:
        raise UsageError(
            f"ssh does not take {destination}", tail=proc.tail(done.err), hint="`ssh -G` says what is wrong"
        )
    values: dict[str, list[str]] = {}
    for line in done.out.splitlines():
        name, _, value = line.partition(" ")
        values.setdefault(name, []).append(value)
    return values


def _hop(values: dict[str, list[str]]) -> Hop:
    def value(name: str, default: str = "") -> str:
        return values.get(name, [default])[0]

    command = value("proxycommand")
    return Hop(
        host=value("hostname"),
        port=int(value("port", "22")),
        user=value("user"),
        alias=value("hostkeyalias"),
        command="" if command == "none" else command,
        keys=tuple(Path(name).expanduser() for name in values.get("identityfile", []) if name != "none"),
        agent=value("identityagent", "SSH_AUTH_SOCK"),
        only_these_keys=value("identitiesonly") == "yes",
        known_hosts=_files([*values.get("userknownhostsfile", []), *values.get("globalknownhostsfile", [])]),
    )


def _files(values: Sequence[str]) -> tuple[Path, ...]:
    """Several files on one line are words apart; a single one may have a space in its name."""
    names = [name for value in values for name in ([value] if Path(value).exists() else value.split())]
    return tuple(Path(name).expanduser() for name in names if name not in ("none", "/dev/null"))


def written(way: SshWay, known_hosts: Path) -> str:
    """lab's own ssh_config of the way: each hop by a name of its own, the last one MACHINE.

    `known_hosts` is lab's own file, believed beside the user's.
    """
    names = [f"lab-hop-{number}" for number in range(len(way.hops) - 1)] + [MACHINE]
    blocks = ["# Written by lab.attach: the way to this machine, as `ssh -G` told it."]
    for number, (name, hop) in enumerate(zip(names, way.hops, strict=True)):
        lines = [f"Host {name}", f"HostName {hop.host}", f"Port {hop.port}", f"User {_quoted(hop.user)}"]
        lines += [f"IdentityFile {_quoted(path)}" for path in hop.keys]
        lines += [f"IdentityAgent {_quoted(hop.agent)}"]
        lines += [f"IdentitiesOnly {'yes' if hop.only_these_keys else 'no'}"]
        lines += [f"HostKeyAlias {hop.alias}"] if hop.alias else []
        known = " ".join(_quoted(path) for path in (*hop.known_hosts, known_hosts))
        lines += [f"UserKnownHostsFile {known}", "StrictHostKeyChecking yes", "UpdateHostKeys no"]
        lines += ["BatchMode yes", "ControlMaster no", "ControlPath none", "ForwardAgent no", "ForwardX11 no"]
        lines += ["ServerAliveInterval 15", "ConnectTimeout 30", "LogLevel ERROR"]
        if hop.command:
            lines += [f"ProxyCommand {hop.command}"]
        elif number:
            lines += [f"ProxyJump {names[number - 1]}"]
        blocks.append("\n    ".join(lines))
    return "\n\n".join(blocks) + "\n"


def _quoted(value: Path | str) -> str:
    text = str(value).replace("%", "%%") if isinstance(value, Path) else value
    return f'"{text}"'


def dial(way: SshWay, config: Path, deadline: Deadline) -> socket.socket:
    """A connection to the SSH server of the way's last hop, whose greeting is there to be read.

    `config` is lab's own configuration of the way (`written`). Raises OSError with why there is none (a
    TimeoutError when nothing answered in time), InterruptedByUser.
    """
    hop, seconds = way.machine, max(0.1, min(_GREETING_SECONDS, deadline.left))
    if len(way.hops) == 1 and not hop.command:
        return socket.create_connection((hop.host, hop.port), timeout=seconds)
    if hop.command:
        words = ["sh", "-c", f"exec {_expanded(hop)}"]
    else:
        host = f"[{hop.host}]:{hop.port}"
        words = ["ssh", "-F", str(config), "-W", host, f"lab-hop-{len(way.hops) - 2}"]
    return _through(words, Deadline.after(seconds))


def _expanded(hop: Hop) -> str:
    values = {"h": hop.host, "p": str(hop.port), "r": hop.user, "n": hop.host, "%": "%"}
    return re.sub(r"%(.)", lambda token: values.get(token[1], token[0]), hop.command)


def _through(words: Sequence[str], deadline: Deadline) -> socket.socket:
    """A socket that is the standard input and output of a program; it ends when the socket is closed."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            words,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    errors = bytearray()

    def drain() -> None:
        assert process.stderr is not None  # noqa: S101 - Popen was given a pipe
        while chunk := os.read(process.stderr.fileno(), 4096):
            errors.extend(chunk[: _TEXT_BYTES - len(errors)])
        process.wait()

    reader = threading.Thread(target=drain, name="lab-proxy", daemon=True)
    reader.start()
    try:
        while not select.select([ours], [], [], 0.1)[0]:
            check_cancelled()
            if deadline.passed:
                raise TimeoutError(f"`{shlex.join(words)}` brought no answer in {deadline.seconds:.0f} s")
        if not ours.recv(1, socket.MSG_PEEK):
            reader.join(5)
            lines = errors.decode(errors="replace").strip().splitlines()
            raise ConnectionError(lines[-1] if lines else f"`{shlex.join(words)}` ended")
    except BaseException:
        ours.close()
        with contextlib.suppress(OSError):
            process.terminate()
        raise
    return ours


def greets(way: SshWay, config: Path, deadline: Deadline) -> None:
    """See that an SSH server answers there. Raises what `dial` raises, DeadlineError among it."""
    with dial(way, config, deadline) as sock:
        sock.settimeout(max(0.1, deadline.left))
        try:
            if not sock.recv(1, socket.MSG_PEEK):
                raise ConnectionError("the port closes at once")
        except TimeoutError as error:
            raise DeadlineError(f"{way.machine} answers, and not with SSH") from error
