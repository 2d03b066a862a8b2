"""lab's own commands, as they are started on recorded Macs (darwin/README.md), with the real VirtualBox."""

from __future__ import annotations

import hashlib
import json
import os
import plistlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import certifi
import pytest
from bootsector import VIRTUALBOX, base_disk, free_port
from imageserver import ImageServer, Served, image_server, make_certificate

from lab.core import proc
from lab.core.deadline import Deadline
from tests import schema
from tests.checkout import copy_project
from tests.integration.darwin import CHECKOUT, HOME, MACS, Completed, Masked, app, disguise
from tests.integration.vboxroot import Root, mounted
from tests.signing import Signer

pytestmark = pytest.mark.slow

STATE = HOME / "Library/Application Support/lab"
INTEL = [name for name, mac in MACS.items() if mac.intel]
FOREIGN = (
    "None",
    "apt-get",
    "apt install",
    "mmdebstrap",
    "modprobe",
    "vboxdrv",
    "/proc",
    "slirp4netns",
    "uidmap",
)
"""What no Mac can have, or do."""
FOLDER = "/releases/test"
DISK = "disk.vmdk"


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A short path: that of a unix socket is limited."""
    if os.geteuid() != 0:
        pytest.skip("only root can change what a process sees")
    folder = Path(tempfile.mkdtemp(prefix="lab-mac-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def checkout(base: Path) -> Path:
    folder = base / "checkout"
    copy_project(folder)
    return folder


@pytest.fixture(scope="module")
def new(base: Path, checkout: Path) -> Callable[..., Masked]:
    """Makes a Mac with a checkout of lab, and nothing else of its person's."""

    def make(name: str, folder: str, **env: str) -> Masked:
        place = base / folder
        shutil.copytree(checkout, place / "home/src/lab", symlinks=True)
        return disguise(MACS[name], place / "root", place / "home", **env)

    return make


# --- a Mac that has nothing yet ----------------------------------------------------------------


TASKS = {
    "doctor": ("lab.doctor",),
    "doctor --json": ("lab.doctor", "--json"),
    "explain": ("theory.explain", "--json"),
    "print": ("nightly.install", "--print"),
    "config": ("lab.config", "--json"),
    "list": ("lab.list", "--json"),
    "destroy": ("lab.destroy", "--json"),
}


@dataclass(frozen=True)
class Bare:
    masked: Masked
    answers: dict[str, Completed]


@pytest.fixture(scope="module", params=MACS)
def bare(request: pytest.FixtureRequest, new: Callable[..., Masked]) -> Bare:
    """What every task answers on a Mac with Homebrew and neither VirtualBox nor QEMU."""
    masked = new(request.param, f"bare-{request.param}")
    brew = masked.root / "usr/local/bin/brew"
    brew.write_text("#!/bin/sh\necho brew was called >&2\nexit 1\n")
    brew.chmod(0o755)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = dict(zip(TASKS, pool.map(lambda words: masked.lab(*words), TASKS.values()), strict=True))
    return Bare(masked, answers)


def test_doctor_names_nothing_that_a_mac_cannot_have(bare: Bare) -> None:
    done = bare.answers["doctor"]
    mac = bare.masked.mac
    assert done.status == 11, done.err
    assert f"macOS {mac.product[1]}" in done.out and mac.sysctl["machdep.cpu.brand_string"] in done.out
    assert [word for word in FOREIGN if word in done.out] == []
    assert str(STATE) in done.out
    document = bare.answers["doctor --json"].document
    schema.validate(document)
    usable = {row["name"]: row["usable"] for row in document["engines"]}
    assert usable == {"virtualbox": False, "qemu": False}
    absent = [row for row in document["packages"] if not row["present"]]
    assert [row["program"] for row in absent if not row["package"]] == []
    memory = next(check for check in document["checks"] if check["name"] == "memory")
    assert memory["status"] == "ok", "it has more than the VM takes, whatever is free just now"


def test_apple_silicon_is_not_sent_to_virtualbox(bare: Bare) -> None:
    out = bare.answers["doctor"].out
    assert ("Apple silicon, for x86 VMs of no use" in out) is not bare.masked.mac.intel


def test_the_theory_has_the_right_word_for_the_mac(bare: Bare) -> None:
    done = bare.answers["explain"]
    assert done.status == 0, done.err
    document = done.document
    schema.validate(document)
    row = next(row for row in document["engines"] if row["engine"] == "virtualbox")
    if bare.masked.mac.intel:
        assert f"macOS {bare.masked.mac.product[1]} on Intel" in document["situation"]["described"]
        # It is not installed, so its version is open: 6.1 is the theory's one cell, the others do not nest.
        assert [item["nesting"] for item in row["open"]] == ["unknown", "refuted", "refuted"]
    else:
        assert document["situation"]["described"].endswith(bare.masked.mac.sysctl["machdep.cpu.brand_string"])
        assert set(row["claims"].values()) == {"blocked"}
    assert "apt" not in done.out.split()


def test_launchd_gets_a_whole_plist(bare: Bare) -> None:
    done = bare.answers["print"]
    assert done.status == 0, done.err
    head, text = done.out.split("\n", 1)
    assert head == f"# {HOME}/Library/LaunchAgents/io.lab.nightly.plist"
    agent = plistlib.loads(text.strip().encode())
    assert agent["ProgramArguments"][:3] == ["/usr/bin/caffeinate", "-i", "-s"]
    assert agent["ProgramArguments"][3:] == [f"{CHECKOUT}/bin/invoke", "nightly.run"]
    assert agent["StandardOutPath"] == agent["StandardErrorPath"] == f"{STATE}/nightly.log"
    assert agent["StartCalendarInterval"] == {"Hour": 3, "Minute": 30}
    assert not (bare.masked.home / "Library/LaunchAgents").exists(), "it was printed, and not installed"


def test_folders_are_those_of_a_mac(bare: Bare) -> None:
    settings = {row["key"]: row["value"] for row in bare.answers["config"].document["values"]}
    assert settings["state_dir"] == str(STATE)
    assert settings["cache_dir"] == f"{HOME}/Library/Caches/lab"


def test_there_is_no_lab_and_nothing_to_destroy(bare: Bare) -> None:
    assert bare.answers["list"].document["labs"] == []
    done = bare.answers["destroy"]
    assert done.status == 2 and "there is no lab default" in done.document["error"]["what"], done.out
    assert all("brew was called" not in answer.err for answer in bare.answers.values())


# --- with VirtualBox ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Publisher:
    server: ImageServer
    manifest: str
    key: Path
    certificates: Path


@pytest.fixture(scope="module")
def publisher(base: Path, signer: Signer, signing_keys: dict[str, str]) -> Iterator[Publisher]:
    """Serves a streamOptimized VMDK that is a boot sector, as Ubuntu's files are served."""
    folder = base / "publisher"
    folder.mkdir()
    disk, vmdk = base_disk(folder / "disk.qcow2", False, VIRTUALBOX), folder / DISK
    convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    proc.run([*convert, disk, vmdk], deadline=Deadline.after(60))
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{hashlib.sha256(vmdk.read_bytes()).hexdigest()} *{DISK}\n")
    signature = signer.sign(sums, signing_keys["good"])
    certificate, certificates = make_certificate(folder), folder / "trusted.pem"
    certificates.write_bytes(Path(certifi.where()).read_bytes() + certificate.read_bytes())
    with image_server(certificate) as server:
        for path in (vmdk, sums, signature):
            server.files[f"{FOLDER}/{path.name}"] = Served(path.read_bytes())
        manifest = (
            f'name = "ubuntu-24.04"\nbase = "{server.url(FOLDER)}/"\n'
            'sums = "SHA256SUMS"\nsignature = "SHA256SUMS.gpg"\n'
            f'keyring = "keys/test.gpg"\nfingerprint = "{signing_keys["good"]}"\n[files]\nvmdk = "{DISK}"\n'
        )
        yield Publisher(
            server, manifest, signer.export(folder / "key.gpg", signing_keys["good"]), certificates
        )


@pytest.fixture(scope="module")
def with_virtualbox(
    base: Path, new: Callable[..., Masked], vbox_root: Root, publisher: Publisher
) -> Iterator[Callable[[str, bool], Masked]]:
    """Makes Macs with VirtualBox.app, whose checkout knows the publisher's image for Ubuntu's."""
    with ExitStack() as stack:

        def make(name: str, glue: bool) -> Masked:
            folder = f"vbox-{name}-{glue}"
            masked = new(
                name,
                folder,
                **({"LAB_VIRTUALBOX__PYTHON": str(app.PYTHON)} if glue else {}),
                # What stands in for a Mac's processor here: no driver, so software runs every instruction.
                LAB_VIRTUALBOX__EXECUTION_ENGINE="interpreter",
                LAB_VM__NESTED="false",
                LAB_VM__CPUS="1",
                LAB_VM__MEMORY_MIB="512",
                LAB_DEADLINES__BOOT="8",
                LAB_DEADLINES__SSH="8",
                LAB_DEADLINES__STOP="10",
                LAB_PORTS__SSH=str(free_port()),
                LAB_PORTS__ADB=str(free_port()),
                REQUESTS_CA_BUNDLE=f"{HOME}/trusted.pem",
            )
            guest = masked.home / "src/lab/images/guest"
            (guest / "ubuntu-24.04.toml").write_text(publisher.manifest)
            shutil.copyfile(publisher.key, guest / "keys/test.gpg")
            shutil.copyfile(publisher.certificates, masked.home / "trusted.pem")
            instance = stack.enter_context(mounted(vbox_root, base / folder / "instance"))
            app.install(masked, app.Linux(instance.keeper, instance.base / "root"), glue)
            return masked

        yield make


@dataclass(frozen=True)
class Up:
    """What the commands of one lab's life answered, in their order, and what its guest said meanwhile."""

    doctor: Completed
    up: Completed
    console: str
    made: Completed
    destroy: Completed
    left: Completed
    machines: Completed


def _life(masked: Masked) -> Up:
    doctor, up = masked.lab("lab.doctor", "--json"), masked.lab("lab.up", "--json")
    consoles = (masked.home / "Library/Application Support/lab").rglob("console.log")
    return Up(
        doctor,
        up,
        "".join(path.read_text() for path in consoles),
        masked.lab("lab.list", "--json"),
        masked.lab("lab.destroy", "--purge", "--json"),
        masked.lab("lab.list", "--json"),
        masked.run(app.MANAGE, "list", "vms"),
    )


@pytest.fixture(scope="module")
def ups(with_virtualbox: Callable[[str, bool], Masked], publisher: Publisher) -> dict[str, Up]:
    """A life over each transport, side by side: most of it is waiting for a guest that has no SSH."""
    macs = [with_virtualbox("intel-13", True), with_virtualbox("intel-26", False)]
    with ThreadPoolExecutor(len(macs)) as pool:
        vboxapi, manage = pool.map(_life, macs)
    return {"vboxapi": vboxapi, "VBoxManage": manage}


BOTH = pytest.mark.parametrize("transport", ["vboxapi", "VBoxManage"])


@BOTH
def test_doctor_says_how_virtualbox_is_spoken_to(transport: str, ups: dict[str, Up]) -> None:
    """7.1 and newer bring Python's glue to a Mac, 7.0 and 6.1 none that Python 3 can load."""
    doctor = ups[transport].doctor
    assert doctor.status == 0, doctor.out
    row = next(row for row in doctor.document["engines"] if row["name"] == "virtualbox")
    assert row["facts"]["details"]["transport"].startswith(transport)


@BOTH
def test_from_nothing_lab_up_gets_as_far_as_the_guest_can(transport: str, ups: dict[str, Up]) -> None:
    done = ups[transport].up
    document = done.document
    schema.validate(document)
    rungs = {rung["rung"]: rung for rung in document["rungs"]}
    passed = [name for name, rung in rungs.items() if rung["status"] == "passed"]
    assert passed == ["host.cpu", "host.engine", "vm.settings"], done.err
    assert rungs["vm.boot"]["status"] == "failed" and "SSH" in rungs["vm.boot"]["observed"]
    assert done.status == 12 and document["claims"]["nesting"]["verdict"] == "inconclusive"
    cell = document["cell"]
    assert (cell["engine"], cell["host"]["system"]) == ("virtualbox", "macos")
    assert cell["image"].startswith("ubuntu-24.04-") and cell["transport"].startswith(transport)
    assert "boot 0001" in ups[transport].console, "the guest ran its first sector"


def test_the_image_came_from_its_publisher(ups: dict[str, Up], publisher: Publisher) -> None:
    asked = [request.path for request in publisher.server.requests if request.status == 200]
    for file in ("SHA256SUMS.gpg", DISK):
        assert asked.count(f"{FOLDER}/{file}") == len(ups)


@BOTH
def test_what_was_made_is_destroyed(transport: str, ups: dict[str, Up]) -> None:
    life = ups[transport]
    assert [row["engine"] for row in life.made.document["labs"]] == ["virtualbox"]
    assert life.destroy.status == 0, life.destroy.err
    assert life.left.document["labs"] == []
    assert life.machines.status == 0 and "{" not in life.machines.out, "each VM's line ends with its {UUID}"


def test_on_apple_silicon_nothing_is_fetched_and_nothing_started(
    with_virtualbox: Callable[[str, bool], Masked], publisher: Publisher
) -> None:
    masked = with_virtualbox("m1", True)
    publisher.server.requests.clear()
    done = masked.lab("lab.up", "--json", "--engine", "virtualbox")
    rungs = {rung["rung"]: rung for rung in done.document["rungs"]}
    assert done.status == 11, done.err
    assert rungs["host.engine"]["status"] == "blocked" and "Apple" in json.dumps(rungs["host.engine"])
    assert done.document["claims"]["nesting"]["verdict"] == "blocked"
    assert not [request for request in publisher.server.requests if request.path.endswith(DISK)]
    assert "{" not in masked.run(app.MANAGE, "list", "vms").out
