"""Texts and pictures as they come, read as what they show. Pure.

Nothing here raises for text it does not know: it then sees nothing.
"""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from PIL import Image, UnidentifiedImageError

from lab.emulators import container
from lab.emulators.docker_android import words
from lab.emulators.docker_android.contract import DEVICES, Contract
from lab.emulators.docker_android.sighting import (
    AUTO,
    DOUBLE_LABEL,
    IMAGE_LABEL,
    LAUNCH_LABEL,
    NONCE_LABEL,
    NOT_RESPONDING,
    OFF,
    TCG,
    Inside,
    Screen,
)
from lab.emulators.protocol import ContainerState
from lab.formats import program
from lab.probes.kvm import ContainerLook, Process

_PART = "lab-part "
_PROPERTY = re.compile(r"^\[(?P<name>[^\]]+)\]: \[(?P<value>[^\n]*)\]$", re.MULTILINE)
_FOCUS = re.compile(r"mCurrentFocus=Window\{\S+ (?:u\d+ )?(?P<window>[^}\n]*)\}")
_EXITED = re.compile(r"exited: (?:device|docker-appium) \(")
_SPAWNED = re.compile(r"spawned: '(?:device|docker-appium)'")
_LAUNCH = re.compile(r"^(?P<day>\d{4}-\d\d-\d\d) (?P<time>\d\d:\d\d:\d\d) .*Command to run", re.MULTILINE)
_ALIKE = 2
"""Levels of a colour channel that are still one colour: a screen may be dithered."""


def inside(look: ContainerLook, contract: Contract) -> Inside:
    """What L1's look says of the container."""
    inspected = look.container
    if inspected is None:
        return Inside(container.parse(None), 0.0)
    described = inspected["State"]
    device_log = "\n".join(
        look.files[path] for path in map(contract.log, contract.device_logs) if path in look.files
    )
    supervisor_log = look.files.get(contract.log(contract.supervisor_log), "")
    emulator = _emulator(look.processes)
    acceleration = _acceleration(emulator.command) if emulator else ""
    arguments = container.environment(inspected).get(contract.arguments, "")
    told_state, adb = state(inspected), listed(look.said)
    made_vm = any("anon_inode:kvm-vm" in process.kvm for process in look.processes)
    # Left to choose, as it is without a word too, it took no KVM: L2 is online without.
    chose = emulator is not None and acceleration in ("", AUTO)
    fell_back = chose and adb == "device" and not made_vm
    return Inside(
        state=told_state,
        started=epoch(described.get("StartedAt", "")),
        status=look.files.get(contract.status_file, "").strip(),
        emulator=emulator,
        acceleration=acceleration,
        told=arguments and f"{contract.arguments}={arguments}",
        switched_off=acceleration == OFF or _acceleration(_words(arguments)) in (OFF, TCG) or fell_back,
        holder=next((process for process in look.processes if "/dev/kvm" in process.kvm), None),
        made_vm=made_vm,
        spoke=words.spoke(device_log),
        launched_at=_launched_at(device_log),
        watcher_ended=_ended(f"{supervisor_log}\n{look.log}"),
        memory_kills=look.memory_kills,
        killed=container.killed_for_memory(told_state),
        restarted=bool(told_state.facts["restarted"]),
        device_log=device_log,
        supervisor_log=supervisor_log,
        log=look.log,
        kernel=tuple(look.kernel),
        adb=adb,
    )


def state(inspected: Mapping[str, Any] | None) -> ContainerState:
    """Docker's description, with what lab wrote on the container and what its image says of itself."""
    if inspected is None:
        return container.parse(None)
    labels, given = inspected["Config"].get("Labels") or {}, container.environment(inspected)
    facts = {
        "nonce": labels.get(NONCE_LABEL, ""),
        "image": labels.get(IMAGE_LABEL, ""),
        "launch": labels.get(LAUNCH_LABEL, ""),
        "device": next((given[name] for name in DEVICES if given.get(name)), ""),
        "double": labels.get(DOUBLE_LABEL, ""),
        "error": inspected["State"].get("Error", ""),
    }
    return container.parse(inspected, facts)


def epoch(stamp: str) -> float:
    """Docker's time stamp (nanoseconds, UTC) as seconds since 1970; 0 for none."""
    whole, _, fraction = stamp.removesuffix("Z").partition(".")
    try:
        seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
    except ValueError:
        return 0.0
    # A container that never started is of the year 1.
    return max(0.0, seconds + (float(f"0.{fraction}") if fraction.isdecimal() else 0.0))


def listed(text: str) -> str:
    """The state that `adb devices` gives the container's emulator."""
    for line in text.splitlines():
        words = line.split("\t")
        if len(words) == 2 and words[0].startswith("emulator-"):
            return words[1].strip()
    return ""


def question(**parts: str) -> str:
    """A shell script whose parts' answers `answers` can tell apart."""
    return "; ".join(f"echo; echo {_PART}{name}; {script}" for name, script in parts.items())


def answers(printed: str) -> dict[str, str]:
    """Part to what it said, stripped."""
    parts: dict[str, str] = {}
    for piece in f"\n{printed}".replace("\r", "").split(f"\n{_PART}")[1:]:
        name, _, text = piece.partition("\n")
        parts[name.strip()] = text.strip()
    return parts


def properties(text: str) -> dict[str, str]:
    """What `getprop` prints."""
    return {match["name"]: match["value"] for match in _PROPERTY.finditer(text.replace("\r", ""))}


def uptime(text: str) -> float | None:
    """The first figure of /proc/uptime."""
    words = text.split()
    return float(words[0]) if words and re.fullmatch(r"\d+\.\d+", words[0]) else None


def focus(text: str) -> str:
    """The window with the focus, of what `dumpsys window` says; a dialog of an ANR before all others."""
    windows = [match["window"].strip() for match in _FOCUS.finditer(text)]
    dialogs = [window for window in windows if NOT_RESPONDING.search(window)]
    return next(iter(dialogs or windows), "")


def signature(text: str) -> str | None:
    """What the program that reads CPUID wrote; empty without a hypervisor, None when it did not run."""
    _, mark, rest = text.partition(program.SIGNATURE)
    return rest[:12].rstrip("\0 \r\n") if mark else None


def screen(picture: bytes) -> Screen:
    """A PNG as what it shows. Raises ValueError when it is none."""
    try:
        with Image.open(io.BytesIO(picture), formats=["PNG"]) as image:
            extrema = image.convert("RGB").getextrema()
            width, height = image.size
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"screencap gave no picture: {error}") from error
    spread = max(high - low for low, high in extrema)  # type: ignore[misc]
    return Screen(width, height, one_colour=spread <= _ALIKE)


def _emulator(processes: list[Process]) -> Process | None:
    """QEMU before what starts it."""

    def named(process: Process) -> str:
        return PurePosixPath(process.command[0]).name if process.command else ""

    machines = [candidate for candidate in processes if named(candidate).startswith("qemu-system-")]
    starters = [candidate for candidate in processes if named(candidate) == "emulator"]
    with_words = [candidate for candidate in machines + starters if "-accel" in candidate.command]
    return next(
        iter([candidate for candidate in machines if candidate in with_words] or machines or starters), None
    )


def _acceleration(command: list[str]) -> str:
    """The last word of it counts; `-no-accel` is an older one for the same."""
    acceleration = ""
    for word, after in pairwise([*command, ""]):
        if word in ("-accel", "-no-accel"):
            acceleration = after if word == "-accel" else OFF
    return acceleration


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # no closing quotation
        return line.split()


def _launched_at(device_log: str) -> float:
    """The image's log has whole seconds, of the clock of L1: containers have no other."""
    launches = list(_LAUNCH.finditer(device_log))
    return epoch(f"{launches[-1]['day']}T{launches[-1]['time']}Z") if launches else 0.0


def _ended(log: str) -> bool:
    """Whether the program that starts the emulator has ended, and was not started again."""
    ends = [match.start() for match in _EXITED.finditer(log)]
    starts = [match.start() for match in _SPAWNED.finditer(log)]
    return bool(ends) and ends[-1] > max(starts, default=-1)
