"""Into the VM: what is asked of a VM that does not run, where a copy lands, and what is printed as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.core import caller, deadline, proc, screen
from lab.core.errors import BlockedError, UsageError
from lab.engines.protocol import State
from lab.tasks.emulator import device
from lab.tasks.lab import copy, logs, ssh
from lab.tasks.lab.up import up
from lab.workflow.workbench import Workbench
from tests.unit.bed import Bed, checked
from tests.unit.fakes import FakeGuest

NAME = "default"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    bed = Bed(tmp_path / "bed", monkeypatch)
    up(bed.session(), NAME)
    yield bed
    deadline.cancelled.clear()


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What was copied: `in` or `out`, the local file, the remote one."""
    made: list[tuple[str, str, str]] = []

    def put(_guest: FakeGuest, local: Path, remote: str, _progress: Any) -> None:
        made.append(("in", str(local), remote))

    def get(_guest: FakeGuest, remote: str, local: Path, _progress: Any) -> None:
        made.append(("out", str(local), remote))

    monkeypatch.setattr(FakeGuest, "put", put, raising=False)
    monkeypatch.setattr(FakeGuest, "get", get, raising=False)
    return made


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, as bin/invoke tells it; lab works in another one, with files of the same names."""
    mine, project = tmp_path / "mine", tmp_path / "project"
    for folder in (mine, project):
        folder.mkdir()
        (folder / "notes.txt").write_text(folder.name)
        (folder / "app.apk").write_text("PK")
    monkeypatch.chdir(project)
    monkeypatch.setenv(caller.VARIABLE, str(mine))
    return mine


# Where paths are relative to


def test_a_path_is_relative_to_where_the_user_stands(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert caller.path("a/b") == here / "a/b" and caller.path("/a") == Path("/a")
    assert caller.path("~/a", home=True) == Path.home() / "a"
    for wrong in ("", "mine", str(here / "gone")):
        monkeypatch.setenv(caller.VARIABLE, wrong)
        assert caller.folder() == Path.cwd()


def test_copies_are_of_and_into_the_user_s_own_folder(
    bed: Bed, here: Path, copies: list[tuple[str, str, str]]
) -> None:
    (here / "sub").mkdir()
    copy.copy(bed.session(), NAME, "notes.txt", "lab:/srv/")
    copy.copy(bed.session(), NAME, "lab:/etc/notes.txt", ".")
    copy.copy(bed.session(), NAME, "lab:/etc/notes.txt", "sub")
    copy.copy(bed.session(), NAME, "lab:/etc/notes.txt", "other.txt")
    assert copies == [
        ("in", str(here / "notes.txt"), "/srv/notes.txt"),
        ("out", str(here / "notes.txt"), "/etc/notes.txt"),
        ("out", str(here / "sub" / "notes.txt"), "/etc/notes.txt"),
        ("out", str(here / "other.txt"), "/etc/notes.txt"),
    ]


@pytest.mark.parametrize(
    ("source", "target"), [("lab:/etc/x", "none/"), ("lab:/etc/x", "none/x"), ("lab:", "."), ("lab:/", ".")]
)
def test_a_copy_that_cannot_land_is_a_usage_error(
    bed: Bed, here: Path, copies: list[tuple[str, str, str]], source: str, target: str
) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        copy.copy(bed.session(), NAME, source, target)
    assert not copies


def test_what_android_is_given_and_gives_is_in_the_user_s_folder(
    bed: Bed, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab.tasks.emulator import instances

    instances.up(bed.session(), NAME, "second", "docker-android")
    document = checked(device.screenshot(bed.session(), NAME, "a.png", "second"))
    assert document["notes"] == [str(here / "a.png")] and (here / "a.png").is_file()
    device.install(bed.session(), NAME, "app.apk", "second")
    (here / "app.apk").unlink()
    with pytest.raises(UsageError, match=str(here / "app.apk")):
        device.install(bed.session(), NAME, "app.apk", "second")


# A VM that does not run


@pytest.mark.parametrize("state", [State.STOPPED, State.SUSPENDED])
@pytest.mark.parametrize(
    "enter",
    [
        lambda session: ssh.ssh(session, NAME),
        lambda session: ssh.execute(session, NAME, ["true"]),
        lambda session: ssh.execute(session, NAME, ["true"], capture=True),
        lambda session: copy.copy(session, NAME, "notes.txt", "lab:/srv/"),
        lambda session: copy.copy(session, NAME, "lab:/tmp/notes.txt", "."),
        lambda session: logs.logs(session, NAME, False, "container"),
    ],
)
def test_a_vm_that_does_not_run_is_said_with_what_starts_it(
    bed: Bed,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    enter: Callable[[Any], Any],
) -> None:
    monkeypatch.setattr(proc, "passthrough", lambda *_, **__: pytest.fail("nothing is tried"))
    bed.world.state = state
    with pytest.raises(
        BlockedError, match=f"needs a VM that runs, and that of lab default is {state}"
    ) as off:
        enter(bed.session())
    assert off.value.hint == f"`invoke lab.{'resume' if state is State.SUSPENDED else 'up'} --name default`"


# What is printed as it is


def test_exec_streams_unless_its_output_is_kept(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def stream(_guest: FakeGuest, argv: list[str], _deadline: Any) -> int:
        ran.append(argv)
        return 7

    monkeypatch.setattr(FakeGuest, "stream", stream, raising=False)
    reply = ssh.execute(bed.session(), NAME, ["cat", "a b"])
    assert (reply.code, ran, reply.show) == (7, [["cat", "a b"]], None)
    reply = ssh.execute(bed.session(), NAME, ["uname"], capture=True)
    assert (checked(reply)["out"], reply.code, len(ran)) == ("x86_64\n", 0, 1)


def test_exec_whose_reader_went_away_has_not_succeeded(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lab.exec -- make test | head`: the tests were ended, and what they would have come to is not known."""

    def stream(*_: Any) -> int:
        raise screen.ReaderGoneError("nobody reads standard output any more")

    monkeypatch.setattr(FakeGuest, "stream", stream, raising=False)
    assert ssh.execute(bed.session(), NAME, ["make", "test"]).code == 141


def test_a_log_is_printed_byte_for_byte(bed: Bed, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    text = b"\x1b[31mkernel\xff\r\n" * 100_000
    bed.lab().vm_folder.mkdir(parents=True, exist_ok=True)
    Workbench.open(bed.session(), NAME).machine.console().write_bytes(text)
    capfdbinary.readouterr()
    logs.logs(bed.session(), NAME, False, "console")
    assert capfdbinary.readouterr().out == text
