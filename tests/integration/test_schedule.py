"""systemd itself reads what nightly.install would write."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from lab.schedule import installing
from lab.schedule.plan import Plan
from lab.schedule.systemd import Systemd


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    program = tmp_path / "100% my $lab" / "invoke"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    plan = Plan(
        program=[str(program), "nightly.run"],
        folder=program.parent,
        hour=3,
        minute=30,
        minutes=210,
        log=tmp_path / "log",
        environment={"PATH": "/usr/bin:/bin"},
    )
    units = Systemd().units(plan)
    for unit in units:
        unit.path.parent.mkdir(parents=True, exist_ok=True)
        unit.path.write_bytes(unit.content)
    done = _verify([unit.path for unit in units])
    assert (done.returncode, done.stderr.strip()) == (0, "")
    # And it does find what is wrong.
    units[0].path.write_bytes(units[0].content.replace(b"ExecStart=", b"ExecStrat="))
    assert _verify([units[0].path]).stderr


@pytest.mark.skipif(shutil.which("systemctl") is None, reason="no systemctl here")
def test_a_timer_that_is_not_there_is_told_from_a_systemd_that_cannot_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On which nightly.uninstall relies: the one is gone, the other may go on."""
    monkeypatch.setattr("lab.schedule.systemd.NAME", "lab-no-such-night")
    answers = subprocess.run(["systemctl", "--user", "show-environment"], capture_output=True, check=False)
    if answers.returncode == 0:
        assert installing.state(Systemd())[0] is False
    for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    known, said = installing.state(Systemd())
    assert known is None
    assert "bus" in said


def _verify(paths: list[Path]) -> subprocess.CompletedProcess[str]:
    words = ["systemd-analyze", "--user", "--man=no", "verify", *map(str, paths)]
    # Whoever is not logged in has no runtime folder, which the user's manager wants to know: a short path.
    with tempfile.TemporaryDirectory(prefix="lab-run-") as runtime:
        env = {"XDG_RUNTIME_DIR": runtime, **os.environ}
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, env=env)


def test_systemd_reads_the_calendar(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    plan = Plan(["/bin/true"], tmp_path, 23, 5, 1, tmp_path / "log")
    timer = Systemd().units(plan)[1].content.decode()
    (when,) = [line.removeprefix("OnCalendar=") for line in timer.splitlines() if line.startswith("OnCal")]
    done = subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, text=True, check=True)
    assert "23:05:00" in done.stdout
