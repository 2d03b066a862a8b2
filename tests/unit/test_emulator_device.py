"""What is done with an emulator that runs: its logs, its screen, apps, a shell."""

from __future__ import annotations

import html
import json
import re
import stat
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.adb import AdbServer
from lab.core import deadline, proc, redact
from lab.core.errors import UsageError
from lab.tasks.emulator import device
from lab.tasks.lab import open as opening
from lab.tasks.lab import power
from lab.tasks.lab.up import up
from tests.unit.bed import Bed, checked
from tests.unit.beside import NAME, _forwards, _shown, _up
from tests.unit.fakes import PNG, VNC_PASSWORD, FakeEmulator


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """A lab whose canary is up."""
    made = Bed(tmp_path, monkeypatch)
    monkeypatch.setattr(AdbServer, "disconnect", lambda _self, address: made.world.did(f"forget {address}"))
    up(made.session(), NAME)
    yield made
    deadline.cancelled.clear()


# What is done with one that runs


def test_logs(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    _up(bed)
    (file,) = checked(device.logs(bed.session(), NAME, "second", capture=True))["files"]
    assert file == {"name": "container.log", "text": "log of the container second\n"}
    assert capsys.readouterr().out == ""
    device.logs(bed.session(), NAME, "second")
    assert capsys.readouterr().out == "==> container.log <==\nlog of the container second\n"


def test_followed_logs_are_printed_line_by_line(
    bed: Bed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.world.log_lines = [("a.log", "one"), ("a.log", "two"), ("b.log", "s3cret-word"), ("a.log", "three")]
    redact.register("s3cret-word")
    monkeypatch.setattr(FakeEmulator, "logs", lambda *_: pytest.fail("all logs were gathered"))
    assert device.logs(bed.session(), NAME, follow=True).code == 0
    a, b = "==> a.log <==\n", "==> b.log <==\n"
    assert capsys.readouterr().out == f"{a}one\ntwo\n{b}[redacted]\n{a}three\n"
    with pytest.raises(UsageError, match="no JSON"):
        device.logs(bed.session(), NAME, follow=True, capture=True)
    assert capsys.readouterr().out == ""


def test_screenshot_and_install(bed: Bed, tmp_path: Path) -> None:
    _up(bed)
    target, apk = tmp_path / "screen.png", tmp_path / "app.apk"
    apk.write_bytes(b"PK\3\4")
    assert checked(device.screenshot(bed.session(), NAME, str(target), "second"))["notes"] == [str(target)]
    assert target.read_bytes() == PNG
    installed = checked(device.install(bed.session(), NAME, str(apk), "second"))
    assert installed["notes"] == ["org.example.app"]
    with pytest.raises(UsageError, match=r"\.png"):
        device.screenshot(bed.session(), NAME, str(tmp_path / "screen.jpg"), "second")
    with pytest.raises(UsageError, match="not a file"):
        device.install(bed.session(), NAME, str(tmp_path / "none.apk"), "second")


def test_a_canary_has_no_screen_no_apps_and_no_page(bed: Bed, tmp_path: Path) -> None:
    apk = tmp_path / "app.apk"
    apk.write_bytes(b"PK")
    for act in (
        lambda: device.screenshot(bed.session(), NAME, str(tmp_path / "a.png")),
        lambda: device.install(bed.session(), NAME, str(apk)),
        lambda: opening.open_(bed.session(), NAME),
    ):
        with pytest.raises(UsageError, match="main is canary, which is not Android") as caught:
            act()
        assert "--kind docker-android" in caught.value.hint


def test_shell_is_adbs_own_on_this_emulator(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(words: list[str], **_: Any) -> proc.Completed:
        ran.append(words)
        return proc.Completed(words, 3, "out\n", "err\n", 0.1)

    def command(_self: AdbServer, address: str, *argv: str, deadline: Any) -> list[str]:
        return ["adb", "-s", address, *argv]

    monkeypatch.setattr(AdbServer, "command", command)
    monkeypatch.setattr(proc, "run", run)
    monkeypatch.setattr(proc, "passthrough", lambda words: ran.append(words) or 4)
    _up(bed)
    address = f"127.0.0.1:{_forwards(bed)['adb-second']}"
    reply = device.shell(bed.session(), NAME, ["getprop", "a b"], "second", capture=True)
    assert (checked(reply)["out"], reply.code) == ("out\n", 3)
    assert device.shell(bed.session(), NAME, [], "second").code == 4
    assert ran == [["adb", "-s", address, "shell", "getprop", "'a b'"], ["adb", "-s", address, "shell"]]
    with pytest.raises(UsageError):
        device.shell(bed.session(), NAME, [], "second", capture=True)


@pytest.mark.parametrize(
    ("display", "only_print", "terminal"),
    [(True, False, True), (False, False, True), (True, True, True), (True, True, False)],
)
def test_the_password_goes_to_the_browser_or_a_terminal_only(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, display: bool, only_print: bool, terminal: bool
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: shown.append(url) or True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    if display:
        monkeypatch.setenv("DISPLAY", ":0")
    _up(bed)
    reply = opening.open_(bed.session(), NAME, "second", only_print)
    document, told = checked(reply), _shown(reply)
    assert document["opened"] is (display and not only_print) is bool(shown)
    page = bed.lab().folder / "keys" / "screen.html"
    assert page.exists() is bool(shown)
    for url in shown:  # it is an argument of the browser's, and every user sees those
        assert (url, VNC_PASSWORD in url) == (page.as_uri(), False)
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        (target,) = re.findall(r'content="0; url=([^"]*)"', page.read_text())
        assert html.unescape(target) == (
            f"{document['address']}vnc.html?autoconnect=1&resize=scale#password={VNC_PASSWORD}"
        )
    assert VNC_PASSWORD not in json.dumps(document)
    assert (VNC_PASSWORD in told) is (only_print and terminal)
    assert document["address"].removesuffix("/") in told
    power.halt(bed.session(), NAME)
    assert not page.exists(), "there is no screen any more"


def test_a_browser_that_cannot_be_started_leaves_no_page(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    _up(bed)
    page = bed.lab().folder / "keys" / "screen.html"

    def gone(url: str) -> bool:
        assert url == page.as_uri() and page.exists()
        return False

    monkeypatch.setattr("webbrowser.open", gone)
    assert checked(opening.open_(bed.session(), NAME, "second"))["opened"] is False
    assert not page.exists()


def test_what_ps_shows_of_a_browser_has_no_password(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real program in the browser's place, started by Python's own webbrowser."""
    seen, browser = bed.folder / "seen", bed.folder / "browser"
    browser.write_text(f'#!/bin/sh\ntr "\\0" " " </proc/$$/cmdline >{seen}\n')
    browser.chmod(0o755)
    real = webbrowser.GenericBrowser([str(browser), "%s"])
    monkeypatch.setattr("webbrowser.open", real.open)
    monkeypatch.setenv("DISPLAY", ":0")
    _up(bed)
    assert checked(opening.open_(bed.session(), NAME, "second"))["opened"] is True
    assert "screen.html" in seen.read_text() and VNC_PASSWORD not in seen.read_text()
