import os
import stat
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, BusyError, DeadlineError
from lab.core.lock import hold
from lab.core.steps import Event, Steps
from lab.host import install, packages
from lab.host.packages import TABLE, Installer, Requirement, find_program, missing
from tests.capabilities import needs

ROOT = Installer("apt", root=True, sudo=False)
USER = Installer("apt", root=False, sudo=True)
NOBODY = Installer("apt", root=False, sudo=False)
MAC = Installer("brew", root=False, sudo=False, macos=True)
QEMU = "apt-get update && apt-get install -y --no-install-recommends frob wibble-utils"
SUDO = "sudo apt-get update && sudo apt-get install -y --no-install-recommends frob wibble-utils"


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A host whose apt, sudo and brew are scripts, where two programs are missing."""
    table = (
        Requirement(("frob-x86",), "frobs", "frob", frozenset({"qemu"}), "frob"),
        Requirement(("wibble",), "wibbles", "wibble-utils", frozenset({"qemu"}), "wibble"),
        Requirement(("grate",), "grates", "grater", frozenset({"build-image"})),
    )
    return Fake(monkeypatch, tmp_path, table)


class Fake:
    """apt-get that logs its words and, told to install, makes the programs."""

    def __init__(self, monkeypatch, folder: Path, table: tuple[Requirement, ...]) -> None:
        self.table = table
        self.folder = folder / "bin"
        self.folder.mkdir()
        self.log = folder / "log"
        self.cache = folder / "cache"
        self.events: list[Event] = []
        monkeypatch.setenv("PATH", f"{self.folder}:/usr/bin:/bin")
        monkeypatch.setenv("BIN", str(self.folder))
        monkeypatch.setenv("LOG", str(self.log))
        self.apt(PROGRESS + INSTALL)

    def script(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >>$LOG\n{body}\n')
        path.chmod(0o755)

    def apt(self, install_body: str, update_body: str = "") -> None:
        self.script(
            "apt-get", f"case $1 in update) :; {update_body} ;; install) {install_body} ;; *) exit 9 ;; esac"
        )

    def ensure(self, installer: Installer = ROOT, *, interactive=False, answer=True, seconds=20.0, **more):
        self.questions: list[str] = []

        def ask(question: str) -> bool:
            self.questions.append(question)
            return answer

        return install.ensure(
            more.pop("purposes", ["qemu"]),
            policy=more.pop("policy", "auto"),
            steps=Steps(self.events.append),
            deadline=Deadline.after(seconds),
            interactive=interactive,
            ask=ask,
            cache_dir=self.cache,
            installer=installer,
            table=self.table,
            **more,
        )

    @property
    def ran(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def refusal(self, installer: Installer = ROOT, **more) -> BlockedError:
        with pytest.raises(BlockedError) as caught:
            self.ensure(installer, **more)
        return caught.value


INSTALL = "for name in frob-x86 wibble; do printf '#!/bin/sh\\n' >$BIN/$name; chmod +x $BIN/$name; done"
PROGRESS = """
test "$DEBIAN_FRONTEND" = noninteractive || exit 8
echo 'dlstatus:1:12.5:Retrieving file 1 of 2' >&2
echo 'pmstatus:libfrob:amd64:50.0:Unpacking libfrob:amd64 (1:2.3)' >&2
"""


def test_root_installs_what_is_missing_and_says_how_far_it_is(fake):
    assert fake.ensure() == ["frob", "wibble-utils"]
    update, installed = fake.ran
    assert update.startswith("apt-get update")
    assert installed.startswith("apt-get install -y --no-install-recommends")
    assert "DPkg::Lock::Timeout=" in installed and installed.endswith("frob wibble-utils")
    progress = [(event.done, event.text) for event in fake.events if event.kind == "progress"]
    assert progress == [
        (12.5, "Retrieving file 1 of 2"),
        (50.0, "Unpacking libfrob:amd64 (1:2.3)"),
    ]
    assert fake.events[-1].kind == "finished" and fake.events[-1].text == "2 installed"
    assert fake.ensure() == [] and len(fake.ran) == 2, "nothing runs when nothing is missing"


def test_only_what_is_missing_is_installed(fake):
    fake.script("wibble", "")
    assert fake.ensure() == ["frob"]


def test_a_program_named_by_the_configuration_stands_in(fake):
    fake.script("wibble", "")
    fake.script("my-frob", "")
    assert fake.ensure(instead={"frob-x86": str(fake.folder / "my-frob")}) == []
    fake.folder.joinpath("my-frob").unlink()
    error = fake.refusal(instead={"frob-x86": str(fake.folder / "my-frob")})
    assert "my-frob` in place of `frob-x86`" in error.what
    assert fake.ran == [], "no package brings it, so none is installed"


@pytest.mark.parametrize(
    ("installer", "more", "command"),
    [
        (ROOT, {"policy": "never"}, QEMU),
        (USER, {"policy": "never", "interactive": True}, SUDO),
        (USER, {}, SUDO),
        (USER, {"interactive": True, "answer": False}, SUDO),
        (NOBODY, {"interactive": True}, f"as root: {QEMU}"),
        (MAC, {}, "brew install frob wibble"),
    ],
)
def test_where_lab_may_not_install_the_exact_command_is_said_and_nothing_runs(fake, installer, more, command):
    error = fake.refusal(installer, **more)
    assert "frob-x86 (frobs), wibble (wibbles)" in error.what
    assert error.hint == command
    assert fake.ran == []


def test_sudo_runs_after_one_question(fake):
    fake.script("sudo", 'DEBIAN_FRONTEND=noninteractive "$@"')
    assert fake.ensure(USER, interactive=True) == ["frob", "wibble-utils"]
    assert len(fake.questions) == 1 and SUDO in fake.questions[0]
    assert [line.split()[:3] for line in fake.ran if line.startswith("sudo")] == [
        ["sudo", "apt-get", "update"],
        ["sudo", "apt-get", "install"],
    ]


def test_homebrew_runs_without_sudo_and_its_failure_is_said(fake):
    fake.script("brew", INSTALL)
    assert fake.ensure(MAC, interactive=True) == ["frob", "wibble"]
    assert fake.ran == ["brew install frob wibble"]
    for name in ("frob-x86", "wibble"):
        (fake.folder / name).unlink()
    fake.script("brew", "exit 3")
    assert "`brew install frob wibble` ended with status 3" in fake.refusal(MAC, interactive=True).what


def test_what_macos_cannot_have_and_systems_without_a_known_manager(fake):
    error = fake.refusal(MAC, interactive=True, purposes=["build-image"])
    assert "grate (grates)" in error.what and "ubuntu-24.04" in error.hint
    error = fake.refusal(Installer("", root=True, sudo=False))
    assert "frob, wibble-utils" in error.hint
    assert fake.ran == []


def test_a_mac_without_homebrew_is_told_its_own_names_and_not_debians(fake):
    """Homebrew no longer makes bottles for Intel Macs: there, most have none."""
    bare = Installer("", root=False, sudo=True, macos=True)
    error = fake.refusal(bare, interactive=True)
    assert "Debian" not in error.hint and "apt" not in error.hint and "wibble-utils" not in error.hint
    assert error.hint.endswith("Homebrew, which is not here, calls them frob, wibble")
    error = fake.refusal(bare, purposes=["build-image"])
    assert "what macOS does not have: grate (grates)" in error.what
    assert bare.package(packages.TABLE[2]) is None and fake.ran == []


@pytest.mark.parametrize("system", ["darwin", "linux"])
def test_what_a_system_cannot_have_is_known_without_asking_for_it(fake, monkeypatch, system):
    monkeypatch.setattr("sys.platform", system)
    assert Installer.detect().macos is (system == "darwin")
    lacking = [item.debian for item in packages.impossible(["qemu", "build-image"], fake.table)]
    assert lacking == (["grater"] if system == "darwin" else [])


def test_an_unreachable_mirror_is_blocked_with_apts_words(fake):
    fake.apt(
        "echo 'pmstatus:x:1:y' >&2; echo 'E: Unable to locate package frob' >&2; exit 100",
        "echo 'E: Failed to fetch the index' >&2; exit 100",
    )
    error = fake.refusal()
    assert "status 100" in error.what
    assert error.tail == "E: Failed to fetch the index\nE: Unable to locate package frob"
    assert "check the network" in error.hint and QEMU in error.hint
    assert any("update failed" in event.text for event in fake.events)


def test_a_failed_update_is_no_reason_to_stop_when_the_packages_are_known(fake):
    fake.apt(INSTALL, "exit 100")
    assert fake.ensure() == ["frob", "wibble-utils"]


def test_apt_that_installs_and_leaves_the_program_missing_is_found_out(fake):
    fake.apt("exit 0")
    error = fake.refusal()
    assert "still missing: frob-x86, wibble" in error.what


def test_an_installation_that_was_killed_half_way_is_finished_first(fake):
    fake.script("dpkg", "touch $BIN/configured")
    fake.apt(
        'test -e $BIN/configured || { echo "E: dpkg was interrupted, you must manually run '
        "'dpkg --configure -a' to correct the problem.\" >&2; exit 100; }; " + INSTALL
    )
    assert fake.ensure() == ["frob", "wibble-utils"]
    assert "dpkg --configure -a --force-confold" in fake.ran


def test_apts_lock_is_waited_for(fake):
    held = (
        "test -e $BIN/free || { touch $BIN/free; "
        "echo 'E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7' >&2; exit 100; }"
    )
    fake.apt(INSTALL, held)
    assert fake.ensure() == ["frob", "wibble-utils"]
    assert [line.split()[1] for line in fake.ran] == ["update", "update", "install"]


def test_a_lock_that_is_never_given_up_is_named(fake):
    fake.apt(INSTALL, "echo 'E: Could not get lock. It is held by process 7' >&2; exit 100")
    with pytest.raises(DeadlineError, match="held by process 7"):
        fake.ensure(seconds=0.3)


def test_a_second_command_waits_for_the_first_and_then_has_nothing_to_do(fake):
    with hold(fake.cache / "packages.lock", "install packages", "x"):
        outcome: list[list[str]] = []
        second = threading.Thread(target=lambda: outcome.append(fake.ensure()))
        second.start()
        while not any("waiting for process" in event.text for event in fake.events):
            second.join(0.02)
            assert second.is_alive(), "it must wait while the lock is held"
        for name in ("frob-x86", "wibble"):
            fake.script(name, "")
    second.join()
    assert outcome == [[]]
    assert not any(line.startswith("apt-get") for line in fake.ran)


def test_a_command_that_installs_for_ever_is_named(fake):
    with (
        hold(fake.cache / "packages.lock", "install packages", "x"),
        pytest.raises(BusyError, match=r"install packages.* holds the lock for installing system packages"),
    ):
        fake.ensure(seconds=0.3)


def test_missing_goes_by_purpose_program_and_file(fake, monkeypatch, tmp_path):
    absent = partial(missing, table=fake.table)
    assert [item.debian for item in absent(["qemu"])] == ["frob", "wibble-utils"]
    assert [item.debian for item in absent(["build-image", "qemu"])] == ["frob", "wibble-utils", "grater"]
    assert absent(["ssh"]) == []
    key = tmp_path / "key"
    only_file = Requirement((), "keys", "keys", frozenset({"tests"}), files=(key,))
    unprivileged = Requirement(("no-such",), "maps", "map", frozenset({"tests"}), unprivileged=True)
    absent = partial(missing, ["tests"], table=(only_file, unprivileged))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert absent() == [only_file]
    assert only_file.absent({}) == [str(key)]
    key.touch()
    assert absent() == []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert absent() == [unprivileged]


def test_what_is_optional_comes_along_and_is_never_asked_for_alone():
    wanted = Requirement(("no-such",), "runs it", "it", frozenset({"qemu"}), "it")
    extra = Requirement(("nor-this",), "helps it", "helper", frozenset({"qemu"}), optional=True)
    assert missing(["qemu"], table=[extra]) == []
    assert missing(["qemu"], table=[wanted, extra], installer=ROOT) == [wanted, extra]
    assert missing(["qemu"], table=[wanted, extra], installer=MAC) == [wanted], "there is none for it"


def test_programs_are_found_beyond_an_ordinary_users_path(monkeypatch, tmp_path):
    program = tmp_path / "frobnicate"
    program.touch()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert find_program("frobnicate", [str(tmp_path)]) is None, "not executable"
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert find_program("frobnicate", [str(tmp_path)]) == program


def test_a_program_that_a_library_brings_is_not_asked_for(tmp_path):
    brought = tmp_path / "adb"
    adb = Requirement(("no-such-adb",), "asks", "adb", frozenset({"adb"}), "tools", shipped=brought)
    assert missing(["adb"], table=[adb]) == [adb]
    brought.touch()
    assert missing(["adb"], table=[adb]) == []


def test_commands_name_each_package_once():
    assert MAC.commands(TABLE[:2]) == [["brew", "install", "qemu"]]
    assert ROOT.commands([]) == []
    assert ROOT.commands(TABLE[:1])[1][-1] == "qemu-system-x86"


def test_this_table_names_every_requirement_fully():
    assert len({item.debian for item in TABLE}) == len(TABLE)
    for item in TABLE:
        assert item.programs or item.files
        assert item.why and item.needed_for


@needs("apt-cache", "dpkg-query")
def test_every_debian_package_really_exists_and_brings_its_programs():
    names = [item.debian for item in TABLE]
    shown = subprocess.run(["apt-cache", "show", *names], capture_output=True, text=True, check=False).stdout
    known = {line.removeprefix("Package: ") for line in shown.splitlines() if line.startswith("Package: ")}
    assert set(names) <= known
    for item in TABLE:
        listed = subprocess.run(
            ["dpkg-query", "-L", item.debian], capture_output=True, text=True, check=False
        )
        if listed.returncode == 0:
            paths = [Path(line) for line in listed.stdout.splitlines()]
            assert set(item.programs) <= {path.name for path in paths}, item.debian
            assert set(item.files) <= set(paths), item.debian
            assert item.absent({}) == []
