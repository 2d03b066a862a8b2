"""The built Debian guest image: partitions, boot files, and what is and is not in its root."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from lab.core.steps import Steps
from lab.images import cache as images
from lab.images import debian, disk

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder() -> Path:
    """The image in the user's own cache, built if it is not there."""
    base = os.environ.get("LAB_CACHE_DIR") or user_cache_path("lab", appauthor=False)
    cache = Path(base) / "images"
    if there := debian.find(cache):
        return there
    with Steps().step("image.build") as step:
        return debian.build(cache, step)


@pytest.fixture(scope="module")
def raw(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk as a sparse raw file: what mtools and debugfs can read."""
    made = tmp_path_factory.mktemp("disk") / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", folder / "disk.qcow2", made], check=True)
    return made


@pytest.fixture(scope="module")
def root(raw: Path) -> Callable[[str], str]:
    """Ask debugfs about the root file system: `cat /etc/…`, `ls -p /etc`, `stat /…`."""
    place = f"{raw}?offset={disk.root_start(debian.recipe().disk.boot_mib)}"

    def ask(command: str) -> str:
        done = subprocess.run(["debugfs", "-R", command, place], check=True, capture_output=True, text=True)
        return done.stdout

    return ask


def names(listing: str) -> set[str]:
    """File names in the output of debugfs' `ls -p`."""
    return {line.split("/")[5] for line in listing.splitlines() if line.count("/") >= 6}


def test_the_manifest_is_true_of_the_disk(folder: Path) -> None:
    entry = images.find(folder.parent, folder.name)
    assert entry is not None
    images.verify(entry)
    assert entry.manifest.recipe == debian.recipe_hash()
    assert {"docker.io", "openssh-server", "cloud-init"} <= entry.manifest.packages.keys()
    said = subprocess.run(
        ["qemu-img", "info", "--output=json", entry.path], check=True, capture_output=True, text=True
    ).stdout
    assert f'"virtual-size": {debian.recipe().disk.size_gib * disk.GIB}' in said


def test_the_boot_partition_boots_the_root_by_its_label(raw: Path, root: Callable[[str], str]) -> None:
    table = subprocess.run(["sfdisk", "--dump", raw], check=True, capture_output=True, text=True).stdout
    boot, rest = (line for line in table.splitlines() if "start=" in line)
    assert "type=e" in boot
    assert "bootable" in boot
    assert "type=83" in rest
    start = int(re.findall(r"start=\s*(\d+)", rest)[0]) * disk.SECTOR
    assert start == disk.root_start(debian.recipe().disk.boot_mib)

    fat = f"{raw}@@{disk.BOOT_START}"
    listed = subprocess.run(
        ["mdir", "-a", "-b", "-i", fat], check=True, capture_output=True, text=True
    ).stdout
    for name in ("vmlinuz", "initrd.img", "syslinux.cfg", "ldlinux.sys"):
        assert name in listed.lower()
    config = subprocess.run(
        ["mtype", "-i", fat, "::/syslinux.cfg"], check=True, capture_output=True, text=True
    )
    assert "root=LABEL=lab-root" in config.stdout
    assert "console=ttyS0" in config.stdout
    assert re.search(r"Filesystem volume name:\s+lab-root", root("show_super_stats -h"))


def test_docker_lies_in_the_image_to_be_installed_without_a_network(root: Callable[[str], str]) -> None:
    archive = names(root("ls -p /var/cache/apt/archives"))
    index = root("cat /var/cache/apt/archives/Packages")
    indexed = dict(re.findall(r"^Package: (\S+)(?:\n.+)*?\nFilename: \./(\S+)$", index, re.MULTILINE))
    assert set(debian.recipe().docker) <= indexed.keys()
    assert {"containerd", "runc"} <= indexed.keys()
    assert set(indexed.values()) == {name for name in archive if name.endswith(".deb")}
    assert "file:/var/cache/apt/archives" in root("cat /etc/apt/sources.list.d/lab-docker.sources")
    assert "Suites: trixie" in root("cat /etc/apt/sources.list.d/debian.sources")
    installed = root("cat /var/lib/dpkg/status")
    assert "Package: openssh-server\n" in installed
    assert "Package: docker.io\n" not in installed
    assert "policy-rc.d" not in names(root("ls -p /usr/sbin")), "it would keep Docker from starting"


def test_nothing_of_one_machine_is_baked_in(root: Callable[[str], str]) -> None:
    keys = names(root("ls -p /etc/ssh"))
    assert "sshd_config" in keys
    assert not [name for name in keys if name.startswith("ssh_host")]
    etc = names(root("ls -p /etc"))
    assert "passwd" in etc
    assert "hostname" not in etc
    assert re.search(r"Size: 0$", root("stat /etc/machine-id"), re.MULTILINE)
    home = names(root("ls -p /home/lab"))
    assert ".bashrc" in home
    assert ".ssh" not in home
    for account in ("root", "lab"):
        (entry,) = re.findall(rf"^{account}:([^:]*):", root("cat /etc/shadow"), re.MULTILINE)
        assert entry.startswith(("*", "!")), f"{account} can log in with a password"


def test_cloud_init_looks_for_the_seed_only(root: Callable[[str], str]) -> None:
    config = root("cat /etc/cloud/cloud.cfg.d/99-lab.cfg")
    assert "datasource_list: [NoCloud]" in config
    assert "network: {config: disabled}" in config


def test_hooks_left_the_root_clean_and_the_rights_right(root: Callable[[str], str]) -> None:
    for folder in ("/tmp", "/proc", "/sys", "/dev", "/run"):  # noqa: S108 - of the image
        assert names(root(f"ls -p {folder}")) == {".", ".."}, folder
    assert re.search(r"Mode:\s+0440", root("stat /etc/sudoers.d/lab"))
    assert re.search(r"User:\s+1000\s+Group:\s+1000", root("stat /home/lab"))
    assert re.search(r"Mode:\s+04755", root("stat /usr/bin/sudo"))
    status = root("cat /etc/initramfs-tools/update-initramfs.conf")
    assert "update_initramfs=no" in status
