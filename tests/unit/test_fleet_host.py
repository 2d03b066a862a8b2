"""A host of a fleet: what is written down, what its key may, what keeps it at work."""

from __future__ import annotations

import io
import json
import plistlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.core import files
from lab.core.errors import UsageError
from lab.fleet import joining, processes, pulse
from lab.fleet.joining import Joining, Road
from lab.fleet.places import Coordinator, Membership
from lab.schedule import installing
from lab.schedule.plan import SERVICE_MARKER, Plan
from lab.schedule.service import LaunchdService, SystemdService, service
from lab.tasks.fleet import join
from tests.unit.bed import Bed

ROAD = Road(name="mini", port=9989, coordinator="me@desk", coordinator_port=9989)


@pytest.fixture
def place(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Membership:
    monkeypatch.setattr("lab.fleet.environment.programs", lambda _session: bed.folder / "programs")
    return Membership(bed.session().settings.state_dir)


def test_what_is_written_is_private_and_the_same_again(bed: Bed, place: Membership) -> None:
    wanted = Joining("mini", coordinator="me@desk", password="a-long-password")
    first = joining.write(bed.session(), wanted)
    key = place.key.read_bytes()
    assert joining.write(bed.session(), Joining("mini", coordinator="me@desk")) == first
    assert place.key.read_bytes() == key
    assert joining.read(place) == first
    assert place.password.read_text() == "a-long-password\n"
    modes = {path.name: path.stat().st_mode & 0o777 for path in place.folder.iterdir()}
    assert modes == {
        "host.json": 0o600, "password": 0o600, "buildbot.tac": 0o600, "tunnel": 0o600, "tunnel.pub": 0o600,
        "work": 0o700,
    }  # fmt: skip
    assert "a-long-password" not in place.place.read_text() + place.tac.read_text() + place.job.read_text()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Joining("Mini", password="x"), "no name of a host"),
        (Joining("coordinator", password="x"), "no name of a host"),
        (Joining("mini", coordinator="-oProxyCommand=x", password="x"), "nothing that ssh could lead to"),
        (Joining("mini", coordinator="a b", password="x"), "nothing that ssh could lead to"),
        (Joining("mini"), "the password of this host is missing"),
    ],
)
def test_what_cannot_be_joined_writes_nothing(
    bed: Bed, place: Membership, wanted: Joining, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        joining.write(bed.session(), wanted)
    assert not place.folder.exists()


def test_a_coordinators_own_folder_is_no_hosts(bed: Bed, place: Membership) -> None:
    files.write_atomic(Coordinator(bed.session().settings.state_dir).plan, "{}")
    with pytest.raises(UsageError) as caught:
        joining.write(bed.session(), Joining("mini", password="x"))
    assert "LAB_STATE_DIR of its own" in caught.value.hint


def test_the_line_gives_back_forwarding_and_no_more(bed: Bed, place: Membership) -> None:
    joining.write(bed.session(), Joining("mini", coordinator="me@desk", password="x"))
    options, kind, _, name = joining.authorized_line(place, ROAD).split()
    assert options.split(",") == [
        "restrict",
        "port-forwarding",
        'permitopen="127.0.0.1:9989"',
        'permitlisten="127.0.0.1:1"',
        'command="/bin/false"',
    ]
    assert (kind, name) == ("ssh-ed25519", "lab-fleet-mini")


def test_the_tunnel_asks_nobody_and_trusts_no_new_key(place: Membership) -> None:
    words = joining.tunnel(place, ROAD)
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes"} <= set(words)
    assert words[-4:] == ["-L", "127.0.0.1:9989:127.0.0.1:9989", "--", "me@desk"]


@pytest.mark.parametrize("text", ["", "\n", "two words\n", "a\nb\n"])
def test_what_is_no_password_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(UsageError, match="there is no password"):
        join._password(str(tmp_path / "file"))
    if "\nb" not in text:  # of standard input a line is read
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(UsageError, match="there is no password"):
            join._password("-")


# --- what keeps it at work --------------------------------------------------------------------------

PLAN = Plan(
    ["/opt/50% lab/bin/invoke", "fleet.work"], Path("/opt/50% lab"), 0, 0, 0, Path("/x/log"), {"A": "b c"}
)


def test_launchd_starts_it_at_log_in_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (unit,) = LaunchdService().units(PLAN)
    document = plistlib.loads(unit.content)
    assert (document["RunAtLoad"], document["KeepAlive"]) == (True, True)
    assert document["ProgramArguments"][-2:] == list(PLAN.program)
    assert document["EnvironmentVariables"] == {"A": "b c"}
    assert SERVICE_MARKER in unit.content.decode()
    assert unit.path == tmp_path / "Library" / "LaunchAgents" / "io.lab.fleet.plist"


def test_systemd_starts_it_again_and_quotes_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (unit,) = SystemdService().units(PLAN)
    lines = unit.content.decode().splitlines()
    assert 'ExecStart="/opt/50%% lab/bin/invoke" "fleet.work"' in lines
    assert 'Environment="A=b c"' in lines
    assert {"Restart=always", "WantedBy=default.target"} <= set(lines)
    unit.path.parent.mkdir(parents=True)
    unit.path.write_bytes(unit.content)
    assert installing.installed(SystemdService()) == [unit.path]


def test_each_system_has_one() -> None:
    assert [service(name).name for name in ("Darwin", "Linux")] == ["launchd", "systemd"]


# --- processes --------------------------------------------------------------------------------------


def test_a_program_is_known_again_and_ended(tmp_path: Path) -> None:
    note, log = tmp_path / "note.json", tmp_path / "log"
    started = processes.start(
        ["sleep", "60"], note, log, folder=tmp_path, environment={"PATH": "/usr/bin:/bin"}
    )
    assert processes.running(note) == started
    assert log.stat().st_mode & 0o777 == 0o600
    assert processes.end(note, 5.0)
    assert processes.running(note) is None
    assert not processes.end(note, 5.0)


def test_a_program_that_is_stopped_is_ended_too(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    started = processes.start(["sleep", "60"], note, tmp_path / "log", folder=tmp_path, environment={})
    started.suspend()
    assert processes.end(note, 5.0)


def test_another_process_of_that_number_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            note = tmp_path / "note.json"
            note.write_text(json.dumps({"pid": other.pid, "started": time.time() - 3600.0}))
            assert processes.running(note) is None
            assert not processes.end(note, 1.0)
            assert other.poll() is None
        finally:
            other.kill()


# --- who was heard ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"at": "x"}', '{"at": 1, "plan": "p", "pid": 1, "hosts": 3}']
)
def test_a_pulse_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "pulse.json").write_text(text)
    known = pulse.read(tmp_path / "pulse.json")
    assert (known.plan, known.state("mini", 0.0), known.since("mini")) == ("", "never", "")
    assert known.deaf(1e9)


@pytest.mark.parametrize(
    ("connected", "ago", "state"),
    [(True, 1.0, "connected"), (False, 1.0, "away"), (True, 200.0, "silent"), (False, 200.0, "silent")],
)
def test_how_a_host_is_follows_from_when_it_was_heard(connected: bool, ago: float, state: str) -> None:
    heard = pulse.HostHeard(connected=connected, heard=1000.0 - ago)
    known = pulse.Pulse(at=1000.0, hosts={"mini": heard})
    assert known.state("mini", 1000.0) == state
