"""A plain Debian VM for arm64 in which KVM works: QEMU emulates its processor with EL2.

Its disk is built once, and kept in lab's cache: on x86 by mmdebstrap with QEMU's user emulation.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from lab.config import load
from lab.images import apt_sources
from tests.e2e_attach.plainvm import PlainVm, alive, free_port

QEMU = "qemu-system-aarch64"
PROCESSOR = "max,pauth-impdef=on,sve=off,sme=off"
"""Pointers signed as real processors do it, and vectors, take an emulated one most of its time."""
_BOOT_SECONDS = 900.0
_DISK_MIB = 3072
_PACKAGES = [
    *("systemd-sysv", "udev", "dbus", "libpam-systemd", "openssh-server", "sudo", "python3", "docker.io"),
    *("docker-cli", "iptables", "iproute2", "kmod", "procps", "apparmor", "ca-certificates"),
    *("linux-image-cloud-arm64", "initramfs-tools", "zstd"),
]
_BEFORE = """#!/bin/sh
set -eu
mkdir -p "$1/etc/initramfs-tools/conf.d"
printf 'MODULES=list\\nCOMPRESS=zstd\\n' >"$1/etc/initramfs-tools/conf.d/plain"
printf 'virtio_pci\\nvirtio_mmio\\nvirtio_blk\\nvirtio_net\\next4\\n' >"$1/etc/initramfs-tools/modules"
"""
_AFTER = """#!/bin/sh
set -eu
root=$1
chroot "$root" sh -eu <<'IN'
groupadd --system --force docker
for user in dev owner; do
    useradd --create-home --shell /bin/bash --password '*' $user
    install -d -m 700 -o $user -g $user /home/$user/.ssh
done
usermod --append --groups docker,kvm dev
echo 'owner ALL=(ALL) NOPASSWD:ALL' >/etc/sudoers.d/owner
echo plain >/etc/hostname
printf '127.0.0.1 localhost plain\\n' >/etc/hosts
printf '[Match]\\nName=e*\\n[Network]\\nDHCP=ipv4\\nLinkLocalAddressing=no\\nIPv6AcceptRA=no\\n' \\
    >/etc/systemd/network/10-net.network
systemctl --quiet enable systemd-networkd ssh docker
systemctl --quiet mask getty.target systemd-networkd-wait-online apt-daily.timer apt-daily-upgrade.timer \\
    dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap fstrim.timer systemd-firstboot systemd-hwdb-update \\
    systemd-journal-catalog-update apparmor
systemctl --quiet set-default multi-user.target
rm -f /etc/resolv.conf
echo nameserver 10.0.2.3 >/etc/resolv.conf
IN
for user in dev owner; do
    cp "$HERE/id_ed25519.pub" "$root/home/$user/.ssh/authorized_keys"
    chroot "$root" chown $user: /home/$user/.ssh/authorized_keys
done
cp "$root"/boot/vmlinuz-* "$HERE/vmlinuz"
cp "$root"/boot/initrd.img-* "$HERE/initrd.img"
"""


def folder() -> Path:
    """Where the disk, its kernel and the key of its users are kept."""
    recipe = "\0".join([*_PACKAGES, _BEFORE, _AFTER, str(_DISK_MIB)])
    return load().cache_dir / "tests" / f"arm64-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def missing() -> str:
    """What is not here of what such a VM takes; empty when all is."""
    programs = [QEMU, "qemu-img", "ssh", "ssh-keygen"]
    if not (folder() / "disk.qcow2").exists():
        programs += ["mmdebstrap", "mke2fs", "arch-test"]
    absent = [name for name in programs if shutil.which(name) is None]
    if absent or "arch-test" not in programs:
        return ", ".join(absent)
    if os.geteuid() != 0:
        return "root's rights, to build its disk"
    runs = subprocess.run(["arch-test", "arm64"], capture_output=True, check=False).returncode == 0
    return "" if runs else "QEMU's user emulation for arm64 (qemu-user-static with binfmt_misc)"


def build() -> Path:
    """The folder, with the disk in it; made unless it is there, which takes about half an hour."""
    target = folder()
    if (target / "disk.qcow2").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    key, root = target / "id_ed25519", target / "root"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    for name, text in (("before", _BEFORE), ("after", _AFTER)):
        (target / name).write_text(text)
        (target / name).chmod(0o755)
    options = ['APT::Install-Recommends "false"', 'Acquire::Languages "none"']
    excluded = [f"path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
    with (target / "build.log").open("wb") as log:
        subprocess.run(
            [
                *("unshare", "--mount", "--propagation=private"),
                *("mmdebstrap", "--verbose", "--mode=root", "--architectures=arm64", "--variant=minbase"),
                f"--include={','.join(_PACKAGES)}",
                *(f"--aptopt={option}" for option in options),
                *(f"--dpkgopt={option}" for option in excluded),
                f"--essential-hook={target / 'before'}",
                f"--customize-hook={target / 'after'}",
                *("trixie", root, "-"),
            ],
            input=apt_sources.lines_for("trixie", components=["main"]).encode(),
            env={**os.environ, "HERE": str(target), "TMPDIR": str(target)},
            stdout=log,
            stderr=log,
            check=True,
        )
        pack(root, target / "disk.qcow2")
    shutil.rmtree(root)
    return target


def pack(root: Path, disk: Path) -> None:
    """Make the disk `disk` of a root file system."""
    raw = disk.with_suffix(".img")
    raw.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", root, raw, f"{_DISK_MIB}m"], check=True)
    half = disk.with_suffix(".part")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, half], check=True)
    half.rename(disk)
    raw.unlink()


class ArmVm(PlainVm):
    """Like a PlainVm, with Docker and no sudo, on arm64."""

    def make(self) -> None:
        kept = build()
        shutil.copy(kept / "id_ed25519", self.key)
        shutil.copy(kept / "id_ed25519.pub", f"{self.key}.pub")
        overlay = ["-f", "qcow2", "-F", "qcow2", "-b", kept / "disk.qcow2", self.folder / "disk.qcow2"]
        subprocess.run(["qemu-img", "create", "-q", *overlay], check=True)

    def start(self) -> None:
        kept = folder()
        with (self.folder / "qemu.log").open("ab") as log:
            self.process = psutil.Popen(
                [
                    *(QEMU, "-nodefaults", "-no-user-config", "-display", "none"),
                    *("-machine", "virt,virtualization=on,gic-version=3", "-cpu", PROCESSOR),
                    *("-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048M", "-rtc", "base=utc"),
                    *("-kernel", kept / "vmlinuz", "-initrd", kept / "initrd.img"),
                    *("-append", "root=/dev/vda rw console=ttyAMA0 quiet loglevel=4 mitigations=off panic=3"),
                    *("-drive", f"file={self.folder / 'disk.qcow2'},if=none,id=disk,discard=unmap"),
                    *("-device", "virtio-blk-pci,drive=disk"),
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
        assert self.process is not None
        until = time.monotonic() + _BOOT_SECONDS
        while self.ssh("systemctl is-system-running --wait", check=False)[0] > 1:
            assert time.monotonic() < until, (self.folder / "console.log").read_text()[-3000:]
            assert alive(self.process), (self.folder / "qemu.log").read_text()
            time.sleep(2)

    def python(self, text: str, *words: str, user: str = "dev", sudo: bool = False) -> str:
        """What a script prints there."""
        command = [*(["sudo"] if sudo else []), "python3", "-", *words]
        return self.ssh(" ".join(command), user=user, stdin=text)[1]


@contextlib.contextmanager
def running(place: Path) -> Iterator[ArmVm]:
    """A VM that runs, thrown away at the end but for the disk that it stands on."""
    place.mkdir(parents=True)
    vm = ArmVm(place, place / "id_ed25519", free_port(), sudo=False, docker=True)
    vm.make()
    try:
        vm.start()
        yield vm
    finally:
        vm.stop()
        shutil.rmtree(place, ignore_errors=True)
