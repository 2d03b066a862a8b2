"""What the Vagrantfile is told and what is made for it; image.box. Store, records and ports are real ones."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.core import files
from lab.core.errors import BlockedError, BusyError, UsageError
from lab.engines.protocol import Availability, Forward, State
from lab.engines.vagrant import box, link
from lab.engines.vagrant.box import VagrantBox
from lab.guest import keys, seed
from lab.images import cache
from lab.model.domain import Nesting
from lab.tasks.image import box as box_command
from lab.tasks.lab import up, vagrantfile
from lab.workflow import guest_image, selection
from lab.workflow.destroy import destroy
from lab.workflow.session import ROOT
from tests.unit.bed import IMAGE, Bed, checked
from tests.unit.fakes import FACTS
from tests.unit.vagrant_world import World

SHA = "0" * 64


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """The image is there, its box is made without qemu-img."""
    made = Bed(tmp_path, monkeypatch)
    # Not the machine that a developer may have made here by `vagrant up`.
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "dot"))
    folder = tmp_path / "cache" / "images" / IMAGE
    folder.mkdir(parents=True)
    (folder / "disk.qcow2").write_text("disk")
    manifest = cache.Manifest(
        id=IMAGE,
        kind="guest",
        name="debian-13",
        file="disk.qcow2",
        format="qcow2",
        bytes=4,
        sha256=files.sha256(folder / "disk.qcow2"),
        created=datetime.now(UTC),
    )
    cache.seal(folder, manifest)
    monkeypatch.setattr(box, "ensure", _box)
    monkeypatch.setattr(box, "verify", lambda _box: None)
    yield made


def _box(cache_dir: Path, image: cache.CachedImage, provider: str, gib: int, _step: object) -> VagrantBox:
    path = cache_dir / "vagrant" / provider / f"{image.id}-{gib}g.box"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = not path.exists()
    path.write_text("box")
    files.write_json(path.with_suffix(".json"), {"sha256": SHA, "bytes": 3})
    return VagrantBox(box.named(image.id, gib), path, SHA, 3, made)


def test_looking_makes_nothing(bed: Bed) -> None:
    for provider in ("libvirt", "virtualbox"):
        document = checked(vagrantfile.describe(bed.session(), "", provider))
        assert (document["prepared"], document["key"], document["forwards"]) == (False, None, [])
        assert document["box"]["name"] == f"lab/{guest_image.UBUNTU}"
        other = "virtualbox" if provider == "libvirt" else "libvirt"
        assert document[provider] and document[other] is None
    assert not (bed.folder / "state").exists()


def test_what_a_machine_needs_is_made_once(bed: Bed) -> None:
    document = checked(vagrantfile.prepare(bed.session(), "", "libvirt"))
    lab = bed.lab("vagrant")
    record = lab.record()
    assert (record.engine, record.image, record.acceleration) == ("vagrant-libvirt", IMAGE, "kvm")
    assert {item["name"]: item["host_port"] for item in document["forwards"]} == {
        name: access.host_port for name, access in record.forwards.items()
    }
    assert document["box"] == {
        "name": f"lab/{IMAGE}-12g",
        "url": (bed.folder / f"cache/vagrant/libvirt/{IMAGE}-12g.box").as_uri(),
        "sha256": SHA,
    }
    pair = keys.ensure(lab.folder / "keys", "vagrant")
    said = seed.read(Path(document["seed"]))
    assert said["lab/authorized_keys"].decode().strip() == pair.user.public_line()
    assert said["lab/host_key.pub"].decode().strip() == pair.host.public_line()
    pinned = Path(document["known_hosts"]).read_text()
    assert pair.host.public_line().split()[1] in pinned
    found = link.read(lab.vm_folder)
    assert found is not None
    assert (found.root, found.machine, found.provider, found.made) == (ROOT, "vagrant", "libvirt", True)
    assert checked(vagrantfile.prepare(bed.session(), "", "libvirt")) == document
    assert checked(vagrantfile.describe(bed.session(), "", "libvirt")) == document


def test_a_machine_that_is_there_keeps_its_ports(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = checked(vagrantfile.prepare(bed.session(), "", "libvirt"))["forwards"]
    bed.world.state = State.STOPPED
    monkeypatch.setattr(vagrantfile, "is_free", lambda _port: True)
    assert checked(vagrantfile.prepare(bed.session(), "", "libvirt"))["forwards"] == before
    monkeypatch.setattr(vagrantfile, "is_free", lambda port: port != before[0]["host_port"])
    with pytest.raises(BlockedError, match=f"host port {before[0]['host_port']}, which is taken"):
        vagrantfile.prepare(bed.session(), "", "libvirt")
    bed.world.state = State.RUNNING
    assert checked(vagrantfile.prepare(bed.session(), "", "libvirt"))["forwards"] == before


def test_a_lab_of_another_kind_is_left_alone(bed: Bed) -> None:
    up.up(bed.session(), "vagrant")
    with pytest.raises(UsageError, match="no machine of this Vagrantfile's"):
        vagrantfile.prepare(bed.session(), "vagrant", "libvirt")
    assert checked(vagrantfile.describe(bed.session(), "vagrant", "libvirt"))["prepared"] is False
    bed.world.state = State.ABSENT
    vagrantfile.prepare(bed.session(), "other", "virtualbox")
    with pytest.raises(UsageError, match="by libvirt"):
        vagrantfile.prepare(bed.session(), "other", "libvirt")


@pytest.fixture
def theirs(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine `vagrant` of this Vagrantfile that lab was not asked about."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    made = World(folder)
    made.run()
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(made.root / ".vagrant"))
    return made


def test_a_machine_that_lab_does_not_know_stays_somebody_elses(bed: Bed, theirs: World) -> None:
    with pytest.raises(UsageError, match="lab does not know it"):
        vagrantfile.prepare(bed.session(), "", "libvirt")
    assert bed.session().store.find("vagrant") is None, "nothing was made"
    theirs.state.write_text("none")
    vagrantfile.prepare(bed.session(), "", "libvirt")


def test_a_lab_without_its_machine_takes_nobody_elses(bed: Bed, theirs: World) -> None:
    """As after a `vagrant up` that was cut short: there is a record, and no link yet."""
    session = vagrantfile.by_vagrant(bed.session(), "libvirt")
    lab = session.store.place("vagrant")
    selection.record_for(session, lab)
    with pytest.raises(UsageError, match="lab does not know it"):
        vagrantfile.prepare(bed.session(), "", "libvirt")
    assert link.read(lab.vm_folder) is None, "lab.destroy would destroy what the link says lab made"
    # One with a link of a Vagrant that made nothing yet is no better.
    link.write(lab.vm_folder, link.VagrantLink(root=ROOT, machine="vagrant", provider="libvirt", made=True))
    with pytest.raises(UsageError, match="lab does not know it"):
        vagrantfile.prepare(bed.session(), "", "libvirt")


def test_a_machine_that_is_another_lab_is_not_prepared(bed: Bed) -> None:
    other = bed.session().store.place("mylab")
    known = link.VagrantLink(
        root=ROOT, machine="vagrant", provider="libvirt", made=False, forwards={"ssh": (1, 22)}
    )
    link.write(other.vm_folder, known)
    with pytest.raises(UsageError, match="is lab mylab already") as caught:
        vagrantfile.prepare(bed.session(), "", "libvirt")
    assert "forgets" in caught.value.hint
    assert bed.session().store.find("vagrant") is None
    vagrantfile.prepare(bed.session(), "", "virtualbox")


def test_a_lab_at_work_is_not_prepared(bed: Bed) -> None:
    vagrantfile.prepare(bed.session(), "", "libvirt")
    with bed.lab("vagrant").hold("lab.up"), pytest.raises(BusyError):
        vagrantfile.prepare(bed.session(), "", "libvirt")


def test_a_provider_that_cannot_be_used_leaves_nothing(bed: Bed) -> None:
    bed.world.available = Availability(False, "virsh not found", "install it")
    with pytest.raises(BlockedError, match="virsh not found"):
        vagrantfile.prepare(bed.session(), "", "libvirt")
    assert not (bed.folder / "state" / "labs").exists()
    with pytest.raises(UsageError, match="no Vagrant provider"):
        vagrantfile.prepare(bed.session(), "", "parallels")


def test_the_cell_is_the_hypervisors(bed: Bed) -> None:
    """lab.up on a machine by Vagrant: the engine of its cell is what the engine says, not the road."""
    vagrantfile.prepare(bed.session(), "", "virtualbox")
    bed.world.facts = dataclasses.replace(FACTS, engine="virtualbox", version="7.0.20 by Vagrant 2.3.4")
    cell = checked(up.up(bed.session(), "vagrant"))["cell"]
    assert (cell["engine"], cell["engine_version"]) == ("virtualbox", "7.0.20 by Vagrant 2.3.4")
    assert cell["nesting"] == Nesting.HARDWARE
    destroy(bed.session(), "vagrant")
    assert checked(vagrantfile.describe(bed.session(), "", "virtualbox"))["prepared"] is False


def test_the_box_of_what_a_lab_would_stand_on(bed: Bed) -> None:
    document = checked(box_command.box(bed.session(), "virtualbox"))
    (row,) = document["results"]
    assert (row["name"], row["result"]) == (f"lab/{IMAGE}-12g", "built")
    assert checked(box_command.box(bed.session(), "virtualbox"))["results"][0]["result"] == "cached"
    assert bed.session().store.labs() == []
    with pytest.raises(UsageError, match="no Vagrant provider"):
        box_command.box(bed.session(), "vmware")


def test_forwards_are_those_of_the_link(tmp_path: Path) -> None:
    known = link.VagrantLink(
        root=tmp_path, machine="m", provider="libvirt", made=True, forwards={"ssh": (1, 22)}
    )
    link.write(tmp_path, known)
    assert link.read(tmp_path) == known
    assert known.built_in == [Forward("ssh", 1, 22)]
