"""What docker-android asks over ADB: looks at Android, and apps that are installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, LabError, UsageError
from lab.core.steps import Steps
from lab.emulators.docker_android import (
    apk,
    looking,
)
from tests.unit import docker_android_looks as looks
from tests.unit.docker_android_looks import NONCE


class FakeAdb:
    """adb on the host, and a device that answers each part of a question."""

    def __init__(self, state: str = "device", **parts: str) -> None:
        self.parts = parts
        self.online = state
        self.asked: list[str] = []
        self.broken = ""

    def state(self, _: str) -> tuple[str, str]:
        return self.online, "" if self.online == "device" else "failed to connect"

    def shell(self, _: str, *argv: str, **__: Any) -> str:
        self.asked.append(argv[-1])
        if self.broken and self.broken in argv[-1]:
            raise DeadlineError("it says nothing")
        named = re.findall(r"echo lab-part (\w+)", argv[-1])
        return "".join(f"\nlab-part {name}\n{self.parts.get(name, '')}\n" for name in named)

    def output(self, _: str, *argv: str, **__: Any) -> bytes:
        self.asked.append(" ".join(argv))
        return looks.picture((0, 0, 0), (9, 99, 9))


TOLD = {"nonce": NONCE, "completed": "1", "animation": "stopped", "uptime": "9.5 1.0", "boot_id": "b"}
SERVICES = {
    "packages": "package:/system/framework/framework-res.apk",
    "focus": f"  mCurrentFocus=Window{{1 u0 {looks.HOME}}}",
    "awake": "  mWakefulness=Awake",
    "properties": "[ro.build.version.release]: [14]",
}


def test_android_that_answers_is_asked_for_everything() -> None:
    adb = FakeAdb(**TOLD, **SERVICES)
    seen = looking.android(cast(Any, adb), "127.0.0.1:1", whole=True)
    assert seen.online and seen.completed and seen.launcher and seen.packages_answer
    assert seen.screen is not None and not seen.screen.one_colour and seen.uptime == 9.5
    assert seen.properties == {"ro.build.version.release": "14"}
    assert not any("WAKEUP" in line for line in adb.asked)


def test_sleeping_screen_is_woken_before_it_is_judged() -> None:
    adb = FakeAdb(**TOLD, **{**SERVICES, "awake": "  mWakefulness=Asleep"})
    looking.android(cast(Any, adb), "127.0.0.1:1", whole=True)
    woken = next(number for number, line in enumerate(adb.asked) if "WAKEUP" in line)
    assert adb.asked.index("screencap -p") > woken


def test_glance_asks_once_and_not_for_services() -> None:
    adb = FakeAdb(**TOLD, **SERVICES)
    seen = looking.android(cast(Any, adb), "127.0.0.1:1", whole=False)
    assert len(adb.asked) == 1 and seen.completed and seen.focus is None and seen.screen is None
    early = FakeAdb(**{**TOLD, "completed": "", "animation": ""})
    assert looking.android(cast(Any, early), "127.0.0.1:1", whole=True).packages is None
    assert not any("dumpsys" in line for line in early.asked)


def test_android_that_falls_silent_is_what_was_seen() -> None:
    offline = looking.android(cast(Any, FakeAdb("offline")), "127.0.0.1:1", whole=True)
    assert offline.adb == "offline" and offline.error and not offline.online
    silent = FakeAdb(**TOLD)
    silent.broken = "boot_id"
    assert looking.android(cast(Any, silent), "127.0.0.1:1", whole=True).adb == "silent"
    busy = FakeAdb(**TOLD, **SERVICES)
    busy.broken = "dumpsys"
    seen = looking.android(cast(Any, busy), "127.0.0.1:1", whole=True)
    assert seen.completed and seen.packages is None and seen.focus is None and seen.screen is not None


class FakeServer:
    """adb on the host: answers by the first words of what the device is asked."""

    def __init__(self, installed: str, lists: Sequence[str], lost: str = "") -> None:
        self.installed, self.lists, self.lost = installed, list(lists), lost

    def shell(self, _: str, *argv: str, **__: Any) -> str:
        if self.lost and argv[:2] != ("pm", "list"):
            raise LabError(f"{argv[0]}: {self.lost}")
        if argv[:2] == ("pm", "list"):
            return self.lists.pop(0)
        return self.installed if argv[:2] == ("pm", "install") else ""

    def command(self, _: str, *argv: str, **__: Any) -> list[str]:
        return ["true", *argv]


def installed(tmp_path: Path, said: str, *lists: str) -> str:
    path = tmp_path / "app.apk"
    path.write_bytes(b"PK\x03\x04rest")
    with Steps().step("install") as step:
        return apk.install(cast(Any, FakeServer(said, lists)), "127.0.0.1:1", path, step, Deadline.after(9))


def test_installed_app_is_named_new_or_replaced(tmp_path: Path) -> None:
    before = "package:/system/a.apk=android\npackage:/data/app/old==/base.apk=com.example.app\n"
    after = before.replace("old==", "new==")
    assert installed(tmp_path, "Success\n", before, after) == "com.example.app"
    assert installed(tmp_path, "Success\n", "package:/system/a.apk=android\n", before) == "com.example.app"
    assert installed(tmp_path, "Success\n", before, before) == ""
    assert installed(tmp_path, "Success\n", "package:android\n", "package:android\npackage:a.b\n") == "a.b"


def test_what_went_wrong_is_told_although_tidying_up_fails_too(tmp_path: Path) -> None:
    path = tmp_path / "app.apk"
    path.write_bytes(b"PK\x03\x04rest")
    server = cast(Any, FakeServer("", [""], lost="device offline"))
    with Steps().step("install") as step, pytest.raises(LabError, match=r"^pm: device offline"):
        apk.install(server, "127.0.0.1:1", path, step, Deadline.after(9))


def test_refused_app_is_refused_in_androids_words(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="INSTALL_FAILED_NO_MATCHING_ABIS"):
        installed(tmp_path, "Failure [INSTALL_FAILED_NO_MATCHING_ABIS: Failed to extract]\n", "", "")
    path = tmp_path / "no.apk"
    path.write_text("no zip")
    with Steps().step("install") as step, pytest.raises(UsageError, match="no APK"):
        apk.install(cast(Any, None), "127.0.0.1:1", path, step, Deadline.after(9))
