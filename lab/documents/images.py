"""What the tasks image.* print, and what the Vagrantfile is told."""

from __future__ import annotations

from typing import Annotated, Literal

from lab.model.document import (
    Count,
    JsonDocument,
    JsonPart,
    Limited,
    Moment,
    Ordinal,
    Port,
    Seconds,
    Sha256,
    Text,
)


class ImageEntry(JsonPart):
    id: Text
    kind: Text
    name: Text
    bytes: Count
    created: Moment
    sha256: Sha256 | None
    in_use_by: tuple[str, ...]
    """names of labs"""


class ImageList(JsonDocument):
    """The image cache"""

    tag = "image.list/1"

    cache: Text
    images: tuple[ImageEntry, ...]
    disk_bytes: Count
    """what all that is cached takes on the disk: images, disks converted for VirtualBox, boxes, downloads"""


class ImageResult(JsonPart):
    id: Text
    kind: Text
    name: Text
    result: Literal[
        "fetched", "built", "cached", "verified", "bad", "removed", "kept", "exported", "imported"
    ]
    bytes: Count
    sha256: Sha256 | None
    why: str


class ImageAction(JsonDocument):
    """What image.fetch, build, verify, prune, box, export or import did"""

    tag = "image.action/1"

    action: Literal["fetch", "build", "verify", "prune", "box", "export", "import"]
    results: tuple[ImageResult, ...]
    seconds: Seconds
    notes: tuple[str, ...]


class VagrantBoxEntry(JsonPart):
    name: Text
    url: str | None
    sha256: Sha256 | None


class VagrantForward(JsonPart):
    name: Text
    host_port: Port
    guest_port: Port


class VagrantLibvirtEntry(JsonPart):
    uri: str
    driver: Literal["kvm", "qemu"]
    machine_type: str
    cpu_mode: str
    cpu_model: str
    emulator: str
    arguments: tuple[str, ...]
    """QEMU's words after those of libvirt"""


class VagrantVirtualBoxEntry(JsonPart):
    customize: tuple[Annotated[tuple[str, ...], Limited(min_length=1)], ...]
    """VBoxManage's words before each boot"""


class VagrantPlan(JsonDocument):
    """How a machine of lab's Vagrantfile is to be"""

    tag = "lab.vagrant/1"

    lab: Text
    provider: Literal["libvirt", "virtualbox"]
    prepared: bool
    """whether lab has what the machine needs: keys, seed, ports, box"""
    cpus: Ordinal
    memory_mib: Ordinal
    disk_gib: Ordinal
    boot_seconds: Ordinal
    user: Text
    key: str | None
    """the path of the machine's own private key; it and the next three are null until it is prepared"""
    known_hosts: str | None
    seed: str | None
    console: str | None
    box: VagrantBoxEntry
    forwards: tuple[VagrantForward, ...]
    """of the host's loopback; empty until it is prepared"""
    libvirt: VagrantLibvirtEntry | None
    virtualbox: VagrantVirtualBoxEntry | None
