"""nightly.install, nightly.status and nightly.uninstall."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.core import deadline, lock
from lab.core.errors import LabError, UsageError
from lab.core.tell import Terminal
from lab.nights.keeping import lock_file
from lab.schedule.systemd import Systemd
from lab.tasks.nightly.schedule import install, status, uninstall
from tests.unit.bed import Bed, checked
from tests.unit.nights import (
    past,
    session,
    spend,
)

AT = "2026-01-02T03:04:05.678+00:00"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    for name in ("LAB_WEBHOOK_URL", "LAB_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


@pytest.fixture
def systemctl(tmp_path: Path, bed: Bed) -> Path:
    """A home of its own whose systemctl knows what it was given (tests/unit/test_schedule.py has others)."""
    tool = tmp_path / "tools" / "systemctl"
    tool.parent.mkdir()
    known = tmp_path / "known"
    tool.write_text(
        f"""#!/bin/sh
case "$2" in
enable) touch {known};;
stop) rm -f {known};;
status) [ ! -e {tmp_path}/no-bus ] || exit 1; [ -e {known} ] || exit 4; echo active;;
esac
"""
    )
    tool.chmod(0o755)
    bed.patch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    bed.patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    bed.patch.setattr(platform, "system", lambda: "Linux")
    return tmp_path / "home"


def test_print_writes_nothing(bed: Bed, systemctl: Path) -> None:
    result = checked(install(session(bed), print_only=True))
    assert [Path(unit["path"]).name for unit in result["units"]] == [
        "lab-nightly.service",
        "lab-nightly.timer",
    ]
    assert "bin/invoke" in result["units"][0]["content"]
    assert not systemctl.exists()
    assert not (bed.folder / "state").exists()


def test_install_status_uninstall(bed: Bed, systemctl: Path) -> None:
    result = checked(install(session(bed), at="04:05"))
    assert result["changed"]
    assert len(result["installed"]) == 2
    assert not checked(install(session(bed), at="04:05"))["changed"]
    with pytest.raises(UsageError):
        install(session(bed), at="4 o'clock")
    spend(bed, runs=1, compare=False)
    said = checked(status(bed.session()))
    assert (said["active"], said["running"], said["last"]["verdict"]) == (True, None, "confirmed")
    with lock.hold(lock_file(bed.session()), "nightly.run", "the night"):
        assert checked(status(bed.session()))["running"]["pid"] == os.getpid()
    (bed.folder / "no-bus").touch()
    assert checked(status(bed.session()))["active"] is None
    with pytest.raises(LabError, match="nothing was removed"):
        uninstall(bed.session())
    (bed.folder / "no-bus").unlink()
    assert len(checked(status(bed.session()))["installed"]) == 2
    assert checked(uninstall(bed.session()))["installed"] == []
    assert checked(status(bed.session()))["active"] is False
    assert not checked(uninstall(bed.session()))["changed"]
    assert len(past(bed)) == 1


@pytest.mark.parametrize("bus", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("files", [True, False])
def test_status_says_what_is_installed_and_what_is_at_work(
    bed: Bed, systemctl: Path, capsys: pytest.CaptureFixture[str], files: bool, known: bool, bus: bool
) -> None:
    install(session(bed))
    if not files:
        for path in Systemd().paths():
            path.unlink()
    if not known:
        (bed.folder / "known").unlink()
    if not bus:
        (bed.folder / "no-bus").touch()
    reply = status(bed.session())
    assert checked(reply)["active"] == (known if bus else None)
    assert reply.show
    reply.show(Terminal(sys.stdout, width=200))
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("systemd: written" if files and not (known and bus) else "systemd: ")
    assert ("it cannot be asked" in said) is not bus
    assert ("files are gone" in said) is (known and bus and not files)
