"""VBoxManage's words: outputs of 6.1 and 7.0 as public reports hold them, and how failures are told."""

from __future__ import annotations

import string
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, BusyError, LabError
from lab.engines.protocol import NestingRefusedError
from lab.engines.virtualbox.manage import Manage, media, options, text
from lab.engines.virtualbox.manage.command import Program, explain
from lab.engines.virtualbox.manage.machine import settings_of
from lab.engines.virtualbox.manage.talk import Talk, inside, is_accessible, state_of
from lab.engines.virtualbox.transport import ForeignError, MissingError

# hashicorp/vagrant#11698 (2020, VirtualBox 6.1), personal details replaced.
SIX = """\
name="default"
groups="/"
ostype="Ubuntu (64-bit)"
UUID="6294f16b-4f05-4430-afb9-773bdb237aec"
CfgFile="/home/user/VirtualBox VMs/default/default.vbox"
hardwareuuid="a5ba528b-c51e-4fbb-a8d8-04c0d83e581d"
memory=2048
vram=128
cpu-profile="host"
cpus=2
pae="on"
longmode="on"
nested-hw-virt="off"
hwvirtex="on"
nestedpaging="on"
paravirtprovider="default"
effparavirtprovider="kvm"
VMState="poweroff"
VMStateChangeTime="2020-06-13T01:30:20.000000000"
storagecontrollername0="IDE"
storagecontrollername1="SCSI"
"SCSI-0-0"="/home/user/VirtualBox VMs/default/cloudimg.vmdk"
"SCSI-ImageUUID-0-0"="0f02919a-1cc3-469e-8722-d0d9f34e106a"
"SCSI-1-0"="none"
natnet1="nat"
Forwarding(0)="ssh,tcp,127.0.0.1,2222,,22"
Forwarding(1)="dns,udp,,5353,,53"
nic1="nat"
"""
# A public listing of 2023 (VirtualBox 7.0): `iommu` and the NVRAM's file are new in it.
SEVEN = """\
name="manjaro-gnome-x64-full-clean"
CfgFile="/home/user/VirtualBox VMs/full \\"clean\\"/full.vbox"
memory=4096
cpus=4
nested-hw-virt="on"
BIOS NVRAM File="/home/user/VirtualBox VMs/full/full.nvram"
nestedpaging="on"
virtvmsavevmload="on"
iommu="none"
paravirtprovider="default"
effparavirtprovider="kvm"
VMState="aborted-saved"
vmprocpriority="default"
storagecontrollername0="IDE"
storagecontrollername1="SATA"
"IDE-1-0"="emptydrive"
"IDE-IsEjected-1-0"="off"
"SATA-0-0"="/home/user/VirtualBox VMs/full/full.vdi"
"""
HDDS = """\
UUID:           a4c1f1c2-9d4b-4f5a-8b8f-0a1c7d3f4e55
Parent UUID:    base
State:          locked write
Type:           normal (base)
Location:       /cache/virtualbox/debian-13-12g.vdi
Storage format: VDI
Capacity:       12288 MBytes

UUID:           0e3c6b9c-5c9e-4a86-9e6d-6a0a2a9f9a01
Parent UUID:    a4c1f1c2-9d4b-4f5a-8b8f-0a1c7d3f4e55
State:          created
Location:       /labs/default/vm/disk.vdi
"""


def test_what_6_1_says() -> None:
    described = text.fields(SIX)
    assert state_of(described) == "PoweredOff"
    assert is_accessible(described)
    assert described["SCSI-0-0"] == "/home/user/VirtualBox VMs/default/cloudimg.vmdk"
    assert settings_of(described) == {
        "cpus": "2",
        "memory_mib": "2048",
        "nested": "off",
        "nested_paging": "on",
        "paravirt": "kvm",
        "uuid": "6294f16b-4f05-4430-afb9-773bdb237aec",
        "host_loopback": "within reach",
    }
    assert text.redirects(described) == [
        {"name": "ssh", "address": "127.0.0.1", "host_port": 2222, "guest_port": 22}
    ]


def test_what_7_0_says() -> None:
    described = text.fields(SEVEN)
    assert state_of(described) == "AbortedSaved"
    assert described["CfgFile"] == '/home/user/VirtualBox VMs/full "clean"/full.vbox'
    assert described["IDE-1-0"] == "emptydrive"
    assert settings_of(described)["nested"] == "on"


def test_a_state_nobody_knows_is_an_error() -> None:
    with pytest.raises(LabError, match="does not know: dreaming"):
        state_of({"VMState": "dreaming"})
    assert not is_accessible({"name": "<inaccessible>"})


KEYS = st.text(string.ascii_letters + string.digits + " -()", min_size=1).filter(
    lambda key: key.strip() == key
)
VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]))


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_any_value_comes_back_whole(values: dict[str, str]) -> None:
    def quoted(words: str) -> str:
        return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = [f"{quoted(key)}={quoted(value)}" for key, value in values.items()]
    assert text.fields("\n".join(["WARNING: no driver", *lines, ""])) == values


@given(st.text())
def test_nothing_it_prints_breaks_the_reading(output: str) -> None:
    text.fields(output)
    text.disks(output)
    text.features(output)
    text.version(output)
    assert explain(output, "trying").what


def test_disks_with_what_they_stand_on() -> None:
    base, difference = text.disks(HDDS)
    assert (base.parent, difference.parent) == ("", base.uuid)
    assert difference.location == "/labs/default/vm/disk.vdi"


WARNED = """\
WARNING: The character device /dev/vboxdrv does not exist.
         Please install the virtualbox-dkms package

         You will not be able to start VMs until this problem is fixed.
UUID:           {uuid}
Parent UUID:    {parent}
"""
DISKS = """
case "$*" in
*/base.vdi) echo opened >"$0.base"; cat "$0.about-base"; exit ;;
*/disk.vdi) [ -e "$0.base" ] || { echo "VBoxManage: error: Parent medium is not found" >&2; exit 1; }
    cat "$0.about-disk"; exit ;;
esac
"""


@pytest.mark.parametrize("parent", ["uuid-of-base", "another"])
def test_a_disk_that_is_there_is_taken_if_it_stands_on_the_base(home: Path, parent: str) -> None:
    """Its base is opened first, without which no difference can be; a warning is no answer."""
    program, base, disk = home / "VBoxManage", home / "base.vdi", home / "disk.vdi"
    head, rest = SCRIPT.split("\n", 1)
    program.write_text(f"{head}\n{DISKS}{rest}")
    for name, uuid, above in (("base", "uuid-of-base", "base"), ("disk", "uuid-of-disk", parent)):
        (home / f"VBoxManage.about-{name}").write_text(WARNED.format(uuid=uuid, parent=above))
        (home / f"{name}.vdi").touch()
    talk = Talk(Program(program), ("7.2.22", ""), Deadline.after(30))
    with nullcontext() if parent == "uuid-of-base" else pytest.raises(LabError, match="another image"):
        media._difference(talk, str(base), str(disk))


def test_what_the_host_can_do_as_far_as_the_version_tells() -> None:
    features = text.features(
        "Processor supports HW virtualization: yes\nProcessor supports nested HW virtualization: no\n"
    )
    assert features == {
        "HWVirtEx": True,
        "NestedHWVirt": False,
        "NestedPaging": False,
        "UnrestrictedGuest": False,
        "LongMode": False,
    }


@pytest.mark.parametrize(
    ("output", "wanted"),
    [
        ("6.1.50r161033\n", ("6.1.50", "6.1.50r161033")),
        ("WARNING: The character device\n\n7.2.22_Debianr175245\n", ("7.2.22", "7.2.22_Debianr175245")),
        ("no such thing", ("", "")),
    ],
)
def test_versions(output: str, wanted: tuple[str, str]) -> None:
    assert text.version(output) == wanted


@pytest.mark.parametrize(
    ("attributes", "engine"), [('executionEngine="Interpreter"', "interpreter"), ("", "default")]
)
def test_how_instructions_are_run_stands_in_the_settings_file(
    tmp_path: Path, attributes: str, engine: str
) -> None:
    settings = tmp_path / "lab.vbox"
    settings.write_text(
        f'<VirtualBox xmlns="http://www.virtualbox.org/"><Machine {attributes}/></VirtualBox>'
    )
    assert text.execution_engine(settings) == engine


def test_snapshots_are_read_from_the_settings_file(tmp_path: Path) -> None:
    settings = tmp_path / "lab.vbox"
    settings.write_text(
        '<VirtualBox xmlns="http://www.virtualbox.org/"><Machine><Snapshot uuid="{a}" name="one" '
        'timeStamp="2026-12-01T03:00:00Z"><Snapshots><Snapshot uuid="{b}" name="two, live" '
        'timeStamp="2026-12-01T04:00:00Z" stateFile="Snapshots/x.sav"/></Snapshots>'
        "</Snapshot></Machine></VirtualBox>"
    )
    one, two = text.snapshots(settings)
    assert (one["name"], one["id"], one["live"]) == ("one", "a", False)
    assert (two["name"], two["id"], two["live"]) == ("two, live", "b", True)
    assert two["created"] - one["created"] == 3600


def test_how_instructions_are_run_is_read_back_from_7_1_on(home: Path) -> None:
    settings, program = home / "lab.vbox", home / "VBoxManage"
    head = '<VirtualBox xmlns="http://www.virtualbox.org/"><Machine uuid="{a}"'
    (home / "VBoxManage.info").write_text(f'VMState="running"\nCfgFile="{settings}"\n')
    for version, content, wanted in (
        ("7.0.26", "", ""),
        ("7.2.22", f"{head}/></VirtualBox>", "default"),
        ("7.2.22", head, ""),  # torn
    ):
        settings.write_text(content)
        program.write_text(SCRIPT.replace("7.0.26", version))
        assert Manage(home).call("settings", uuid="u")["execution_engine"] == wanted


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (
            "VBoxManage: error: Could not find a registered machine named 'x'\n"
            "VBoxManage: error: Details: code VBOX_E_OBJECT_NOT_FOUND (0x80bb0001), component VirtualBoxWrap",
            "missing",
        ),
        (
            "VBoxManage: error: The machine 'x' is already locked for a session (or being unlocked)\n"
            "VBoxManage: error: Details: code VBOX_E_INVALID_OBJECT_STATE (0x80bb0007), component X",
            "busy",
        ),
        (
            "VBoxManage: error: Cannot enable nested VT-x/AMD-V without nested-paging and unrestricted guest "
            "execution! (VERR_CPUM_INVALID_HWVIRT_CONFIG)\n"
            "VBoxManage: error: Details: code NS_ERROR_FAILURE (0x80004005), component ConsoleWrap",
            "nesting",
        ),
        ("VBoxManage: error: Failed to create the VirtualBox object!\n(0x80004004)", "dead"),
        ("VBoxManage: error: Something new", "failed"),
        ("", "failed"),
    ],
)
def test_a_failure_is_told_by_its_code_and_virtualboxes_words(output: str, kind: str) -> None:
    fault = explain("0%...10%...\n" + output, "trying")
    assert fault.kind == kind
    assert "trying" in fault.what or kind == "nesting"
    assert "0%..." not in fault.tail


def test_options_by_version() -> None:
    assert options.created((7, 0)) == []
    assert options.created((7, 1)) == ["--platform-architecture", "x86"]
    assert options.closed_to_localhost((6, 1)) == []
    assert options.closed_to_localhost((7, 0)) == ["--nat-localhostreachable1", "off"]
    assert options.execution_engine((6, 1), "default") == []
    assert options.execution_engine((7, 0), "native") is None
    assert options.execution_engine((7, 2), "native") == ["--vm-execution-engine", "native-api"]
    assert options.silent((6, 1)) == ["--audio", "none"]


def test_a_file_is_inside_by_its_real_place(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "lab")
    assert inside(str(tmp_path / "link" / "a.vdi"), str(tmp_path / "lab"))
    assert not inside(str(tmp_path / "lab" / ".." / "a.vdi"), str(tmp_path / "lab"))
    assert not inside("", str(tmp_path / "lab"))


SCRIPT = """\
#!/bin/sh
printf '%s\\n' "$LC_ALL $*" >>"$0.calls"
case "$*" in
--version) echo 7.0.26r168464 ;;
showvminfo*) cat "$0.info" ;;
*) if [ -e "$0.fail" ]; then cat "$0.fail" >&2; [ -e "$0.once" ] && rm "$0.fail"; exit 1; fi ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A program folder with a VBoxManage that writes down what it is asked."""
    program = tmp_path / "VBoxManage"
    program.write_text(SCRIPT)
    program.chmod(0o755)
    (tmp_path / "VBoxManage.info").write_text(f'VMState="running"\nCfgFile="{tmp_path}/vm/lab.vbox"\n')
    return tmp_path


def test_it_is_asked_in_english_and_with_the_operations_deadline(home: Path) -> None:
    transport = Manage(home)
    assert transport.call("look", uuid="u")["state"] == "Running"
    assert "C showvminfo u --machinereadable" in (home / "VBoxManage.calls").read_text().splitlines()
    assert transport.call("describe")["version"] == "7.0.26"


def test_a_busy_vm_is_asked_again(home: Path) -> None:
    busy = (
        "VBoxManage: error: The machine is already locked\nVBoxManage: error: Details: code X (0x80bb0007)\n"
    )
    (home / "VBoxManage.fail").write_text(busy)
    (home / "VBoxManage.once").touch()
    Manage(home).call("save", uuid="u")
    calls = (home / "VBoxManage.calls").read_text()
    assert calls.count("controlvm u savestate") == 2


def test_a_refused_start_is_nestings_own_error(home: Path) -> None:
    (home / "VBoxManage.info").write_text('VMState="poweroff"\n')
    (home / "VBoxManage.fail").write_text("VBoxManage: error: no (VERR_CPUM_INVALID_HWVIRT_CONFIG)\n")
    with pytest.raises(NestingRefusedError):
        Manage(home).call("launch", uuid="u", forwards=[])


def test_a_vm_elsewhere_is_not_touched(home: Path) -> None:
    with pytest.raises(ForeignError, match="not lab's"):
        Manage(home).call("destroy", uuid="u", folder=str(home / "other"), base="", seed="")
    assert "unregistervm" not in (home / "VBoxManage.calls").read_text()


def test_a_program_that_is_not_there_is_blocked(tmp_path: Path) -> None:
    with pytest.raises(BlockedError, match="cannot be run"):
        Manage(tmp_path / "nowhere").call("look", Deadline.after(5), uuid="u")


def test_the_errors_are_of_labs_kinds() -> None:
    assert issubclass(MissingError, LabError)
    assert issubclass(BusyError, LabError)
