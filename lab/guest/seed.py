"""The NoCloud seed: the CD that tells a cloud image who the lab's user is and which keys it has.

Right for lab's own Debian image and for Ubuntu's cloud image. Lab's own image also takes the keys
straight from the files under `lab/`, before cloud-init runs.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pycdlib
from pycdlib.pycdlibexception import PyCdlibException

from lab.core import files
from lab.guest.keys import Keys

USER = "lab"
LABEL = "cidata"
_GROUPS = ["adm", "kvm", "systemd-journal"]


@dataclass(frozen=True)
class Seed:
    """What a seed says. `instance` changes when cloud-init is to see a new machine: the lab's UUID."""

    instance: str
    hostname: str
    keys: Keys
    grow: bool = False
    """Grow the root partition and file system to the disk's size at boot (takes a few seconds)."""
    services: Mapping[str, str] = field(default_factory=dict)
    """systemd's units of lab's that the image lacks: file name to text."""


def contents(seed: Seed) -> dict[str, str]:
    """The seed's files: path on the CD to text. The same seed always gives the same text."""
    return {
        "user-data": "#cloud-config\n" + _json(user_data(seed)),
        "meta-data": _json({"instance-id": seed.instance, "local-hostname": seed.hostname}),
        "lab/authorized_keys": seed.keys.user.public_line() + "\n",
        "lab/host_key": seed.keys.host.private_text(),
        "lab/host_key.pub": seed.keys.host.public_line() + "\n",
        "lab/hostname": seed.hostname + "\n",
    }


def user_data(seed: Seed) -> dict[str, Any]:
    """The cloud-config: one user with one key and sudo, the given host key, no password login."""
    return {
        "hostname": seed.hostname,
        "users": [
            {
                "name": USER,
                "gecos": "lab",
                "groups": _GROUPS,
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": [seed.keys.user.public_line()],
            }
        ],
        "ssh_pwauth": False,
        "disable_root": True,
        "ssh_keys": {
            "ed25519_private": seed.keys.host.private_text(),
            "ed25519_public": seed.keys.host.public_line(),
        },
        "no_ssh_fingerprints": True,
        "ssh": {"emit_keys_to_console": False},
        "growpart": {"mode": "auto" if seed.grow else "off", "devices": ["/"]},
        "resize_rootfs": seed.grow,
        "package_update": False,
        "package_upgrade": False,
    } | _services(seed.services)


def _services(units: Mapping[str, str]) -> dict[str, Any]:
    """What puts them there and starts them, from now on at every boot."""
    if not units:
        return {}
    return {
        "write_files": [
            {"path": f"/etc/systemd/system/{name}", "content": text} for name, text in units.items()
        ],
        "runcmd": [["systemctl", "enable", "--now", *units]],
    }


def write(seed: Seed, output: Path) -> bool:
    """Write the seed as an ISO (mode 0600: the host's private key is in it).

    An ISO that already says the same is left alone, byte for byte. True when it was written.
    """
    wanted = {name: text.encode() for name, text in contents(seed).items()}
    if read(output) == wanted:
        return False
    files.write_atomic(output, _iso(wanted))
    return True


def read(iso: Path) -> dict[str, bytes]:
    """The files of a seed, path to content; empty when `iso` is absent or no ISO at all."""
    entries: dict[str, bytes] = {}
    if not iso.is_file():
        return entries
    image = pycdlib.PyCdlib()
    with contextlib.suppress(PyCdlibException):
        image.open(str(iso))
        for folder, _, names in image.walk(rr_path="/"):
            for name in names:
                path = f"{folder.rstrip('/')}/{name}"
                content = io.BytesIO()
                image.get_file_from_iso_fp(content, rr_path=path)
                entries[path.lstrip("/")] = content.getvalue()
        image.close()
    return entries


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"  # JSON is YAML


def _iso(contained: dict[str, bytes]) -> bytes:
    """An ISO 9660 image with Rock Ridge and Joliet names (each system reads one of them)."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    folders = sorted({str(Path(name).parent) for name in contained} - {"."})
    for number, folder in enumerate(folders):
        image.add_directory(f"/D{number}", rr_name=folder, joliet_path=f"/{folder}")
    for number, (name, data) in enumerate(sorted(contained.items())):
        parent = str(Path(name).parent)
        place = "" if parent == "." else f"/D{folders.index(parent)}"
        image.add_fp(
            io.BytesIO(data),
            len(data),
            f"{place}/F{number}.;1",
            rr_name=Path(name).name,
            joliet_path=f"/{name}",
            file_mode=0o100400,
        )
    out = io.BytesIO()
    image.write_fp(out)
    image.close()
    return out.getvalue()
