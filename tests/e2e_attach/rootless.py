"""A Debian 13 root with an SSH server in which `dev` has a Docker of his own, or Podman, or root's by sudo.

In namespaces of this machine, not in a VM: what is tried is how lab gets on with the engines. Only root can.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.config import load
from lab.core import files, lock, proc
from lab.core.deadline import Deadline
from lab.images import apt_sources, mmdebstrap
from tests.integration.sshserver import Server

_SUITE = "trixie"
_ROOT = mmdebstrap.RootRecipe(
    suite=_SUITE,
    packages=[
        *("docker.io", "docker-cli", "rootlesskit", "slirp4netns", "uidmap", "podman", "crun", "conmon"),
        *(
            "netavark",
            "nftables",
            "passt",
            "iptables",
            "openssh-server",
            "sudo",
            "python3",
            "procps",
            "iproute2",
        ),
    ],
)
_SPACE = 2 << 30
_SECONDS = 1200.0
_UID = 1000
# pivot_root, not chroot: Docker remounts `/`, which must be a mount.
_ENTER = """
set -e
mount -t tmpfs -o mode=755 lab "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" lab "$1/root"
cd "$1/root"
mount -t proc proc proc
mount --rbind /sys sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm dev/net
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for name in null zero full random urandom tty; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mknod -m 666 dev/net/tun c 10 200
mount -t tmpfs -o mode=755 run run
mkdir -p "$1/root$3" old
mount --bind "$3" "$1/root$3"
pivot_root . old
umount -l old
useradd --uid 1000 --create-home --shell /bin/bash --password '*' dev
[ -z "$4" ] || echo 'dev ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/dev
mkdir -p /run/sshd /run/user/1000
chown 1000:1000 /run/user/1000
exec /usr/sbin/sshd -D -e -f "$3/config"
"""


@dataclass(frozen=True)
class Service:
    """An engine of the machine: what lab calls it, its socket, what starts it as dev."""

    kind: str
    socket: str
    start: str
    by_sudo: bool = False

    @property
    def docker(self) -> str:
        """The client, as words before its own."""
        return "sudo -n docker" if self.by_sudo else f"env DOCKER_HOST=unix://{self.socket} docker"


_DOCKERD = "--storage-driver vfs --iptables=false --ip6tables=false"
SERVICES = {
    "rootless Docker": Service(
        "rootless Docker",
        "/run/user/1000/docker.sock",
        f"PATH=/usr/share/docker.io/contrib:/usr/sbin:$PATH exec dockerd-rootless.sh {_DOCKERD}",
    ),
    "Podman": Service(
        "Podman",
        "/run/user/1000/podman/podman.sock",
        "mkdir -p /run/user/1000/podman; exec podman --cgroup-manager=cgroupfs --storage-driver=vfs "
        "system service --time=0 unix:///run/user/1000/podman/podman.sock",
    ),
    # The machine has this host's network: no bridge of Docker's comes into it.
    "Docker by sudo": Service(
        "Docker", "/run/docker.sock", f"exec sudo -n dockerd {_DOCKERD} --bridge=none", by_sudo=True
    ),
}


def built() -> Path:
    """The root, of the tests' cache; built if it is not there."""
    digest = hashlib.sha256(" ".join(_ROOT.packages).encode()).hexdigest()[:12]
    final = load().cache_dir / "test-roots" / f"rootless-{_SUITE}-{digest}"
    with lock.when_free(lock.beside(final), "the tests' root for rootless engines"):
        if not final.is_dir():
            files.require_space(final.parent, _SPACE, "a Debian root with Docker and Podman")
            with files.building(final) as work:
                work.chmod(0o755)
                options = [*mmdebstrap.common_options(_ROOT), *mmdebstrap.trimming_options()]
                proc.run(
                    [
                        *("unshare", "--mount", "--propagation=private"),
                        *(*options, "--format=directory", _SUITE, work / "tree", "-"),
                    ],
                    deadline=Deadline.after(_SECONDS),
                    env={"DEBIAN_FRONTEND": "noninteractive"},
                    log=work / "mmdebstrap.log",
                    stdin=apt_sources.lines_for(_SUITE),
                )
    return final / "tree"


@dataclass
class Rootless:
    """`server` has the keys and the port of the machine's SSH."""

    server: Server

    def ssh(self, command: str, check: bool = True, stdin: bytes = b"") -> str:
        """What a command of dev's says, without lab."""
        options = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        options += ["-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-i", str(self.server.key)]
        words = ["ssh", *options, "-p", str(self.server.port), "dev@127.0.0.1", command]
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=120, check=False)
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout.decode()


@contextlib.contextmanager
def running(folder: Path, service: Service) -> Iterator[Rootless]:
    """The machine with that service at work; all of it is gone at the end."""
    (folder / "ssh").mkdir(parents=True)
    (folder / "base").mkdir()
    server = Server(folder / "ssh")
    (folder / "ssh" / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {server.port}\nHostKey {server.host_key}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder / 'ssh' / 'authorized'}\nStrictModes no\nPasswordAuthentication no\n"
        "Subsystem sftp internal-sftp\nSetEnv XDG_RUNTIME_DIR=/run/user/1000\n"
    )
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
    with (folder / "log").open("wb") as log:
        machine = subprocess.Popen(
            [
                *(*words, "sh", "-c", _ENTER, "enter", folder / "base", built(), folder / "ssh"),
                "sudo" if service.by_sudo else "",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    made = Rootless(server)
    try:
        _until(lambda: made.ssh("id -un", check=False) == "dev\n", machine, folder / "log")
        made.ssh(f"({service.start}) </dev/null >engine.log 2>&1 & ")
        _until(
            lambda: "yes" in made.ssh(f"test -S {service.socket} && echo yes; true"),
            machine,
            folder / "log",
            lambda: made.ssh("tail -20 engine.log"),
        )
        yield made
    finally:
        machine.kill()
        machine.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _until(true: object, machine: subprocess.Popen[bytes], log: Path, more: object = None) -> None:
    until = time.monotonic() + 60
    while not true():  # type: ignore[operator]
        words = log.read_text() + (more() if more else "")  # type: ignore[operator]
        assert machine.poll() is None and time.monotonic() < until, words
        time.sleep(0.5)
