"""A published VMDK on the real VirtualBox: fetched, verified, converted by VirtualBox itself, and booted.

Its server and its key are the test's own; the guest is the tests' boot sector in VirtualBox's interpreter.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bootsector import VIRTUALBOX, Heart, base_disk
from imageserver import Served, image_server

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.core.journal import Journal
from lab.core.steps import Steps
from lab.engines.images import QemuImg
from lab.engines.options import VirtualBoxOptions
from lab.engines.protocol import MachineSpec, State
from lab.engines.virtualbox import basedisk
from lab.engines.virtualbox.client import WorkerClient
from lab.engines.virtualbox.machine import VirtualBoxMachine
from lab.engines.virtualbox.manage import Manage
from lab.engines.virtualbox.transport import Transport
from lab.engines.virtualbox.vm import vm_processes
from lab.images.published import PublishedImage
from tests.integration.vboxroot import Instance
from tests.signing import Signer

pytestmark = pytest.mark.slow

HOME = Path("/usr/lib/virtualbox")
GLUE = Path("/usr/lib/python3/dist-packages")
Make = Callable[..., VirtualBoxMachine]


def _qemu_img(*words: str | Path) -> str:
    return proc.run(["qemu-img", *words], deadline=Deadline.after(60)).out


@pytest.fixture(scope="module")
def vmdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Ubuntu's: streamOptimized, which is compressed and never written in place."""
    folder = tmp_path_factory.mktemp("vmdk")
    disk = base_disk(folder / "disk.qcow2", True, VIRTUALBOX)
    target = folder / "disk.vmdk"
    _qemu_img("convert", "-f", "qcow2", "-O", "vmdk", "-o", "subformat=streamOptimized", disk, target)
    return target


@pytest.fixture
def image(vmdk: Path, signer: Signer, signing_keys: dict[str, str], tmp_path: Path) -> Path:
    """The disk in the image cache, after it was fetched from who published it."""
    folder = tmp_path / "publisher"
    folder.mkdir()
    signer.export(folder / "key.gpg", signing_keys["good"])
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{hashlib.sha256(vmdk.read_bytes()).hexdigest()} *disk.vmdk\n")
    signature = signer.sign(sums, signing_keys["good"])
    manifest = folder / "test-1.toml"
    manifest.write_text(
        'name = "test-1"\nbase = "https://images.example.org/"\nsums = "SHA256SUMS"\n'
        'signature = "SHA256SUMS.gpg"\nkeyring = "key.gpg"\n'
        f'fingerprint = "{signing_keys["good"]}"\n[files]\nqcow2 = "disk.img"\nvmdk = "disk.vmdk"\n'
    )
    with image_server() as server, Steps().step("image.fetch") as step:
        server.files |= {f"/{path.name}": Served(path.read_bytes()) for path in (vmdk, sums, signature)}
        published = PublishedImage(manifest, "vmdk", base=server.base)
        return published.fetch(tmp_path / "images", step, Deadline.after(60)) / "disk.vmdk"


@pytest.fixture(params=["vboxapi", "VBoxManage"])
def client(request: pytest.FixtureRequest, vbox: Instance) -> Iterator[Transport]:
    made: Transport = Manage(vbox.home)
    if request.param == "vboxapi":
        made = WorkerClient(str(vbox.python), HOME, (GLUE,))
    yield made
    made.close()


@pytest.fixture
def machine(
    image: Path, client: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[VirtualBoxMachine]:
    """On that image, where there is no qemu-img."""

    def absent(*words: object) -> None:
        raise AssertionError(f"qemu-img was asked: {words}")

    monkeypatch.setattr(QemuImg, "run", absent)
    seed = tmp_path / "seed.iso"
    seed.write_bytes(b"\0" * 65536)
    spec = MachineSpec(
        uuid=str(uuid.uuid4()),
        name="test",
        folder=tmp_path / "vm",
        base_disk=image,
        seed=seed,
        cpus=1,
        memory_mib=64,
        disk_gib=1,
        nested=False,
    )
    options = VirtualBoxOptions(execution_engine="interpreter")
    journal = Journal(tmp_path / "journal.jsonl")
    made = VirtualBoxMachine(spec, journal, lambda: client, options, tmp_path / "cache")
    yield made
    for running in vm_processes(spec.uuid):
        running.kill()
    made.destroy()


def _base(machine: VirtualBoxMachine) -> Path:
    (base,) = (machine._cache / basedisk.FOLDER).glob("*.vdi")
    return base


def _started(machine: VirtualBoxMachine) -> None:
    machine.start([])
    Heart.wait(machine)


def test_a_published_vmdk_boots_and_its_base_may_be_made_anew(
    machine: VirtualBoxMachine, image: Path, vbox: Instance
) -> None:
    image_before = image.read_bytes()
    machine.create()
    base = _base(machine)
    about = json.loads(_qemu_img("info", "--output=json", base))
    assert (about["format"], about["virtual-size"]) == ("vdi", 1 << 30)
    assert base.stat().st_mode & 0o777 == 0o444 and base.stat().st_blocks * 512 < 16 << 20
    assert "identical" in _qemu_img("compare", "-f", "vmdk", "-F", "vdi", image, base)
    assert image.read_bytes() == image_before
    assert str(image) not in vbox.run("VBoxManage", "-q", "list", "hdds").out, "VirtualBox forgot the image"
    _started(machine)
    assert machine.stop(Deadline.after(60)) == "graceful"
    whole = base.read_bytes()[0x188:0x1A8]
    base.unlink()  # as `image.prune`, and a lab that is started later
    machine.create()
    again = basedisk.ensure(image, 1, machine._cache, machine._convert)
    assert again == base and base.read_bytes()[0x188:0x1A8] == whole
    _started(machine)
    assert Heart.numbers(machine, "boot")[-1] == 2, "its difference fits the base that was made anew"
    machine.destroy()
    assert machine.status() is State.ABSENT and base.exists() and image.exists()
    registered = vbox.run("VBoxManage", "-q", "list", "hdds").out
    assert str(machine._cache) not in registered


def test_a_conversion_that_was_cut_short_is_begun_again(
    machine: VirtualBoxMachine, image: Path, vbox: Instance
) -> None:
    part = machine._cache / basedisk.FOLDER / f"{image.parent.name}-1g.part"
    part.parent.mkdir(parents=True)
    copy = part.with_suffix(".copy")
    copy.write_bytes(image.read_bytes())
    vbox.run("VBoxManage", "-q", "clonemedium", "disk", copy, part, "--format", "VDI")
    assert str(part) in vbox.run("VBoxManage", "-q", "list", "hdds").out
    machine.create()
    _started(machine)
    assert not part.exists() and not copy.exists()
    registered = vbox.run("VBoxManage", "-q", "list", "hdds").out
    assert str(part) not in registered and str(copy) not in registered


def test_what_virtualbox_cannot_read_leaves_nothing(machine: VirtualBoxMachine, image: Path) -> None:
    image.chmod(0o644)
    with image.open("r+b") as stream:
        stream.truncate(512)
    with pytest.raises(LabError) as caught:
        machine.create()
    assert "VirtualBox failed: converting" in caught.value.what and caught.value.tail
    assert not list((machine._cache / basedisk.FOLDER).iterdir())
    assert machine.status() is State.ABSENT
