"""The schedulers' files are right, carry no secret, and only lab's own are ever touched."""

from __future__ import annotations

import plistlib
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline, proc
from lab.core.errors import BlockedError, DeadlineError, InterruptedByUser, LabError, UsageError
from lab.schedule import installing, plan
from lab.schedule.launchd import Launchd
from lab.schedule.plan import MARKER, Plan, Scheduler
from lab.schedule.systemd import Systemd, _argument, _quoted

SCHEDULERS: list[type[Scheduler]] = [Launchd, Systemd]
EACH = pytest.mark.parametrize("kind", SCHEDULERS)
PLAN = Plan(
    program=["/opt/my lab/bin/invoke", "nightly.run"],
    folder=Path("/opt/my lab"),
    hour=3,
    minute=5,
    minutes=210,
    log=Path("/nowhere/nightly.log"),
    environment={"PATH": "/opt/bin:/usr/bin", "LAB_STATE_DIR": "/srv/100% lab"},
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, with stand-ins for the schedulers' programs on PATH.

    Each remembers whether it has the night. tests/integration/test_schedule.py asks the real systemd.
    """
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("launchctl", "systemctl"):
        tool = tools / name
        tool.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {tmp_path}/calls\nexec {tools}/answer "$@"\n'
        )
        tool.chmod(0o755)
    _answer(tmp_path, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tmp_path


def _answer(home: Path, script: str) -> None:
    """`script` goes before what a scheduler does: take, give up, or say whether it has the night."""
    tool = home / "tools" / "answer"
    tool.write_text(
        f"""#!/bin/sh
{script}
case "$*" in
*enable*--now*|*bootstrap*) touch {home}/known;;
*stop*|*bootout*) [ -e {home}/known ] || exit 5; rm {home}/known;;
*status*) [ -e {home}/known ] || exit 4;;
*print*) [ -e {home}/known ] || exit 113;;
esac
"""
    )
    tool.chmod(0o755)


def _known(home: Path) -> bool:
    return (home / "known").exists()


def _plan(home: Path) -> Plan:
    return Plan(**(PLAN.__dict__ | {"log": home / "state" / "nightly.log"}))


def _calls(home: Path) -> list[str]:
    found = home / "calls"
    return found.read_text().splitlines() if found.exists() else []


# --- files ------------------------------------------------------------------------------------------


def test_the_launchd_agent(home: Path) -> None:
    (unit,) = Launchd().units(PLAN)
    assert unit.path == home / "Library/LaunchAgents/io.lab.nightly.plist"
    found = plistlib.loads(unit.content)
    assert found["ProgramArguments"][-2:] == list(PLAN.program)
    assert found["StartCalendarInterval"] == {"Hour": 3, "Minute": 5}
    assert found["WorkingDirectory"] == "/opt/my lab"
    assert found["EnvironmentVariables"] == PLAN.environment
    assert found["Label"] == unit.path.stem
    assert found["RunAtLoad"] is False


def test_the_systemd_units(home: Path) -> None:
    service, timer = Systemd().units(PLAN)
    text = service.content.decode()
    assert 'ExecStart="/opt/my lab/bin/invoke" "nightly.run"\n' in text
    assert 'Environment="LAB_STATE_DIR=/srv/100%% lab"\n' in text
    assert "WorkingDirectory=/opt/my lab\n" in text
    assert "TimeoutStartSec=210min\n" in text
    assert "OnCalendar=*-*-* 03:05:00\n" in timer.content.decode()
    assert "Persistent=true\n" in timer.content.decode()
    assert service.path.parent == home / ".config/systemd/user"
    assert service.path.stem == timer.path.stem


@given(text=st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=30))
@pytest.mark.parametrize(("quote", "doubled"), [(_quoted, {"%%"}), (_argument, {"%%", "$$"})])
def test_systemd_reads_back_what_was_quoted(
    quote: Callable[[str], str], doubled: set[str], text: str
) -> None:
    quoted = quote(text)
    inner, at, read = quoted[1:-1], 0, ""
    while at < len(inner):  # systemd's rules: backslash escapes, %% stands for one, in arguments $$ too
        pair = inner[at : at + 2]
        assert inner[at] != '"'
        at += 2 if pair in doubled or inner[at] == "\\" else 1
        read += pair[1] if pair in doubled or pair[0] == "\\" else pair[0]
    assert read == text


def test_a_dollar_in_a_path_stays_one() -> None:
    odd = replace(PLAN, program=["/opt/a$b/invoke", "c$d"], environment={"LAB_STATE_DIR": "/srv/a$b"})
    text = Systemd().units(odd)[0].content.decode()
    assert 'ExecStart="/opt/a$b/invoke" "c$$d"\n' in text
    assert 'Environment="LAB_STATE_DIR=/srv/a$b"\n' in text


@EACH
def test_no_secret_is_in_any_file(kind: type[Scheduler], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LAB_WEBHOOK_SECRET", "LAB_GITHUB_TOKEN", "LAB_SMTP_PASSWORD", "LAB_VM__CPUS"):
        monkeypatch.setenv(name, "hunter2hunter2")
    monkeypatch.setenv("LAB_STATE_DIR", "/srv/lab")
    made = Plan(**(PLAN.__dict__ | {"environment": plan.environment()}))
    assert made.environment["LAB_STATE_DIR"] == "/srv/lab"
    for unit in kind().units(made):
        assert b"hunter2" not in unit.content


def test_the_nights_path_has_the_tools_and_no_virtual_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv, tools = tmp_path / "venv" / "bin", tmp_path / "engines"
    for folder, name in ((venv, "python3"), (tools, "VBoxManage")):
        folder.mkdir(parents=True)
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    (venv.parent / "pyvenv.cfg").write_text("")
    monkeypatch.setenv("PATH", f"{venv}:{tools}")
    path = plan.environment()["PATH"].split(":")
    assert path[0] == str(tools)
    assert str(venv) not in path
    assert {"/usr/bin", "/bin"} <= set(path)


@pytest.mark.parametrize("text", ["24:00", "3:05", "03:60", "noon", "", "03:05\n"])
def test_what_is_no_time_of_day(text: str) -> None:
    with pytest.raises(UsageError):
        plan.parse_at(text)


@given(hour=st.integers(0, 23), minute=st.integers(0, 59))
def test_every_time_of_day(hour: int, minute: int) -> None:
    assert plan.parse_at(f"{hour:02}:{minute:02}") == (hour, minute)


# --- installing -------------------------------------------------------------------------------------


@EACH
def test_install_shows_what_it_does_and_changes_nothing_the_second_time(
    kind: type[Scheduler], home: Path
) -> None:
    scheduler, said = kind(), []
    assert installing.install(scheduler, _plan(home), said.append)
    paths = scheduler.paths()
    assert [line for line in said if line.startswith("writes")] == [f"writes {path}" for path in paths]
    assert {line.removeprefix("runs ") for line in said if line.startswith("runs")} <= set(_calls(home))
    assert installing.installed(scheduler) == paths
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in paths)
    log = _plan(home).log  # launchd would make it for everybody to read; the others have logs of their own
    assert stat.S_IMODE(log.stat().st_mode) == 0o600 if kind is Launchd else not log.exists()
    before = [path.stat().st_mtime_ns for path in paths]
    assert not installing.install(scheduler, _plan(home), said.append)
    assert [path.stat().st_mtime_ns for path in paths] == before


@EACH
def test_another_hour_replaces_the_file(kind: type[Scheduler], home: Path) -> None:
    scheduler = kind()
    installing.install(scheduler, _plan(home), lambda _: None)
    other = Plan(**(_plan(home).__dict__ | {"hour": 4}))
    assert installing.install(scheduler, other, lambda _: None)
    assert [path.read_bytes() for path in scheduler.paths()] == [
        unit.content for unit in scheduler.units(other)
    ]


@EACH
def test_uninstall_removes_what_lab_wrote(kind: type[Scheduler], home: Path) -> None:
    scheduler, said = kind(), []
    installing.install(scheduler, _plan(home), lambda _: None)
    assert _known(home)
    assert installing.uninstall(scheduler, said.append)
    assert not any(path.exists() for path in scheduler.paths())
    assert not _known(home)
    assert [line for line in said if line.startswith("removes")]
    assert not installing.uninstall(scheduler, said.append)


@EACH
def test_a_night_that_goes_on_is_not_said_to_be_removed(kind: type[Scheduler], home: Path) -> None:
    scheduler, said = kind(), []
    installing.install(scheduler, _plan(home), lambda _: None)
    first = scheduler.deactivate()[0]
    _answer(home, f'[ "$*" != "{" ".join(first[1:])}" ] || {{ echo denied >&2; exit 1; }}')
    with pytest.raises(LabError, match="still has the night: nothing was removed") as caught:
        installing.uninstall(scheduler, said.append)
    assert " ".join(first) in caught.value.hint
    assert all(path.exists() for path in scheduler.paths())
    assert not [line for line in said if line.startswith("removes")]
    _answer(home, "")
    assert installing.uninstall(scheduler, said.append)


@EACH
def test_nothing_is_removed_while_the_scheduler_cannot_be_asked(kind: type[Scheduler], home: Path) -> None:
    """As over SSH without a session bus: the timer goes on, whatever becomes of its file."""
    scheduler = kind()
    installing.install(scheduler, _plan(home), lambda _: None)
    _answer(home, "echo no bus >&2; exit 1")
    assert installing.state(scheduler) == (None, "no bus")
    with pytest.raises(LabError, match="could not be asked") as caught:
        installing.uninstall(scheduler, lambda _: None)
    assert "no bus" in caught.value.tail
    assert all(path.exists() for path in scheduler.paths())


@EACH
def test_a_night_whose_files_are_gone_is_ended_too(kind: type[Scheduler], home: Path) -> None:
    scheduler = kind()
    installing.install(scheduler, _plan(home), lambda _: None)
    for path in scheduler.paths():
        path.unlink()
    assert installing.uninstall(scheduler, lambda _: None)
    assert not _known(home)


@EACH
def test_a_strangers_file_is_left_alone(kind: type[Scheduler], home: Path) -> None:
    scheduler = kind()
    path = scheduler.paths()[0]
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(UsageError, match="not made by lab"):
        installing.install(scheduler, _plan(home), lambda _: None)
    with pytest.raises(UsageError, match="left alone"):
        installing.uninstall(scheduler, lambda _: None)
    assert path.read_text() == "mine"
    assert _calls(home) == []


@EACH
def test_a_scheduler_that_refuses_leaves_nothing_behind(kind: type[Scheduler], home: Path) -> None:
    _answer(home, "echo no bus >&2; exit 1")
    with pytest.raises(BlockedError, match="does not take it") as caught:
        installing.install(kind(), _plan(home), lambda _: None)
    assert "no bus" in caught.value.tail
    assert not any(path.exists() for path in kind().paths())


@EACH
def test_a_change_that_is_refused_leaves_the_nights_of_before(kind: type[Scheduler], home: Path) -> None:
    scheduler, before = kind(), _plan(home)
    installing.install(scheduler, before, lambda _: None)
    kept = [path.read_bytes() for path in scheduler.paths()]
    first = scheduler.activate()[0]
    # The first time it is told of the new files it refuses.
    _answer(
        home,
        f'if [ "$*" = "{" ".join(first[1:])}" ] && [ ! -e {home}/refused ]; '
        f"then touch {home}/refused; exit 1; fi",
    )
    with pytest.raises(BlockedError, match="does not take it"):
        installing.install(scheduler, replace(before, hour=4), lambda _: None)
    assert [path.read_bytes() for path in scheduler.paths()] == kept
    back = [*scheduler.activate(), scheduler.query()]
    assert _calls(home)[-len(back) :] == [" ".join(each) for each in back]
    assert _calls(home).count(" ".join(first)) == 3  # as it was, refused, as it was


def _interrupts(home: Path, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], error: Exception) -> None:
    """The next command of these words is cut short by `error`, as proc.run does it."""
    real, left = proc.run, [error]

    def run(argv: Sequence[str], **more: Any) -> proc.Completed:
        if list(argv) == list(words) and left:
            if isinstance(error, InterruptedByUser):
                deadline.cancelled.set()
            raise left.pop()
        return real(argv, **more)

    monkeypatch.setattr(installing.proc, "run", run)


CUT = [InterruptedByUser("interrupted"), DeadlineError("`it` did not end in 60 s")]


@EACH
@pytest.mark.parametrize("error", CUT)
def test_a_change_that_is_cut_short_leaves_the_nights_of_before(
    kind: type[Scheduler], home: Path, monkeypatch: pytest.MonkeyPatch, error: LabError
) -> None:
    scheduler, before = kind(), _plan(home)
    installing.install(scheduler, before, lambda _: None)
    kept = [path.read_bytes() for path in scheduler.paths()]
    for command in (*scheduler.deactivate(), *scheduler.activate()):
        _interrupts(home, monkeypatch, command, error)
        with pytest.raises(type(error)):
            installing.install(scheduler, replace(before, hour=4), lambda _: None)
        assert deadline.cancelled.is_set() is isinstance(error, InterruptedByUser)
        deadline.cancelled.clear()
        assert [path.read_bytes() for path in scheduler.paths()] == kept
        assert _known(home)
        assert _calls(home)[-1] == " ".join(scheduler.query())  # it was asked


@EACH
@pytest.mark.parametrize("error", CUT)
def test_a_first_installation_that_is_cut_short_leaves_nothing_at_work(
    kind: type[Scheduler], home: Path, monkeypatch: pytest.MonkeyPatch, error: LabError
) -> None:
    scheduler = kind()

    def cut(said: str) -> None:
        if said == f"runs {' '.join(scheduler.activate()[-1])}":
            (home / "known").touch()  # it took it, and nobody waited for the answer
            raise error

    with pytest.raises(type(error)):
        installing.install(scheduler, _plan(home), cut)
    assert not any(path.exists() for path in scheduler.paths())
    assert not _known(home)


@EACH
def test_nights_of_before_that_cannot_be_had_again_are_said(kind: type[Scheduler], home: Path) -> None:
    scheduler, said = kind(), []
    installing.install(scheduler, _plan(home), lambda _: None)
    last = " ".join(scheduler.activate()[-1][1:])
    _answer(home, f'[ "$*" != "{last}" ] || exit 1')
    with pytest.raises(BlockedError, match="nights of before could not be activated again"):
        installing.install(scheduler, replace(_plan(home), hour=4), said.append)
    assert any("once more" in line for line in said)


@EACH
def test_without_its_program_nothing_is_written(
    kind: type[Scheduler], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BlockedError, match="is not here"):
        installing.install(kind(), _plan(home), lambda _: None)
    assert not any(path.exists() for path in kind().paths())


@EACH
def test_every_file_carries_the_marker(kind: type[Scheduler]) -> None:
    for unit in kind().units(PLAN):
        assert MARKER in unit.content.decode()


@pytest.mark.parametrize("system", ["Plan9", "Windows"])
def test_an_unknown_system_is_told_of_cron(system: str) -> None:
    with pytest.raises(BlockedError) as caught:
        installing.scheduler(system)
    assert "cron" in caught.value.hint


def test_each_system_has_its_scheduler() -> None:
    assert [installing.scheduler(system).name for system in ("Darwin", "Linux")] == ["launchd", "systemd"]


# --- what a Mac's launchd may not -------------------------------------------------------------------


@pytest.mark.parametrize("what", ["folder", "log", "LAB_STATE_DIR", "LAB_PYTHON"])
@pytest.mark.parametrize(
    "place", ["Documents", "Desktop/work", "Downloads", "documents", "Library/Mobile Documents/x"]
)
def test_a_night_that_launchd_could_not_read_is_not_installed(home: Path, what: str, place: str) -> None:
    """It would end with 126 every night, and nobody would see it."""
    there, wanted = home / place / "lab", _plan(home)
    changed: dict[str, Any] = {"environment": {what: str(there)}} if what.isupper() else {what: there}
    with pytest.raises(BlockedError, match="does not let launchd into") as caught:
        installing.install(Launchd(), replace(wanted, **changed), lambda _: None)
    assert str(there) in caught.value.what and "move the checkout" in caught.value.hint
    assert not any(path.exists() for path in Launchd().paths())
    assert _calls(home) == []


def test_a_link_does_not_hide_where_the_checkout_is(home: Path) -> None:
    (home / "Documents" / "lab").mkdir(parents=True)
    (home / "lab").symlink_to(home / "Documents" / "lab")
    assert Launchd().hindrance(replace(_plan(home), folder=home / "lab"))


@pytest.mark.parametrize(
    "place", ["lab", "Documents2/lab", "src/Documents", "Library/Application Support/lab"]
)
def test_other_folders_do_not_hinder(home: Path, place: str) -> None:
    plan_there = replace(_plan(home), folder=home / place, log=home / place / "nightly.log")
    assert Launchd().hindrance(plan_there) == ""
    assert Systemd().hindrance(replace(plan_there, folder=home / "Documents")) == ""


@pytest.mark.parametrize("given", ["name", "relative", "absolute"])
def test_the_python_that_was_chosen_is_taken_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    program = tmp_path / "tools" / "python3.99"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("LAB_CWD", str(tmp_path))
    values = {"name": "python3.99", "relative": "tools/python3.99", "absolute": str(program)}
    monkeypatch.setenv("LAB_PYTHON", values[given])
    assert plan.environment()["LAB_PYTHON"] == str(program)
    monkeypatch.setenv("LAB_PYTHON", "")
    assert "LAB_PYTHON" not in plan.environment()


def test_launchd_says_what_secrets_and_the_local_network_need() -> None:
    assert "keychain" in Launchd().advice() and "Local Network" in Launchd().advice()
