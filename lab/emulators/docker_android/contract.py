"""What docker-android's images promise, and where each promise is written.

Two generations: `budtmo/docker-android:emulator_14.0`, and before it one repository an Android
version, `butomo1989/docker-android-x86-8.1` (later under budtmo). Sources are files of
https://github.com/budtmo/docker-android at v3.5.2-p0, and at 1.8-p13 for the old ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SERVICES: Mapping[str, int] = {"adb": 5555, "console": 5554, "novnc": 6080}
"""Service to its port in the container: EXPOSE in docker/base and docker/emulator (old: docker/Emulator_x86).

ADB and console come through socat on the container's own address (cli/src/app.py, start_port_forwarder).
"""
APPIUM: Mapping[str, int] = {"appium": 4723}
SERIAL = "emulator-5554"
"""What the adb server in the container calls its emulator (cli/src/device/emulator.py, adb_name)."""

EMULATORS = ("/qemu-system-", "/emulator")
"""In the path of the emulator's own programs (docker/emulator: /usr/bin/emulator is a link)."""

CREATING, STARTING, BOOTING = "CREATING", "STARTING", "BOOTING"
RECONFIGURING, READY = "RECONFIGURING", "READY"
STATES = (CREATING, STARTING, BOOTING, RECONFIGURING, READY)
"""What the status file can say (cli/src/constants/DEVICE.py). There is none for a failure."""

_WATCHER_SECONDS = 15
"""Between two of the 59 times that its own watcher looks for the end of the boot before it dies (emulator.py,
check_adb_command). The image's 2 give a boot two minutes, and these a quarter of an hour."""

_API = {"5.0.1": 21, "5.1.1": 22, "6.0": 23, "7.0": 24, "7.1.1": 25, "8.0": 26, "8.1": 27} | {
    "9.0": 28,
    "10.0": 29,
    "11.0": 30,
    "12.0": 32,
    "13.0": 33,
    "14.0": 34,
}
"""Android version to API level (emulator.py, API_LEVEL; the old ones: README.md at 1.8-p13)."""
_TAG = re.compile(r"emulator_(?P<android>\d+(?:\.\d+)*)(?:_(?P<release>v[\w.-]+))?")
_OLD_NAME = re.compile(r"docker-android-x86-(?P<android>\d+(?:\.\d+)*)")

VNC_PASSWORD = "VNC_PASSWORD"  # noqa: S105 - the variable's name
_TRUE = ("yes", "true", "t", "1")
"""helper.convert_str_to_bool"""
_PASSWORD = re.compile(r"[A-Za-z0-9]{6,8}")
"""It is put on a shell's line (app.py, start_vnc_server), and VNC looks at eight characters."""


@dataclass(frozen=True)
class Contract:
    """One generation of images."""

    generation: str
    device: str
    """The variable that names the device profile."""
    arguments: str
    """The variable with further words for the emulator's command line; they come last on it."""
    telemetry: str
    """The variable that switches reports to the authors off; they are on by default."""
    work: str
    """The folder a command in the container starts in; the status file is there."""
    logs: str
    """LOG_PATH."""
    device_logs: tuple[str, ...]
    """What the emulator and the program that starts it print, within `logs`."""
    supervisor_log: str
    """Which programs started and ended, within `logs`."""
    has_password: bool
    """Whether the VNC server can ask for one."""

    @property
    def status_file(self) -> str:
        return f"{self.work}/device_status"

    def log(self, name: str) -> str:
        return f"{self.logs}/{name}"


NEW = Contract(
    generation="emulator",
    device="EMULATOR_DEVICE",  # cli/src/constants/ENV.py
    arguments="EMULATOR_ADDITIONAL_ARGS",
    telemetry="USER_BEHAVIOR_ANALYTICS",  # cli/src/device/__init__.py
    work="/home/androidusr",  # WORK_PATH of the base image, appium/appium
    logs="/home/androidusr/logs",  # docker/emulator
    device_logs=("device.stdout.log",),  # mixins/configs/process/supervisord-base.conf
    supervisor_log="supervisord-base.log",
    has_password=True,  # cli/src/app.py
)
OLD = Contract(
    generation="x86",
    device="DEVICE",  # src/app.py
    arguments="EMULATOR_ARGS",
    telemetry="GA",  # Analytics.md
    work="/root",
    logs="/var/log/supervisor",  # docker/Emulator_x86
    device_logs=("docker-android.stdout.log", "docker-android.stderr.log"),  # supervisord.conf
    supervisor_log="supervisord.log",
    has_password=False,  # supervisord.conf: x11vnc -nopw
)

DEVICES = (NEW.device, OLD.device)
"""The variables that name the device profile, the newer images' first."""

TELEMETRY_LINES = ("Sending user behavior analytics", "google-analytics")
"""What a container says that reports (device/__init__.py; old: src/appium.sh)."""


@dataclass(frozen=True)
class Version:
    """What an image's name says is in it; empty and None where it does not say."""

    android: str = ""
    api: int | None = None
    release: str = ""
    """docker-android's own."""


def of(reference: str) -> Contract:
    """The contract of the image of that name."""
    return OLD if _OLD_NAME.search(reference) else NEW


def version(reference: str) -> Version:
    """What the tag (or, with old images, the repository) says."""
    path, _, tag = reference.partition("@")[0].rpartition(":")
    if match := _TAG.fullmatch(tag):
        return Version(match["android"], _API.get(match["android"]), match["release"] or "")
    if match := _OLD_NAME.search(f"{path}:{tag}"):
        return Version(match["android"], _API.get(match["android"]), tag if path else "")
    return Version()


def environment(
    contract: Contract,
    *,
    device: str,
    password: str,
    appium: bool,
    further: Sequence[str] = (),
    arguments: str = "",
) -> tuple[dict[str, str], list[str]]:
    """The container's variables, and what a person should be told of them.

    `further` are KEY=VALUE words of the user's, which come last; `arguments` are added to the
    emulator's. Raises ValueError for a word that is none, or a password the image would mangle.
    """
    if not _PASSWORD.fullmatch(password):
        raise ValueError("a VNC password is six to eight letters and digits")
    given = {
        contract.device: device,
        "WEB_VNC": "true",
        "WEB_LOG": "false",  # it listens on all addresses, and joins any path to its folder (app.py)
        contract.telemetry: "false",
        "DEVICE_INTERVAL_WAITING": str(_WATCHER_SECONDS),
        "APPIUM": "true" if appium else "false",
    }
    if contract.has_password:
        given[VNC_PASSWORD] = password
    notes = []
    for word in further:
        name, equals, value = word.partition("=")
        if not name or not equals or "\n" in word:
            raise ValueError(f"{word!r} is not KEY=VALUE")
        if name == contract.telemetry and value.lower() in _TRUE:
            notes.append(f"emulator.env switches {name} on: the image reports to its authors")
        if name == VNC_PASSWORD and value != password:
            notes.append(f"emulator.env sets {name}, which lab makes itself: its own is used")
            continue
        given[name] = value
    if arguments:
        given[contract.arguments] = f"{given.get(contract.arguments, '')} {arguments}".strip()
    return given, notes


def reports(contract: Contract, further: Sequence[str]) -> bool:
    """Whether the user's own words let the image report to its authors."""
    given = dict(word.split("=", 1) for word in further if "=" in word)
    return given.get(contract.telemetry, "").lower() in _TRUE


def env_file(variables: Mapping[str, str]) -> str:
    """What `docker run --env-file` reads."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())
