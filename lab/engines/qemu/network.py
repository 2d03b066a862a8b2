"""QEMU in a network namespace of its own, so that L1 does not reach the services on the host's loopback.

QEMU's user network turns its gateway's address into 127.0.0.1 of wherever QEMU runs, and has no option
against that (none up to QEMU 10; libslirp's `disable_host_loopback` is not offered). In a namespace of
its own 127.0.0.1 is an empty place. slirp4netns joins that namespace to the host's network, with the
host's loopback closed (`--disable-host-loopback`), and listens on the host for the forwards:

    127.0.0.1:2222 ── slirp4netns ── 10.0.2.100:2222 in the namespace ── QEMU ── port 22 of L1

No root is needed where the host lets an ordinary user make namespaces. slirp4netns ends with QEMU: it
waits on a pipe whose other end only QEMU holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab.core import proc
from lab.core.deadline import Deadline, check_cancelled, cleaning_up, pause
from lab.core.errors import DeadlineError, InterruptedByUser, LabError
from lab.engines.protocol import LOOPBACK
from lab.engines.qemu import process
from lab.host.packages import find_program

INSIDE = "10.0.2.100"
"""QEMU's own address in the namespace: what slirp4netns gives its interface."""

_RESOLVER = "nameserver 10.0.2.3\n"
"""slirp4netns' own, which asks the host's: that may be on the host's loopback (systemd-resolved)."""

_TOOLS = ("slirp4netns", "unshare")
_SECONDS = 20.0
_API_SECONDS = 10.0
_ENDING_SECONDS = 5.0
_ANSWER_BYTES = 1 << 16

# `mount` follows a link, so the file it leads to is covered. Mounts of the host come and go in the
# namespace as well ("slave"): QEMU keeps no disk of the host busy.
_COVER = '[ ! -e /etc/resolv.conf ] || mount --bind "$1" /etc/resolv.conf || exit 1; shift; '
_BEGIN = _COVER + 'echo; read -r _ || exit 1; exec "$@" </dev/null >&2'


class ForwardRefusedError(LabError):
    """slirp4netns does not listen on a port of the host; `port` is 0 when it does not answer at all."""

    def __init__(self, what: str, port: int = 0, **more: str) -> None:
        super().__init__(what, **more)
        self.port = port


def why_open(
    find: Callable[[str], Path | None] = find_program,
    tun: Path = Path("/dev/net/tun"),
    attempt: Callable[[], str] | None = None,
) -> str:
    """Why QEMU cannot be put in a network namespace on this host; empty when it can, which is tried once.

    `attempt` makes one for that, and gives the reason why it could not.
    """
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if absent := [name for name in _TOOLS if not find(name)]:
        return f"{' and '.join(absent)} not found"
    if not os.access(tun, os.R_OK | os.W_OK):
        return f"{tun} cannot be opened"
    return (attempt or _why_it_fails)()


@lru_cache
def _why_it_fails() -> str:
    with tempfile.TemporaryDirectory(prefix="lab-net-") as folder:
        place = Path(folder)
        log = place / "log"
        try:
            Namespace(place / "sock").spawn(["true"], log, place, place / "resolv.conf", []).wait(_SECONDS)
        except InterruptedByUser:
            raise
        except (LabError, OSError, subprocess.TimeoutExpired) as error:
            words = proc.tail(log.read_text(errors="replace"), 1) if log.exists() else ""
            return f"{error}: {words}".rstrip(": ")
    return ""


def _unshare() -> list[str]:
    """Root needs no user namespace, and would lose access to other users' files in one."""
    who = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [str(find_program("unshare")), *who, "--net", "--mount", "--propagation", "slave"]


class Namespace:
    """The namespace of one QEMU, known by slirp4netns' control socket."""

    def __init__(self, control: Path) -> None:
        self._control = control

    def spawn(
        self, argv: Sequence[str], log: Path, folder: Path, resolver: Path, ports: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        """Start `argv` in a new namespace with these ports of the host open; its PID stays the child's.

        `resolver` is the file it sees as /etc/resolv.conf. Raises ForwardRefusedError, LabError;
        then nothing runs.
        """
        resolver.write_text(_RESOLVER)
        ends, held = os.pipe()
        child = None
        try:
            words = [*_unshare(), "sh", "-c", _BEGIN, "sh", str(resolver), *argv]
            child = process.spawn(words, log, folder, piped=True, keep=[held])
            assert child.stdin and child.stdout  # noqa: S101 - it was started with pipes
            os.close(held)
            held = -1
            _await_byte(child.stdout.fileno(), "the network namespace")
            self._join(child.pid, ends, log, folder)
            for port in ports:
                self.open(port)
            child.stdin.write(b"\n")
            child.stdin.close()
            child.stdout.close()
        except BaseException:
            if child is not None:
                child.kill()
                child.wait()
                with cleaning_up():
                    self.wait_gone()
            raise
        finally:
            os.close(ends)
            if held >= 0:
                os.close(held)
        return child

    def _join(self, pid: int, ends: int, log: Path, folder: Path) -> None:
        ready, ready_end = os.pipe()
        words = [str(find_program("slirp4netns")), "--configure", "--mtu=65520", "--disable-host-loopback"]
        words += [f"--exit-fd={ends}", f"--ready-fd={ready_end}", f"--api-socket={self._control}"]
        words += ["--enable-sandbox", str(pid), "tap0"]
        try:
            process.spawn(words, log, folder, keep=[ends, ready_end])
            os.close(ready_end)
            ready_end = -1
            _await_byte(ready, "slirp4netns")
        finally:
            os.close(ready)
            if ready_end >= 0:
                os.close(ready_end)

    def wait_gone(self) -> None:
        """Wait for the end of the slirp4netns whose QEMU ended: until then it holds the forwards' ports."""
        deadline = Deadline.after(_ENDING_SECONDS)
        while not deadline.passed:
            with socket.socket(socket.AF_UNIX) as stream:
                try:
                    stream.connect(str(self._control))
                except OSError:
                    return
            pause(0.02)

    def ports(self) -> dict[int, int]:
        """The host ports it listens on, with slirp4netns' own number for each.

        Empty when it does not answer, for then it listens on nothing.
        """
        try:
            entries = self._ask("list_hostfwd")["entries"]
            return {
                int(entry["host_port"]): int(entry["id"])
                for entry in entries
                if entry["host_addr"] == LOOPBACK and entry["guest_addr"] == INSIDE
            }
        except (OSError, KeyError, TypeError, ValueError):
            return {}

    def open(self, port: int) -> None:
        """Listen on a port of the host's loopback. Raises ForwardRefusedError."""
        rule = {"proto": "tcp", "host_addr": LOOPBACK, "host_port": port}
        try:
            answer = self._ask("add_hostfwd", **rule, guest_addr=INSIDE, guest_port=port)
        except (OSError, ValueError) as error:
            raise ForwardRefusedError(
                "slirp4netns, which joins the machine to the network, does not answer",
                hint="stop the machine and start it again",
                tail=str(error),
            ) from error
        if "error" in answer:
            raise ForwardRefusedError(
                f"host forwarding of port {port} was refused", port, tail=str(answer["error"])
            )

    def close(self, port: int) -> None:
        """Listen on it no more."""
        with contextlib.suppress(KeyError, OSError, ValueError):
            self._ask("remove_hostfwd", id=self.ports()[port])

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Its answer, a JSON object. Raises OSError when it does not answer, ValueError."""
        question = {"execute": command} | ({"arguments": arguments} if arguments else {})
        with socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(_API_SECONDS)
            stream.connect(str(self._control))
            stream.sendall(json.dumps(question).encode())
            stream.shutdown(socket.SHUT_WR)
            answer = b""
            while (part := stream.recv(4096)) and len(answer) < _ANSWER_BYTES:
                answer += part
        value = json.loads(answer)
        return value if isinstance(value, dict) else {"error": f"not an object: {value!r}"}


def _await_byte(descriptor: int, what: str) -> None:
    """Raises LabError when the other end is closed instead, DeadlineError."""
    deadline = Deadline.after(_SECONDS)
    while not select.select([descriptor], [], [], 0.1)[0]:
        check_cancelled()
        if deadline.passed:
            raise DeadlineError(f"{what} was not ready in {deadline.seconds:.0f} s")
    if not os.read(descriptor, 1):
        raise LabError(f"{what} could not be made")


def is_apart(pid: int) -> bool | None:
    """Whether a process has a network namespace of its own; None where that cannot be seen."""
    try:
        return Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    except OSError:
        return None
