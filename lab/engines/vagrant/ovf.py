"""The OVF and VMDK of a box for VirtualBox; its settings come after the import (plan.virtualbox)."""

from __future__ import annotations

import hashlib
import re
import struct
from pathlib import Path

from lab.core.errors import LabError
from lab.engines.vagrant.plan import CONTROLLER

DISK = "disk.vmdk"
_SECTOR = 512
_HEADER = struct.Struct("<4s24xQQ")
"""Magic, …, the descriptor's first sector and how many it has."""
_CID = re.compile(rb"^CID=[0-9a-f]{1,8}$", re.MULTILINE)

_TEMPLATE = """\
<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
    <File ovf:id="file1" ovf:href="{disk}" ovf:size="{size}"/>
  </References>
  <DiskSection>
    <Info>The system disk</Info>
    <Disk ovf:capacity="{capacity}" ovf:diskId="disk1" ovf:fileRef="file1"
        ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>Networks</Info>
    <Network ovf:name="NAT"><Description>NAT</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{name}">
    <Info>lab's image as a machine</Info>
    <OperatingSystemSection ovf:id="94"><Info>Ubuntu (64-bit)</Info></OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType>
      </System>
{items}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"""

_ITEMS: tuple[dict[str, str], ...] = (
    # Resource types of the DMTF's CIM: 3 processors, 4 memory, 20 a controller, 17 a disk, 10 a network card.
    {"Caption": "1 virtual CPU", "InstanceID": "1", "ResourceType": "3", "VirtualQuantity": "1"},
    {
        "AllocationUnits": "MegaBytes",
        "Caption": "1024 MB of memory",
        "InstanceID": "2",
        "ResourceType": "4",
        "VirtualQuantity": "1024",
    },
    {
        "Address": "0",
        "Caption": CONTROLLER,
        "InstanceID": "3",
        "ResourceSubType": "AHCI",
        "ResourceType": "20",
    },
    {
        "AddressOnParent": "0",
        "Caption": "disk1",
        "HostResource": "/disk/disk1",
        "InstanceID": "4",
        "Parent": "3",
        "ResourceType": "17",
    },
    {
        "AutomaticAllocation": "true",
        "Caption": "Ethernet adapter on NAT",
        "Connection": "NAT",
        "InstanceID": "5",
        "ResourceSubType": "E1000",
        "ResourceType": "10",
    },
)


def text(name: str, gib: int, size: int) -> str:
    """The OVF of a machine whose disk is `gib` large and whose VMDK has `size` bytes."""
    items = "".join(_item(item) for item in _ITEMS)
    return _TEMPLATE.format(name=name, capacity=gib << 30, size=size, disk=DISK, items=items)


def _item(fields: dict[str, str]) -> str:
    named = {"ElementName": fields["Caption"]} | fields
    lines = "".join(f"        <rasd:{key}>{named[key]}</rasd:{key}>\n" for key in sorted(named))
    return f"      <Item>\n{lines}      </Item>\n"


def settle(vmdk: Path) -> None:
    """Give the disk's content id, which is random, a value that follows from what the disk holds.

    The id is up to eight hexadecimal digits after `CID=` in the descriptor, a text with room behind it
    whose place and size, in sectors, the file's header tells (VMware, Virtual Disk Format 5.0). Raises
    LabError when it is not there.
    """
    with vmdk.open("r+b") as stream:
        head = stream.read(_HEADER.size)
        magic, place, sectors = _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0, 0)
        stream.seek(place * _SECTOR)
        room = stream.read(sectors * _SECTOR) if magic == b"KDMV" else b""
        unsettled, count = _CID.subn(b"CID=00000000", room.rstrip(b"\0"))
        if count != 1 or len(unsettled) > len(room):
            raise LabError(f"{vmdk} is not the VMDK that qemu-img was to write")
        stream.seek(place * _SECTOR)
        stream.write(unsettled.ljust(len(room), b"\0"))
        stream.flush()
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(place * _SECTOR + unsettled.index(b"CID=") + len(b"CID="))
        stream.write(digest[:8].encode())
