"""The engine by way of Vagrant: what is read of Vagrant, libvirt and VBoxManage, and what a machine does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from virtualbox.library import MachineState

from lab import engines
from lab.core import proc, versions
from lab.core.deadline import Deadline
from lab.core.errors import InconclusiveError, LabError, UsageError
from lab.core.journal import Journal
from lab.engines.options import Options, QemuOptions, VirtualBoxOptions
from lab.engines.protocol import Forward, MachineSpec, PortTakenError, State
from lab.engines.qemu.command import cpu_model
from lab.engines.vagrant import INNER, link, plan, program, vboxmanage
from lab.engines.vagrant.engine import VagrantEngine
from lab.engines.vagrant.libvirt import VagrantLibvirt, state
from lab.engines.vagrant.link import VagrantLink
from lab.engines.vagrant.machine import VagrantMachine
from lab.engines.virtualbox.host import Installed
from lab.engines.virtualbox.manage.machine import settings_of
from lab.engines.virtualbox.manage.text import fields
from tests.unit import fakes
from tests.unit.fakes import FakeEngine
from tests.unit.vagrant_world import World

SSH = Forward("ssh", 10022, 22)
ADB = Forward("adb", 15555, 5555)
SSH_CONFIG = """\
Host vagrant
  HostName 127.0.0.1
  User lab
  Port 10022
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "/state/of lab/id_ed25519"
  IdentitiesOnly yes
  LogLevel FATAL
"""
DOMAIN = """\
Id:             1
Name:           lab-vagrant
UUID:           5f1f3c80-3c0f-4d0e-9b55-7a1f2d7a9c11
State:          {state}
CPU(s):         2
Managed save:   {saved}
"""
SHOWVMINFO = """\
name="lab-vagrant"
UUID="5f1f3c80-3c0f-4d0e-9b55-7a1f2d7a9c11"
LogFldr="/vms/lab-vagrant/Logs"
memory=4096
cpus=2
nestedpaging="on"
nested-hw-virt="on"
paravirtprovider="kvm"
effparavirtprovider="kvm"
VMState="running"
"SATA-0-0"="/vms/disk.vmdk"
Forwarding(0)="adb,tcp,127.0.0.1,15555,,5555"
Forwarding(1)="ssh,tcp,127.0.0.1,10022,,22"
Forwarding(2)="open,tcp,,8080,,80"
"""


def spec(folder: Path, **changes: object) -> MachineSpec:
    values: dict[str, object] = {
        "uuid": "u",
        "name": "vagrant",
        "folder": folder / "vm",
        "base_disk": folder / "disk.qcow2",
        "seed": folder / "seed.iso",
        "cpus": 2,
        "memory_mib": 4096,
        "disk_gib": 12,
    }
    return MachineSpec(**(values | changes))  # type: ignore[arg-type]


# --- Vagrant -------------------------------------------------------------------------------------


def test_machine_readable_lines_are_of_their_machine() -> None:
    lines = "1,other,state,running\n2,vagrant,provider-name,libvirt\n3,vagrant,state,not_created\n4,,ui,x\n"
    assert program.told(lines, "vagrant") == {"provider-name": "libvirt", "state": "not_created"}
    assert program.told("5,vagrant,state-human-long,a%!(VAGRANT_COMMA) b\\nc", "vagrant") == {
        "state-human-long": "a, b\nc"
    }


@given(some.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    program.told(text, "vagrant")
    vboxmanage.forwards(fields(f'Forwarding(0)="{text}"'))


def test_ssh_config_says_how_to_log_in() -> None:
    assert program.entrance(SSH_CONFIG, "vagrant") == program.Entrance(
        "127.0.0.1", 10022, "lab", (Path("/state/of lab/id_ed25519"),)
    )


_WARNINGS = """\
There were warnings and/or errors while loading your Vagrantfile.
compatible, there are some cases where things have changed

  Port 1
Warnings:
* `config.vm.customize` calls are VirtualBox-specific. If you're

"""
_BLOCK = """\
Host default
  HostName 127.0.0.1
  User vagrant
  Port 2222
  StrictHostKeyChecking no
  IdentityFile /home/user/.vagrant.d/insecure_private_key
  IdentityFile "/home/a user/second"
  IdentitiesOnly yes
"""


def test_an_ssh_config_is_read_within_vagrants_warnings_with_all_its_keys() -> None:
    keys = (Path("/home/user/.vagrant.d/insecure_private_key"), Path("/home/a user/second"))
    wanted = program.Entrance("127.0.0.1", 2222, "vagrant", keys)
    after = "==> vagrant: A new version of Vagrant is available: 2.4.9!\n  User root\n"
    assert program.entrance(_WARNINGS + _BLOCK + "\n" + after, "default") == wanted
    assert program.entrance("Host other\n  User x\n  Port 9\n" + _BLOCK, "default") == wanted


@pytest.mark.parametrize(
    ("config", "lacking"),
    [
        ("Host default\n  HostName 127.0.0.1\n", "user, private key"),
        (
            "Host default\n  HostName 127.0.0.1\n  User vagrant\n  Port 2222\n  IdentityFile \n"
            "  IdentitiesOnly yes\n",
            "private key",
        ),
        (_BLOCK.replace("Port 2222", "Port twenty"), "port, but 'twenty'"),
        (_WARNINGS, "hostname, user, private key"),
        ("", "hostname, user, private key"),
    ],
)
def test_an_ssh_config_that_lacks_something_is_an_error_with_vagrants_words(
    config: str, lacking: str
) -> None:
    with pytest.raises(UsageError, match=f"does not say how to log in: it names no {lacking}$") as caught:
        program.entrance(config, "default")
    assert caught.value.tail == proc.tail(config)


@given(some.text(), some.text())
def test_any_words_of_vagrants_give_a_way_in_or_the_error_that_shows_them(before: str, inside: str) -> None:
    with contextlib.suppress(UsageError):
        assert program.entrance(f"{before}\n{_BLOCK}  {inside}\n", "default").keys


def test_the_id_is_where_vagrant_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAGRANT_DOTFILE_PATH", raising=False)
    known = program.Vagrant(tmp_path, "vagrant")
    assert known.identity("libvirt") == ""
    place = tmp_path / ".vagrant/machines/vagrant/libvirt"
    place.mkdir(parents=True)
    (place / "id").write_text("an-id\n")
    assert known.identity("libvirt") == "an-id"
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "elsewhere"))
    assert known.identity("libvirt") == ""


# --- the hypervisors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "saved", "expected"),
    [
        ("running", "no", State.RUNNING),
        ("paused", "no", State.PAUSED),
        ("shut off", "no", State.STOPPED),
        ("shut off", "yes", State.SUSPENDED),
        ("crashed", "no", State.CRASHED),
    ],
)
def test_the_state_libvirt_tells(said: str, saved: str, expected: State) -> None:
    assert state(DOMAIN.format(state=said, saved=saved)) is expected


def test_a_state_nobody_knows_is_an_error() -> None:
    with pytest.raises(LabError, match="does not know"):
        state(DOMAIN.format(state="dreaming", saved="no"))


def _spelled(state: str) -> str:
    """VBoxManage's word for a MachineState of VirtualBox's interface."""
    special = {
        "PoweredOff": "poweroff",
        "Stuck": "gurumeditation",
        "DeletingSnapshotOnline": "deletingsnapshotlive",
        "DeletingSnapshotPaused": "deletingsnapshotlivepaused",
    }
    return special.get(state, state.lower())


NUMBERS = {name: number for name, number, _ in MachineState._enums}
BOUNDS = ("Null", "FirstOnline", "LastOnline", "FirstTransient", "LastTransient")


@pytest.mark.parametrize("name", sorted(NUMBERS.keys() - set(BOUNDS)))
def test_every_state_of_virtualboxs_interface_is_known(world: World, name: str) -> None:
    world.state.write_text(_spelled(name))
    online = NUMBERS["FirstOnline"] <= NUMBERS[name] <= NUMBERS["LastOnline"]
    found = vboxmanage.VagrantVirtualBox("id").state()
    assert (found is State.STOPPED) == (not online and name != "Saved"), "online: a process has the machine"


def test_a_machine_whose_snapshot_is_taken_or_deleted_still_runs(world: World) -> None:
    for word in ("livesnapshotting", "onlinesnapshotting", "deletingsnapshotlive", "teleporting"):
        world.state.write_text(word)
        assert vboxmanage.VagrantVirtualBox("id").state() is State.RUNNING
    world.state.write_text("deletingsnapshotlivepaused")
    assert vboxmanage.VagrantVirtualBox("id").state() is State.PAUSED
    world.state.write_text("none")
    assert vboxmanage.VagrantVirtualBox("id").state() is State.ABSENT
    world.state.write_text("dreaming")
    with pytest.raises(LabError, match="does not know: dreaming"):
        vboxmanage.VagrantVirtualBox("id").state()


def test_a_machine_with_another_network_can_be_given_no_forward(world: World) -> None:
    world.run()
    libvirt, virtualbox = VagrantLibvirt("id"), vboxmanage.VagrantVirtualBox("id")
    assert (libvirt.why_no_forwards(), virtualbox.why_no_forwards()) == ("", "")
    world.say("network", "net0", "hostnet0")
    assert libvirt.why_no_forwards().endswith("called net0: those there are called hostnet0")
    world.say("network", "hostnet0", "")
    assert libvirt.why_no_forwards().endswith("called net0: there is none")
    world.say("showvminfo", 'nic1="nat"', 'nic1="bridged"')
    assert "not VirtualBox's NAT, but: bridged" in virtualbox.why_no_forwards()


def test_what_vboxmanage_tells() -> None:
    described = fields(SHOWVMINFO)
    assert settings_of(described) == {
        "cpus": "2",
        "memory_mib": "4096",
        "nested": "on",
        "nested_paging": "on",
        "paravirt": "kvm",
        "uuid": "5f1f3c80-3c0f-4d0e-9b55-7a1f2d7a9c11",
        "host_loopback": "within reach",
    }
    assert vboxmanage.forwards(described) == [ADB, SSH], "one that is not the loopback's is none"
    assert described["SATA-0-0"] == "/vms/disk.vmdk"


# --- the plan ------------------------------------------------------------------------------------


def test_libvirt_gets_the_cpu_of_labs_own_engine(tmp_path: Path) -> None:
    found = plan.libvirt(spec(tmp_path), [SSH, ADB], QemuOptions(acceleration="tcg"))
    words = dict(zip(found["arguments"][::2], found["arguments"][1::2], strict=True))
    assert found["driver"] == "qemu"
    assert words["-cpu"] == cpu_model("tcg", True, "kvm")
    assert "svm=on" in words["-cpu"]
    assert "hostfwd=tcp:127.0.0.1:10022-:22,hostfwd=tcp:127.0.0.1:15555-:5555" in words["-netdev"]
    real = plan.libvirt(spec(tmp_path, nested=False), [], QemuOptions(acceleration="kvm"))
    assert (real["driver"], real["cpu_mode"], real["cpu_model"]) == ("kvm", "host-passthrough", "")
    assert real["arguments"][1] == cpu_model("kvm", False, "kvm")


def test_virtualbox_is_set_as_labs_own_engine_sets_it(tmp_path: Path) -> None:
    options = VirtualBoxOptions(execution_engine="interpreter", extra_data=["VBoxInternal/A=1=2"])
    words = plan.virtualbox(spec(tmp_path), tmp_path / "console.log", options)["customize"]
    assert ["modifyvm", ":id", "--paravirtprovider", "kvm"] in words
    assert ["modifyvm", ":id", "--nested-hw-virt", "on"] in words
    assert ["modifyvm", ":id", "--nestedpaging", "on"] in words
    assert ["modifyvm", ":id", "--vm-execution-engine", "interpreter"] in words
    assert ["setextradata", ":id", "VBoxInternal/A", "1=2"] in words
    assert words[-2][-2:] == ["--medium", str(tmp_path / "seed.iso")]


@pytest.mark.parametrize(
    ("version", "closed"), [("7.2.22_Debianr1", True), ("7.0.0r1", True), ("6.1.50r1", False)]
)
def test_the_hosts_loopback_is_closed_where_virtualbox_can(
    tmp_path: Path, version: str, closed: bool
) -> None:
    console, there = tmp_path / "console.log", Installed(tmp_path, version)
    words = plan.virtualbox(spec(tmp_path), console, VirtualBoxOptions(), lambda _: there)["customize"]
    assert (["modifyvm", ":id", "--nat-localhostreachable1", "off"] in words) is closed


# --- the machine ---------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    monkeypatch.delenv("VAGRANT_DOTFILE_PATH", raising=False)
    return made


@pytest.fixture
def make(world: World) -> Callable[..., VagrantMachine]:
    def build(made: bool = True) -> VagrantMachine:
        machine = VagrantMachine(spec(world.folder), Journal(world.folder / "journal.jsonl"))
        machine.create()
        ports = {"ssh": (10022, 22)}
        known = VagrantLink(root=world.root, machine="vagrant", provider="libvirt", made=made, forwards=ports)
        link.write(machine.spec.folder, known)
        return machine

    return build


def test_a_machine_is_told_to_vagrant_and_asked_of_the_hypervisor(
    world: World, make: Callable[..., VagrantMachine]
) -> None:
    machine = make()
    assert machine.status() is State.ABSENT
    assert machine.forwards() == []
    machine.start([SSH, ADB])
    assert machine.status() is State.RUNNING
    assert set(machine.forwards()) == {SSH, ADB}, "the one it was not made with was opened while it ran"
    machine.start([SSH])
    assert machine.stop(Deadline.after(20)) == "graceful"
    assert machine.stop(Deadline.after(20)) == "already"
    machine.start([SSH])
    machine.suspend()
    assert machine.status() is State.SUSPENDED
    assert machine.stop(Deadline.after(20)) == "already", "its memory is kept"
    machine.resume([SSH])
    machine.destroy()
    assert machine.status() is State.ABSENT
    verbs = ["up", "halt", "up", "suspend", "resume", "destroy"]
    assert [line.split()[:2] for line in world.asked()] == [[verb, "vagrant"] for verb in verbs]
    assert "--no-provision" in world.asked()[0], "provisioning is lab's, and lab is the caller"


def test_the_settings_are_qemus_own(make: Callable[..., VagrantMachine]) -> None:
    machine = make()
    machine.start([SSH])
    found = machine.settings()
    assert (found["cpus"], found["memory_mib"], found["nested"], found["acceleration"]) == (
        "2",
        "3072",
        "on",
        "tcg",
    )
    assert found["vagrant_provider"] == "libvirt"


def test_what_happens_outside_of_lab_is_seen(world: World, make: Callable[..., VagrantMachine]) -> None:
    machine = make()
    machine.start([SSH])
    world.state.write_text("shut off")
    assert machine.status() is State.STOPPED
    assert machine.settings() == {}
    world.state.write_text("none")
    assert machine.status() is State.ABSENT


def test_a_machine_that_does_not_halt_is_forced(world: World, make: Callable[..., VagrantMachine]) -> None:
    machine = make()
    machine.start([SSH])
    (world.folder / "deaf").touch()
    assert machine.stop(Deadline.after(0.5)) == "forced"
    assert machine.status() is State.STOPPED


def test_the_ssh_port_is_the_machines_for_good(make: Callable[..., VagrantMachine]) -> None:
    machine = make()
    machine.start([SSH])
    machine.stop(Deadline.after(20))
    with pytest.raises(PortTakenError) as caught:
        machine.start([Forward("ssh", 10023, 22)])
    assert caught.value.ports == [10022]


def test_a_port_that_is_taken_is_told_from_a_network_that_is_not_there(
    world: World, make: Callable[..., VagrantMachine]
) -> None:
    machine = make()
    machine.start([SSH])
    (world.folder / "taken").touch()
    with pytest.raises(PortTakenError) as taken:
        machine.add_forward(ADB)
    assert (taken.value.ports, "another program" in taken.value.hint) == ([15555], True)
    world.say("network", "net0", "hostnet0")
    with pytest.raises(LabError, match="unrecognized netdev id 'net0'") as caught:
        machine.add_forward(ADB)
    assert not isinstance(caught.value, PortTakenError)


def test_snapshots_are_vagrants(make: Callable[..., VagrantMachine]) -> None:
    machine = make()
    for ask in (
        lambda: machine.snapshot("good"),
        lambda: machine.restore("good", []),
        machine.snapshots,
    ):
        with pytest.raises(UsageError, match="Vagrant's") as caught:
            ask()
        assert "vagrant snapshot" in caught.value.hint


def test_a_machine_that_lab_did_not_make_is_not_destroyed(
    world: World, make: Callable[..., VagrantMachine]
) -> None:
    machine = make(made=False)
    machine.start([SSH])
    machine.destroy()
    assert [line.split()[0] for line in world.asked()] == ["up"]
    assert world.state.read_text().strip() == "running"


def test_a_lab_that_lost_its_link_says_what_to_do(tmp_path: Path) -> None:
    machine = VagrantMachine(spec(tmp_path), Journal(tmp_path / "journal.jsonl"))
    assert machine.status() is State.ABSENT
    with pytest.raises(LabError) as caught:
        machine.start([SSH])
    assert "lab.attach" in caught.value.hint


def test_a_machine_whose_link_was_lost_is_not_said_to_be_gone(
    world: World, make: Callable[..., VagrantMachine]
) -> None:
    machine = make(made=True)
    machine.start([SSH])
    (machine.spec.folder / link.FILE).unlink()
    with pytest.raises(InconclusiveError, match="was lost") as caught:
        machine.destroy()
    assert "vagrant destroy" in caught.value.hint and any(machine.spec.folder.iterdir())


# --- the engine ----------------------------------------------------------------------------------


def test_auto_never_takes_it(tmp_path: Path) -> None:
    assert not set(INNER) & set(engines.names())
    for name in INNER:
        assert engines.engine(name, Options(tmp_path)).name == name


def test_the_facts_are_the_inner_engines_with_the_way_it_came_by(world: World) -> None:
    by_vagrant = VagrantEngine("vagrant-libvirt", FakeEngine(fakes.World()))
    found = by_vagrant.facts()
    assert (found.engine, found.version) == ("libvirt-qemu", "7.2 by Vagrant 2.3.4 and libvirt 9.0.0")
    assert versions.numbers(found.version) == (7, 2), "it is compared as QEMU's"
    assert (found.acceleration, found.nesting) == ("kvm", "hardware")
    assert "by Vagrant" in found.how
    assert VagrantEngine("vagrant-virtualbox", FakeEngine(fakes.World())).facts().engine == "qemu"


def test_root_has_no_session_of_libvirts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    by_vagrant = VagrantEngine("vagrant-libvirt", FakeEngine(fakes.World()))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert "root" in by_vagrant.availability().why
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert by_vagrant.availability().usable


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = engines.engine("vagrant-libvirt", Options(tmp_path)).availability()
    assert not found.usable
    assert found.why == "vagrant and virsh not found"
    assert "apt-get install vagrant" in found.hint
