"""lab.attach: what it refuses before anything is made or sent, and what it says of a machine.

Vagrant and the hypervisors are stand-ins, and so is the login: tests/integration/test_vagrant_attach.py has
a real SSH server.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.config import Settings
from lab.core.errors import InconclusiveError, LabError, UsageError
from lab.core.steps import Steps
from lab.engines.vagrant import link
from lab.guest import adopt, keys
from lab.guest.login import LockedKeyError
from lab.records.record import Record
from lab.tasks.lab import attach
from lab.workflow.destroy import destroy
from lab.workflow.session import Session
from tests.unit.bed import checked
from tests.unit.vagrant_world import World

Attach = Callable[..., dict[str, Any]]


@pytest.fixture
def session(tmp_path: Path) -> Session:
    settings = Settings(
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
        emulator={"kind": "canary"},
        vm={"paravirt": "kvm", "cpus": 4},
    )
    return Session(settings.with_origins({}), Steps(), False)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The ports of the machines that something was sent to."""
    ports: list[int] = []
    theirs = keys.ensure(tmp_path / "theirs", "vagrant").host.public_line()

    def shown(port: int, _deadline: object) -> str:
        ports.append(port)
        return " ".join(theirs.split()[:2])

    monkeypatch.setattr(adopt, "host_key", shown)
    monkeypatch.setattr(adopt, "admit", lambda *_: "put there")
    return ports


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    def build(provider: str = "libvirt") -> World:
        folder = tmp_path / provider
        folder.mkdir()
        made = World(folder, provider)
        monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
        monkeypatch.delenv("VAGRANT_DOTFILE_PATH", raising=False)
        made.run()
        return made

    return build


def _attach(session: Session, world: World, **more: str) -> dict[str, Any]:
    return checked(attach.attach(session, "vagrant", folder=str(world.root), **more))


def _record(session: Session, name: str = "vagrant") -> Record:
    return session.store.get(name).record()


def _refused(session: Session, world: World, sent: list[int], error: type[UsageError] = UsageError) -> Any:
    """The error, after which there is no lab, and nothing was sent."""
    with pytest.raises(error) as caught:
        _attach(session, world)
    assert session.store.labs() == []
    assert sent == []
    return caught.value


@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_the_record_says_how_the_machine_is(
    session: Session, make: Callable[..., World], sent: list[int], provider: str
) -> None:
    world = make(provider)
    world.say("showvminfo", 'effparavirtprovider="kvm"', 'effparavirtprovider="none"')
    assert _attach(session, world)["changed"]
    record = _record(session)
    assert (record.cpus, record.memory_mib, record.nested) == (2, 3072, True)
    assert record.paravirt == "none", "it was configured as kvm"
    assert sent == [22222]
    assert not _attach(session, world)["changed"]


@pytest.mark.parametrize("word", ["hyperv", ""])
def test_a_paravirtualization_without_a_word_is_not_known(
    session: Session, make: Callable[..., World], sent: list[int], word: str
) -> None:
    world = make("virtualbox")
    world.say(
        "showvminfo", 'paravirtprovider="default"\neffparavirtprovider="kvm"', f'paravirtprovider="{word}"'
    )
    _attach(session, world)
    assert _record(session).paravirt == "unknown"


@pytest.mark.parametrize("line", ['nested-hw-virt="on"\n', "cpus=2\n", "memory=3072\n"])
def test_what_cannot_be_read_is_not_assumed(
    session: Session, make: Callable[..., World], sent: list[int], line: str
) -> None:
    world = make("virtualbox")
    world.say("showvminfo", line, "")
    error = _refused(session, world, sent, InconclusiveError)  # type: ignore[arg-type]
    assert "?" in error.what
    assert "does not say how the machine vagrant is" in error.what


def test_a_machine_of_libvirts_system_connection_is_refused(
    session: Session, make: Callable[..., World], sent: list[int]
) -> None:
    world = make()
    (world.folder / "connection").write_text("qemu:///system")
    error = _refused(session, world, sent)
    assert "your own libvirt session (qemu:///session) does not have it" in error.what
    assert "libvirt's system connection" in error.hint
    assert "is not supported" in error.hint


def test_a_session_machine_with_another_network_is_refused(
    session: Session, make: Callable[..., World], sent: list[int]
) -> None:
    world = make()
    world.say("network", "net0", "hostnet0")
    assert "called net0: those there are called hostnet0" in _refused(session, world, sent).what


@pytest.mark.parametrize(("provider", "word"), [("libvirt", "paused"), ("virtualbox", "paused")])
def test_only_a_machine_that_runs_is_attached(
    session: Session, make: Callable[..., World], sent: list[int], provider: str, word: str
) -> None:
    world = make(provider)
    world.state.write_text(word)
    assert "is paused: only one that runs" in _refused(session, world, sent).what


def test_a_folder_below_the_vagrantfiles_is_said(
    session: Session, make: Callable[..., World], sent: list[int]
) -> None:
    """Vagrant finds its Vagrantfile upwards; its data are beside that one."""
    world = make()
    world.root = world.root / "below"
    world.root.mkdir()
    assert "Vagrant keeps no id of vagrant" in _refused(session, world, sent).what


def test_a_machine_is_one_lab_only(session: Session, make: Callable[..., World], sent: list[int]) -> None:
    world = make()
    _attach(session, world)
    before = session.store.get("vagrant").record()
    forwards = (world.folder / "forwards").read_text()
    with pytest.raises(UsageError, match="is lab vagrant already") as caught:
        _attach(session, world, name="second")
    assert "lab.up --name vagrant" in caught.value.hint
    assert session.store.find("second") is None
    assert (_record(session), (world.folder / "forwards").read_text()) == (before, forwards)
    assert len(sent) == 1
    destroy(session, "vagrant")
    assert not [line for line in world.asked() if line.startswith("destroy")]
    assert _attach(session, world, name="second")["lab"] == "second"


def test_a_damaged_link_is_written_anew(
    session: Session, make: Callable[..., World], sent: list[int]
) -> None:
    world = make()
    _attach(session, world)
    folder = session.store.get("vagrant").vm_folder
    (folder / link.FILE).write_text("{")
    _attach(session, world)
    found = link.read(folder)
    assert found is not None
    assert found.whose == (world.root, "vagrant", "libvirt")


@pytest.mark.parametrize("refusal", [UsageError("the account lab"), LockedKeyError("it has a passphrase")])
def test_what_keeps_lab_out_leaves_no_lab(
    session: Session,
    make: Callable[..., World],
    sent: list[int],
    monkeypatch: pytest.MonkeyPatch,
    refusal: LabError,
) -> None:
    world = make()

    def refuse(*_: object) -> str:
        raise refusal

    monkeypatch.setattr(adopt, "admit", refuse)
    with pytest.raises(type(refusal), match=refusal.what):
        _attach(session, world)
    assert session.store.find("vagrant") is None


def test_settings_that_are_refused_leave_no_lab(
    session: Session, make: Callable[..., World], sent: list[int]
) -> None:
    world = make()
    wanted = session.settings.emulator.model_copy(update={"kind": "docker-android", "image": "Not An Image"})
    settings = session.settings.model_copy(update={"emulator": wanted})
    with pytest.raises(UsageError, match="not an image's name"):
        _attach(replace(session, settings=settings), world)
    assert session.store.labs() == [] and sent == []
