"""Looks as L1 and L2 give them, for the tests: texts in the formats of the real image and the real Android.

The real things are tried in tests/integration, by the double and by the emulated L2.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

from PIL import Image

from lab.emulators.docker_android import contract, reading, sighting
from lab.emulators.docker_android.sighting import Android, Inside, Novnc, Screen, Sighting
from lab.probes.kvm import ContainerLook

NONCE = "0123456789abcdef"
STARTED = "2026-11-25T22:58:56.250000000Z"
AT = reading.epoch(STARTED)
OURS = 7000.0
"""What our own clock said at that time."""
QEMU = "/opt/android/emulator/qemu/linux-x86_64/qemu-system-x86_64"
COMMAND = [QEMU, "@samsung_galaxy_s10_14.0", "-gpu", "swiftshader_indirect", "-accel", "on", "-verbose"]
KVM = ["/dev/kvm", "anon_inode:kvm-vcpu", "anon_inode:kvm-vm"]

STARTING = """\
2026-11-25 22:58:59 INFO Emulator - Config file does not exist
2026-11-25 22:59:03 INFO Emulator - emulator is created!
"""
LAUNCHED = f"""\
{STARTING}2026-11-25 22:59:03 INFO Emulator - KVM permission is granted!
2026-11-25 22:59:03 INFO Emulator - Deploying the emulator
2026-11-25 22:59:03 INFO Emulator - Command to run emulator: 'emulator @samsung_galaxy_s10_14.0 -gpu \
swiftshader_indirect -accel on -writable-system -verbose -wipe-data '
INFO    | Android emulator version 34.2.13.0 (build_id 11772612) (CL:N/A)
"""
SUPERVISOR = """\
2026-11-25 22:58:57,140 INFO supervisord started with pid 4
2026-11-25 22:58:58,145 INFO spawned: 'device' with pid 11
2026-11-25 22:58:59,180 INFO success: device entered RUNNING state, process has stayed up for > than 1 seconds
"""
WATCHER_DEAD = f"{SUPERVISOR}2026-11-25 23:14:20,162 INFO exited: device (exit status 1; not expected)\n"
FATAL = 'Traceback (most recent call last):\n  File "/usr/local/bin/docker-android", line 8, in <module>\n'

HOME = "com.google.android.apps.nexuslauncher/com.google.android.apps.nexuslauncher.NexusLauncherActivity"
PROPERTIES = {
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "google/sdk_gphone64_x86_64/emu64xa:14/UE1A.230829.050/1:userdebug/dev-keys",
    "init.svc.zygote": "running",
}


def inspected(**state: Any) -> dict[str, Any]:
    """`docker container inspect`."""
    running = state.get("Running", True)
    return {
        "Id": "4f1d" * 16,
        "Image": "sha256:1",
        "State": {
            "Status": "running" if running else "exited",
            "Running": running,
            "OOMKilled": False,
            "Pid": 4711 if running else 0,
            "ExitCode": 0,
            "Error": "",
            "StartedAt": STARTED,
            **state,
        },
        "Config": {
            "Image": "budtmo/docker-android:emulator_14.0",
            "Env": ["EMULATOR_DEVICE=Samsung Galaxy S10"],
            "Labels": {"io.lab.uuid": "u-1", sighting.NONCE_LABEL: NONCE, sighting.IMAGE_LABEL: "sha256:d"},
        },
    }


def process(command: list[str] = COMMAND, kvm: list[str] = KVM, after: float = 7.5) -> dict[str, Any]:
    return {"pid": 4799, "started": AT + after, "command": command, "kvm": kvm}


def look(**changes: Any) -> ContainerLook:
    """What container_look.py prints of a healthy container; `device` and `supervisor` are its logs."""
    files = {
        "/home/androidusr/device_status": changes.pop("status_file", "BOOTING"),
        "/home/androidusr/logs/device.stdout.log": changes.pop("device", LAUNCHED),
        "/home/androidusr/logs/supervisord-base.log": changes.pop("supervisor", SUPERVISOR),
    }
    told = {
        "schema": "lab.container_look/1",
        "at": AT + 60.0,
        "container": inspected(),
        "error": "",
        "processes": [process()],
        "files": files,
        "memory_kills": 0,
        "kernel": [],
        "log": "",
        "status": None,
        "said": "",
        "stages": {},
    }
    return ContainerLook.model_validate(told | changes)


def inside(**changes: Any) -> Inside:
    return reading.inside(look(**changes), contract.NEW)


def told_to(arguments: str, **changes: Any) -> Inside:
    """A container whose emulator is given further words."""
    described = inspected()
    described["Config"]["Env"] += [f"EMULATOR_ADDITIONAL_ARGS={arguments}"]
    words = {"processes": [process([*COMMAND, *arguments.split()], kvm=[])]} | changes
    return inside(container=described, **words)


def no_emulator(device: str, **changes: Any) -> Inside:
    """A container in which no emulator runs."""
    return inside(processes=[], device=device, **changes)


ANDROID = Android(
    adb="device",
    nonce=NONCE,
    boot_id="boot-of-l2",
    uptime=80.0,
    kernel="6.1.23-android14-4-00257-g7e35917775b8-ab9964412",
    completed=True,
    animation="stopped",
    properties=PROPERTIES,
    packages="package:/system/framework/framework-res.apk",
    focus=HOME,
    screen=Screen(1440, 3040, one_colour=False),
)
NOVNC = Novnc(200, "RFB 003.008\n")
BOOTING = replace(ANDROID, completed=False, animation="running", packages=None, focus=None, screen=None)


def seen(seconds: float, android: Android | None = ANDROID, **changes: Any) -> Sighting:
    """One look; `inside` and `novnc` may be given, and `at` where L1's clock does not go with ours."""
    there = changes.get("inside") or inside()
    at = changes.get("at", OURS + seconds)
    return Sighting(seconds, there, android, changes.get("novnc", NOVNC), at=at)


def moved(one: Sighting, by: float) -> Sighting:
    """The same look, later."""
    return replace(one, seconds=one.seconds + by, at=one.at + by)


def picture(*colours: tuple[int, int, int]) -> bytes:
    """A PNG of as many columns as there are colours."""
    image = Image.new("RGB", (len(colours), 2))
    for column, colour in enumerate(colours):
        for row in (0, 1):
            image.putpixel((column, row), colour)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
