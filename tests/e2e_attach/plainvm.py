"""A plain Debian VM that lab did not make: QEMU, a disk, a seed of cloud-init's; its owner is `owner`.

Whoever is attached is `dev`: with sudo, or in the group docker, or neither.

With KEEP_TEST_VMS=FOLDER it stays between two runs of pytest, standing still while none is at work, so that
one test after the other can be run: `kill` of the process in FOLDER/*/vm/vm.json ends it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pycdlib

from lab.config import load
from lab.images import cache, debian

_BOOT_SECONDS = 300.0
_DOCKER = (
    "apt-get --yes --no-download --no-install-recommends -o Dpkg::Options::=--force-unsafe-io "
    "install docker.io docker-cli apparmor"
)
_CHANGING = (
    # What a running system changes by itself.
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/log", "/var/tmp/systemd-private-*"),  # noqa: S108
    *(
        "/var/lib/systemd",
        "/var/lib/cloud",
        "/var/lib/private",
        "/root/.ssh",
        "/home/owner",
        "/var/cache/man",
    ),
    *("/var/lib/lastlog", "/var/lib/wtmpdb", "/var/lib/dpkg/lock*", "/var/lib/apt/periodic"),
    # Docker's own books: what is in it is compared by its own words.
    *("/var/lib/docker", "/var/lib/containerd"),
)


def image() -> Path | None:
    """The disk of the project's own Debian image; None where it is not built."""
    settings = load()
    known = debian.find(settings.cache_dir / "images")
    return cache.disk(settings.cache_dir / "images", known.name) if known else None


@dataclass
class PlainVm:
    """`key` opens `dev` and `owner`; `port` is the VM's SSH on the loopback."""

    folder: Path
    key: Path
    port: int
    sudo: bool
    docker: bool
    process: psutil.Process | None = field(default=None, repr=False)

    def make(self) -> None:
        """The disk and the seed."""
        base = image()
        assert base is not None
        subprocess.run(
            [
                "qemu-img",
                "create",
                "-q",
                "-f",
                "qcow2",
                "-F",
                "qcow2",
                "-b",
                base,
                self.folder / "disk.qcow2",
            ],
            check=True,
        )
        _write_seed(self.folder / "seed.iso", self._user_data())

    def start(self) -> None:
        """Boot it, and wait until its owner can log in and its first boot is over."""
        with (self.folder / "qemu.log").open("ab") as log:
            self.process = psutil.Popen(
                [
                    *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
                    *(
                        "-machine",
                        "q35",
                        "-accel",
                        "tcg,thread=multi",
                        "-cpu",
                        "max,la57=off,cx16=off,svm=on,npt=on",
                    ),
                    *("-smp", "2", "-m", "3072M", "-rtc", "base=utc"),
                    *("-drive", f"file={self.folder / 'disk.qcow2'},if=virtio,discard=unmap"),
                    *("-drive", f"file={self.folder / 'seed.iso'},if=virtio,format=raw,readonly=on"),
                    *("-netdev", f"user,id=net0,ipv6=off,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
                    *("-device", "virtio-net-pci,netdev=net0,romfile="),
                    *("-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0"),
                    *("-serial", f"file:{self.folder / 'console.log'}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait()

    def wait(self) -> None:
        """Until its owner can log in and its first boot is over."""
        assert self.process is not None
        until = time.monotonic() + _BOOT_SECONDS
        while (
            self.ssh("cloud-init status --wait >/dev/null; systemctl is-system-running --wait", check=False)[
                0
            ]
            > 1
        ):
            assert time.monotonic() < until, (self.folder / "console.log").read_text()[-3000:]
            assert alive(self.process), (self.folder / "qemu.log").read_text()
            time.sleep(2)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def ssh(self, command: str, user: str = "owner", check: bool = True, stdin: str = "") -> tuple[int, str]:
        """Exit status and output of a command, without lab."""
        options = ["-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        options += [
            "-o",
            "LogLevel=ERROR",
            "-o",
            "ConnectTimeout=10",
            "-o",
            "IdentitiesOnly=yes",
            "-i",
            str(self.key),
        ]
        done = subprocess.run(
            ["ssh", *options, "-p", str(self.port), f"{user}@127.0.0.1", command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.returncode, done.stdout

    def contents(self) -> dict[str, str]:
        """Every file of the machine with what it is: mode, owner, size and SHA-256."""
        pruned = " -o ".join(f"-path '{path}'" for path in _CHANGING)
        script = (
            f"sudo find / -xdev \\( {pruned} \\) -prune -o -type f -print0 | sudo xargs -0 sha256sum; "
            f"sudo find / -xdev \\( {pruned} \\) -prune -o -printf '%m %u %g %y %l\\t%p\\n'"
        )
        found: dict[str, str] = {}
        for line in self.ssh(script)[1].splitlines():
            what, _, path = line.partition("\t") if "\t" in line else line.partition("  ")
            found[path] = f"{found.get(path, '')} {what}"
        return found

    def docker_has(self) -> str:
        """Docker's containers, images, volumes and networks."""
        lists = (
            "container ls --all --quiet",
            "image ls --all --quiet",
            "volume ls --quiet",
            "network ls --quiet",
        )
        return self.ssh(
            "; ".join(f"sudo docker {words} --no-trunc" for words in lists[:2])
            + "; "
            + "; ".join(f"sudo docker {words}" for words in lists[2:])
        )[1]

    def host_key(self) -> str:
        return self.ssh("cat /etc/ssh/ssh_host_ed25519_key.pub")[1].strip()

    def _user_data(self) -> str:
        public = self.key.with_name(f"{self.key.name}.pub").read_text().strip()
        dev = {"name": "dev", "shell": "/bin/bash", "lock_passwd": True, "ssh_authorized_keys": [public]}
        if self.sudo:
            dev["sudo"] = "ALL=(ALL) NOPASSWD:ALL"
        owner = {**dev, "name": "owner", "sudo": "ALL=(ALL) NOPASSWD:ALL"}
        commands = [["sh", "-c", f"{_DOCKER} && gpasswd --add dev docker && gpasswd --add dev kvm"]]
        return json.dumps(
            {"users": [dev, owner], "ssh_pwauth": False, "runcmd": commands if self.docker else []}
        )


def _write_seed(path: Path, user_data: str) -> None:
    disk = pycdlib.PyCdlib()
    disk.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    meta = json.dumps(
        {"instance-id": hashlib.sha256(user_data.encode()).hexdigest(), "local-hostname": "plain"}
    )
    for number, (name, text) in enumerate(
        (("user-data", f"#cloud-config\n{user_data}\n"), ("meta-data", meta))
    ):
        data = text.encode()
        disk.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", rr_name=name, joliet_path=f"/{name}")
    disk.write(str(path))
    disk.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def kept() -> Path | None:
    """Where VMs are kept between two runs; None where they are thrown away."""
    folder = os.environ.get("KEEP_TEST_VMS")
    return Path(folder) if folder else None


@contextlib.contextmanager
def running(folder: Path, *, sudo: bool, docker: bool) -> Iterator[PlainVm]:
    """A VM that runs, thrown away at the end, or made to stand still where it is kept."""
    known = folder / "vm.json"
    key = folder / "id_ed25519"
    if known.exists():
        row = json.loads(known.read_text())
        vm = PlainVm(folder, key, row["port"], sudo, docker, psutil.Process(row["pid"]))
        assert vm.process and vm.process.create_time() == row["created"], f"its VM ended: remove {folder}"
        vm.process.send_signal(signal.SIGCONT)
        vm.wait()
    else:
        folder.mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        vm = PlainVm(folder, key, free_port(), sudo, docker)
        vm.make()
    try:
        if not known.exists():
            vm.start()
            assert vm.process
            row = {"pid": vm.process.pid, "created": vm.process.create_time(), "port": vm.port}
            known.write_text(json.dumps(row))
        yield vm
    finally:
        if kept() and known.exists():
            assert vm.process
            vm.process.send_signal(signal.SIGSTOP)
        else:
            vm.stop()
            shutil.rmtree(folder, ignore_errors=True)


def missing(programs: Sequence[str] = ("qemu-system-x86_64", "qemu-img", "ssh", "ssh-keygen")) -> str:
    """What is not here of what such a VM takes; empty when all is."""
    absent = [name for name in programs if shutil.which(name) is None]
    return ", ".join(absent) or ("" if image() else "the image debian-13 (`invoke image.build`)")
