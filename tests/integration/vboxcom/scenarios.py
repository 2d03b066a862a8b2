"""What the worker is asked in a lab's life, each on every version. Every call must fit that version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.vboxcom.running import PNG
from tests.integration.vboxcom.worker import Fault, Worker

SCENARIOS: list[Callable[[Worker], None]] = []


def scenario(function: Callable[[Worker], None]) -> Callable[[Worker], None]:
    SCENARIOS.append(function)
    return function


def fault(kind: str, call: Callable[..., Any], *words: Any, **named: Any) -> Fault:
    """What `call` is refused with."""
    with pytest.raises(Fault) as caught:
        call(*words, **named)
    assert caught.value.kind == kind, caught.value
    return caught.value


def since(worker: Worker, version: str) -> bool:
    return worker.world.table.version >= version


@scenario
def describes(worker: Worker) -> None:
    said = worker.ask("describe")
    assert said["api"] == worker.world.table.version
    assert (said["version"], said["build"]) == (worker.world.release, worker.world.release + "_Debian")
    assert {name for name, has in said["features"].items() if has} == worker.world.features


@scenario
def creates(worker: Worker) -> None:
    assert worker.of("look") == {"state": "", "accessible": True, "settings": "", "holder": 0}
    record = worker.create(extra_data=["a/b=c=d", "e="])
    spec, number = worker.spec(), worker.world.number
    (made,) = worker.world.log.arguments("createMachine")
    platform = [number("PlatformArchitecture", "x86")] if since(worker, "7.1") else []
    encryption = ["", "", ""] if since(worker, "7.0") else []
    asked = [["/lab"], "Ubuntu_64", f"UUID={worker.uuid}"]
    assert list(made) == [spec["settings"], spec["name"], *platform, *asked, *encryption]
    found = record.settings
    assert (found["IMachine"]["CPUCount"], found["IMachine"]["memorySize"]) == (2, 2048)
    assert found["IMachine"]["boot"] == {str(place): 3 if place == 1 else 0 for place in (1, 2, 3, 4)}
    assert found["INetworkAdapter"]["attachmentType"] == number("NetworkAttachmentType", "NAT")
    assert found["INetworkAdapter"]["adapterType"] == number("NetworkAdapterType", "Virtio")
    assert found["INetworkAdapter"]["enabled"] and found["INetworkAdapter"]["cableConnected"]
    serial = {"enabled": True, "hostMode": number("PortMode", "RawFile"), "path": spec["console"]}
    assert found["ISerialPort"] == serial
    assert found["IGraphicsAdapter"]["graphicsControllerType"] == number("GraphicsControllerType", "VMSVGA")
    assert (found["usb"], found["IAudioAdapter"]["enabled"]) == ([], False)
    assert found["extra"] == {"lab/uuid": worker.uuid, "a/b": "c=d", "e": ""}
    (sata,) = found["controllers"]
    assert (sata["controllerType"], sata["portCount"]) == (number("StorageControllerType", "IntelAhci"), 2)
    disk, seed = record.attached()
    assert (str(disk.location), str(disk.parent and disk.parent.location)) == (spec["disk"], spec["base"])
    assert str(seed.location) == spec["seed"]
    assert not record.holders and worker.state == "PoweredOff"


@scenario
def finds_what_moved(worker: Worker) -> None:
    """7.0 moved the sound card, 7.1 what belongs to the platform and the firmware."""
    record = worker.create()
    owners = {name: interface for interface, name, _ in worker.world.log.calls}
    assert owners["setCPUProperty"] == ("IPlatformX86" if since(worker, "7.1") else "IMachine")
    assert owners["setHWVirtExProperty"] == ("IPlatformX86" if since(worker, "7.1") else "IMachine")
    assert owners["RTCUseUTC"] == ("IPlatform" if since(worker, "7.1") else "IMachine")
    assert owners["IOAPICEnabled"] == ("IFirmwareSettings" if since(worker, "7.1") else "IBIOSSettings")
    assert (("IAudioSettings", "adapter") in worker.world.log.used) == since(worker, "7.0")
    assert ("VMExecutionEngine" in owners) == since(worker, "7.1")
    enum = "CPUPropertyTypeX86" if since(worker, "7.1") else "CPUPropertyType"
    labels = ("PAE", "LongMode", "HWVirt")
    assert record.settings["cpu"] == {str(worker.world.number(enum, label)): True for label in labels}
    assert record.settings["IPlatform" if since(worker, "7.1") else "IMachine"]["RTCUseUTC"]
    assert record.settings["firmware"]["IOAPICEnabled"]


@scenario
def creates_again(worker: Worker) -> None:
    """Converges: a changed setting arrives, and nothing is there twice."""
    record = worker.create()
    assert worker.create(cpus=4, extra_data=["k=v"]) is record
    assert len(worker.world.log.arguments("createMachine")) == 1
    assert len(worker.world.log.arguments("attachDevice")) == 2
    assert len(record.settings["controllers"]) == 1
    assert record.settings["IMachine"]["CPUCount"] == 4 and record.settings["extra"]["k"] == "v"


@scenario
def opens_what_was_only_written(worker: Worker) -> None:
    """A crash between writing the settings file and registering it."""
    worker.create()
    del worker.world.records[worker.uuid]
    worker.create()
    (opened,) = worker.world.log.arguments("openMachine")
    assert list(opened) == [worker.spec()["settings"], *([""] if since(worker, "7.0") else [])]
    assert len(worker.world.log.arguments("createMachine")) == 1
    assert worker.state == "PoweredOff"


@scenario
def replaces_a_torn_file(worker: Worker) -> None:
    settings = worker.folder / "lab.vbox"
    settings.write_text("<VirtualBox")
    worker.create()
    assert (worker.folder / "lab.vbox.broken").read_text() == "<VirtualBox"
    assert worker.of("look")["settings"] == str(settings)


@scenario
def says_what_it_set(worker: Worker) -> None:
    for nested in (True, False):
        for paravirt, effective in (("kvm", "kvm"), ("none", "none"), ("default", "kvm")):
            worker.create(nested=nested, paravirt=paravirt, cpus=3, memory_mib=512)
            assert worker.of("settings") == {
                "cpus": "3",
                "memory_mib": "512",
                "nested": "on" if nested else "off",
                "nested_paging": "on",
                "paravirt": effective,
                "execution_engine": "default" if since(worker, "7.1") else "",
                "host_loopback": "out of reach" if since(worker, "7.0") else "within reach",
                "uuid": worker.uuid,
                "version": worker.world.release,
            }


@scenario
def sets_how_instructions_run(worker: Worker) -> None:
    worker.create()
    for asked, label in (("hwvirt", "HwVirt"), ("native", "NativeApi"), ("interpreter", "Interpreter")):
        if since(worker, "7.1"):
            record = worker.create(execution_engine=asked)
            assert record.settings["IMachine"]["VMExecutionEngine"] == worker.world.number(
                "VMExecutionEngine", label
            )
            assert worker.of("settings")["execution_engine"] == label.lower()
        else:
            refused = fault("failed", worker.create, execution_engine=asked)
            assert worker.world.release in refused.what and "7.1" in refused.hint
            assert not worker.record.holders
    worker.create()
    assert worker.state == "PoweredOff"


@scenario
def runs(worker: Worker) -> None:
    worker.create()
    record = worker.launch(("ssh", 10022, 22), ("adb", 15555, 5555))
    assert worker.state == "Running" and worker.of("look")["holder"] > 0
    assert [tuple(item.values()) for item in worker.of("forwards")] == [
        ("ssh", "127.0.0.1", 10022, 22),
        ("adb", "127.0.0.1", 15555, 5555),
    ]
    assert not record.holders, "it outlives the worker"
    worker.pause()
    assert worker.state == "Paused"
    worker.of("resume")
    assert worker.state == "Running"
    worker.world.polite = False
    worker.of("press")
    assert worker.state == "Running"
    assert [worker.of("power_off"), worker.of("power_off")] == [True, False]
    assert worker.state == "PoweredOff"
    worker.launch(("ssh", 10023, 22))
    assert [item["host_port"] for item in worker.of("forwards")] == [10023], "the old ones are gone"
    worker.pause()
    worker.world.polite = True
    worker.of("press")  # a paused VM is let run first, to hear it
    assert worker.state == "PoweredOff"


@scenario
def forwards_come_and_go_while_it_runs(worker: Worker) -> None:
    worker.create()
    record = worker.launch(("ssh", 10022, 22))
    second = {"name": "adb-second", "host_port": 15655, "guest_port": 5655}
    worker.of("forward", item=second)
    assert [item["name"] for item in worker.of("forwards")] == ["ssh", "adb-second"]
    worker.of("forward", item=second | {"host_port": 15656})
    moved = second | {"host_port": 15656, "address": "127.0.0.1"}
    assert worker.of("forwards")[1] == moved, "in the place of one of its name"
    for _ in range(2):
        worker.of("unforward", name="adb-second")
    assert [item["name"] for item in worker.of("forwards")] == ["ssh"]
    assert not record.holders and worker.state == "Running"


@scenario
def saves_and_comes_back(worker: Worker) -> None:
    worker.create()
    worker.launch()
    worker.of("save")
    assert worker.state == "Saved"
    assert "not mutable" in fault("failed", worker.create).tail
    worker.launch(("ssh", 10022, 22))
    assert worker.state == "Running"
    worker.pause()
    worker.of("save")
    assert worker.state == "Saved"


@scenario
def keeps_snapshots(worker: Worker) -> None:
    worker.create()
    assert worker.of("snapshots") == []
    worker.of("take", name="off")
    worker.launch()
    worker.of("take", name="live")
    assert worker.state == "Running"
    off, live = worker.of("snapshots")
    assert [(item["name"], item["live"]) for item in (off, live)] == [("off", False), ("live", True)]
    assert 1.7e9 < off["created"] < live["created"] < 1.8e9
    fault("busy", worker.of, "restore", identity=off["id"])  # only when it is off
    worker.of("power_off")
    worker.of("restore", identity=live["id"])
    assert worker.state == "Saved"
    worker.launch()
    assert worker.state == "Running"
    worker.of("power_off")
    worker.of("restore", identity=off["id"])
    assert worker.state == "PoweredOff"
    fault("missing", worker.of, "restore", identity="there is none")


@scenario
def goes_on_after_its_snapshot_was_deleted(worker: Worker) -> None:
    """By the user, in VirtualBox: whichever of the two disks VirtualBox leaves."""
    for into_child in (True, False):
        worker.world.merge_into_child = into_child
        worker.create()
        worker.launch()
        worker.of("take", name="x")
        (item,) = worker.of("snapshots")
        worker.delete_snapshot(item["id"])
        assert worker.of("snapshots") == [] and worker.state == "Running"
        worker.of("power_off")
        worker.create()
        worker.launch()
        assert worker.state == "Running"
        worker.destroy()
        assert worker.world.media == {}


@scenario
def converts_an_image(worker: Worker) -> None:
    """Into a VDI that VirtualBox forgets again, whatever an earlier try left."""
    source, target = worker.shared / "disk.vmdk", worker.shared / "base.part"
    source.write_text("an image")
    words = {"source": str(source), "target": str(target), "size": 12 << 30}
    for method in ("cloneToBase", "resize"):
        worker.world.broken[method] = "no space left"
        assert "no space left" in fault("failed", worker.ask, "convert", **words).tail
        del worker.world.broken[method]
        assert worker.world.media == {}
    target.write_text("half of it")
    worker.ask("convert", **words)
    assert worker.world.media == {} and source.read_text() == "an image"
    assert "half" not in target.read_text()
    ((size,), _) = worker.world.log.arguments("resize")
    assert size == 12 << 30
    worker.ask("convert", **(words | {"size": 1 << 30}))
    assert len(worker.world.log.arguments("resize")) == 2, "it has that size already"


@scenario
def shows_its_screen(worker: Worker) -> None:
    worker.create()
    worker.launch()
    target = worker.folder / "screen.png"
    for form in (bytes, list):
        worker.world.picture = form
        worker.of("screenshot", target=str(target))
        assert target.read_bytes() == PNG + b"720x400"


@scenario
def destroys(worker: Worker) -> None:
    """Whatever state it is in: its own files and registrations, and nobody else's."""
    other = Worker(worker.world, worker.folder.with_name("other"), worker.shared)
    other.create()
    for before in ("off", "running", "paused", "saved"):
        worker.create()
        worker.of("take", name="one")
        if before != "off":
            worker.launch()
            worker.of("take", name="two")
        if before in ("paused", "saved"):
            worker.pause() if before == "paused" else worker.of("save")
        worker.destroy()
        assert worker.state == ""
        left = {str(medium.location) for medium in worker.world.media.values()}
        assert left == {other.spec()["disk"], other.spec()["base"], other.spec()["seed"]}
    worker.destroy()  # again
    other.destroy()
    assert not worker.world.media and not worker.world.records
    assert all((worker.shared / name).exists() for name in ("base.vdi", "seed.iso"))


@scenario
def destroys_half_made(worker: Worker) -> None:
    """A disk that no machine has, and a machine whose settings are gone."""
    worker.create()
    del worker.world.records[worker.uuid]
    for medium in worker.world.media.values():
        medium.users.clear()
    worker.destroy()
    assert worker.world.media == {}

    worker.create()
    (worker.folder / "lab.vbox").unlink()
    worker.world.restart()
    file = str(worker.folder / "lab.vbox")
    assert worker.of("look") == {"state": "", "accessible": False, "settings": file, "holder": 0}
    for medium in worker.world.media.values():
        medium.users.clear()  # the new VBoxSVC does not know what it had
    worker.destroy()
    assert worker.state == "" and not worker.world.media
