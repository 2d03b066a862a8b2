"""Runs the double without Docker: its root file system in namespaces, L2 emulated. Needs root.

with rooted.running(image, folder, {"WEB_VNC": "true"}, ports=[5555, 6080]) as double:
    double.ports[5555]          # a port of this machine's 127.0.0.1
    double.run("cat device_status")
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.deadline import Deadline, poll
from lab.engines.protocol import LOOPBACK
from tests.double import published
from tests.double.build import _ENVIRONMENT, GROUP, HOME, USER, Image

ADDRESS = "172.30.0.2"
"""The container's own, in its network namespace."""

# What Docker would have made: its own devices, of which /dev/kvm is none, processes, host name and address.
_BEGIN = """
set -e
root=$1 address=$2; shift 2
mount -t tmpfs -o mode=755 dev "$root/dev"
for one in null:3 zero:5 full:7 random:8 urandom:9 kvm:3; do
    mknod -m 666 "$root/dev/${one%:*}" c 1 "${one#*:}"
done
mkdir -m 1777 "$root/dev/shm"
ln -s /proc/self/fd "$root/dev/fd"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
hostname double
echo "127.0.0.1 localhost
$address double" >"$root/etc/hosts"
ip link set lo up
ip address add "$address/32" dev lo
chown 1300:1301 "$root/home/androidusr" "$root/home/androidusr/logs"
exec chroot --userspec=1300:1301 --groups= "$root" /bin/env -i "$@"
"""
_SECONDS = 60.0


def unpack(image: Image, target: Path) -> Path:
    """The image's root file system in the new folder `target`, as Docker would have it."""
    with tarfile.open(image.archive) as archive:
        (index,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        packed = (archive.extractfile(index["Layers"][0]) or io.BytesIO()).read()
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as layer:
        layer.extractall(target, filter="fully_trusted")  # noqa: S202 - sudo is nothing without its bit
    for folder in ("dev", "proc", "etc"):
        (target / folder).mkdir(exist_ok=True)
    return target


@dataclass(frozen=True)
class Double:
    """A running one. `ports` maps its ports to this machine's."""

    root: Path
    first: int
    ports: Mapping[int, int]

    @property
    def home(self) -> Path:
        return self.root / HOME

    @property
    def status(self) -> str:
        """The content of device_status; empty before there is one."""
        path = self.home / "device_status"
        return path.read_text() if path.exists() else ""

    def log(self, name: str = "device.stdout.log") -> str:
        path = self.home / "logs" / name
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, script: str, seconds: float = _SECONDS) -> str:
        """What a shell script in the container says, errors too, as `docker exec` would run it."""
        words = ["nsenter", f"--target={self.first}", "--mount", "--uts", "--net", "--pid", "--root", "--wd"]
        words += [f"--setuid={USER}", f"--setgid={GROUP}", "/bin/env", "-i"]
        words += [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
        done = subprocess.run(
            [*words, "/bin/sh", "-c", f"cd; exec 2>&1; {script}"], stdout=subprocess.PIPE, timeout=seconds
        )
        return done.stdout.decode(errors="replace")


@contextlib.contextmanager
def running(
    root: Path, env: Mapping[str, str], ports: Sequence[int] = (), log: Path | None = None
) -> Iterator[Double]:
    """The double of the unpacked folder `root`, started as Docker would start it, for the block.

    L2 is emulated (DOUBLE_ACCEL=tcg) unless `env` says otherwise; /dev/kvm is a device that is no KVM.
    """
    environment = {**_ENVIRONMENT, "DOUBLE_ACCEL": "tcg", **env}
    words = ["unshare", "--mount", "--propagation=private", "--pid", "--net", "--uts", "--ipc", "--fork"]
    words += ["--kill-child", "sh", "-c", _BEGIN, "begin", root, ADDRESS]
    words += [f"{name}={value}" for name, value in environment.items()]
    words += ["/bin/sh", "-c", "cd; exec docker-android/mixins/scripts/run.sh"]
    output = (log or root.with_suffix(".log")).open("wb")
    with output, subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process:
        try:
            first = poll(
                lambda: _first(process, root), Deadline.after(_SECONDS), "the double's start", every=0.1
            )
            with published_ports(first, ports) as given:
                yield Double(root, first, given)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the namespace's first process, and with it all others.

    unshare's own --kill-child does not: the kernel forgets that wish when the user changes.
    """
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    process.kill()


def _first(process: subprocess.Popen[bytes], root: Path) -> int | None:
    """The container's first process, once it is the image's own."""
    assert process.poll() is None, f"the double ended at once: {root.with_suffix('.log').read_text()}"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    if not children:
        return None
    with contextlib.suppress(OSError):
        if Path(f"/proc/{children[0]}/root").readlink() == root.resolve():
            return int(children[0])
    return None


@contextlib.contextmanager
def published_ports(first: int, ports: Sequence[int]) -> Iterator[dict[int, int]]:
    """Ports of the namespace that process `first` is in, each at a free port of 127.0.0.1 here."""
    listeners = {port: socket.create_server((LOOPBACK, 0)) for port in ports}
    given = {port: int(listener.getsockname()[1]) for port, listener in listeners.items()}
    if not listeners:
        yield given
        return
    inner = [
        f"{listener.fileno()}:{ADDRESS if port < 5600 else LOOPBACK}:{port}"
        for port, listener in listeners.items()
    ]
    words = ["nsenter", f"--target={first}", "--net", sys.executable, published.__file__, *inner]
    handed = [listener.fileno() for listener in listeners.values()]
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=handed)
    for listener in listeners.values():
        listener.close()
    try:
        yield given
    finally:
        child.kill()
        child.wait()
