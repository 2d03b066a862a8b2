"""Looking: one look at everything, in as few round trips as it takes, remembered for the next.

L1 is asked by one command over SSH, Android by one or two over the host's ADB, and noVNC as a
browser would. What cannot be reached is what was seen; only L1 itself raises.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence

import requests
import urllib3.exceptions as low
import websocket

from lab.adb import AdbServer
from lab.core import web
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError, LabError
from lab.core.journal import Journal
from lab.emulators.docker_android import reading, sighting
from lab.emulators.docker_android.contract import EMULATORS, Contract
from lab.emulators.docker_android.sighting import Android, Inside, Novnc, Sighting
from lab.emulators.docker_android.timeline import Reached
from lab.emulators.protocol import ContainerState, Reach
from lab.guest.ssh import Guest
from lab.probes.kvm import ContainerLook, parsed, script

_SEEN = 600
"""Looks that are kept: at one a second or fewer, the last ten minutes and more."""
_LOG_BYTES = 48 << 10
_LOOK_SECONDS = 90.0
_CLOCK_SECONDS = 1.0
"""How far L1's clock may run off between two looks: what is more was set."""
_ASK_SECONDS = 20.0
"""One question to Android: a slow one may take its time over `dumpsys`."""
_NOVNC_SECONDS = 10.0
"""For the page, and again for the WebSocket: each as a whole."""
_NOVNC_BYTES = 1 << 20
"""Of either; what is looked at is the page's status, and twelve bytes of the VNC server."""
_GREETING = 200

BASICS = {
    "boot_id": "cat /proc/sys/kernel/random/boot_id",
    "uptime": "cat /proc/uptime",
    "nonce": f"getprop {sighting.NONCE_PROPERTY}",
    "completed": "getprop sys.boot_completed",
    "animation": "getprop init.svc.bootanim",
}
KERNEL = {
    "kernel": "uname -r",
    "clocksource": "cat /sys/devices/system/clocksource/clocksource0/current_clocksource 2>/dev/null",
}
_PROPERTIES = {"properties": "getprop"}
_SERVICES = {
    "packages": "pm path android 2>&1",
    "focus": "dumpsys window 2>&1 | grep mCurrentFocus",
    "awake": "dumpsys power 2>&1 | grep mWakefulness=",
}


class Watch:
    """All that one emulator's object has seen of its container since it started."""

    def __init__(self, name: str, contract: Contract, journal: Journal) -> None:
        self.seen: deque[Sighting] = deque(maxlen=_SEEN)
        self._reached = Reached()
        self._name = name
        self._contract = contract
        self._journal = journal
        self.clock_was_set = False
        """L1's clock, while this start of the container was looked at."""
        self._inside = Inside(ContainerState(exists=False, running=False), 0.0)
        self._offset = 0.0
        """L1's wall clock less this process's monotonic clock."""
        self._bounds = (-math.inf, math.inf)
        """What that is at least and at most: the last look was begun and ended in between."""

    def container(self, guest: Guest, *, ask_adb: bool = False) -> Sighting:
        """Look at the container alone, from L1. With `ask_adb` its own adb is asked, too."""
        return self._keep(self._look_inside(guest, ask_adb))

    def everything(self, reach: Reach) -> Sighting:
        """Look at container, Android and noVNC."""
        inside = self._look_inside(reach.guest, ask_adb=False)
        running = inside.state.running
        android = self.android(reach, whole=True) if running else None
        page = novnc(reach.addresses["novnc"]) if running and "novnc" in reach.addresses else None
        return self._keep(inside, android, page)

    def glance(self, reach: Reach) -> Sighting:
        """Ask Android alone, shortly: the rest is as it was seen last."""
        return self._keep(self._inside, self.android(reach, whole=False))

    def reached(self, stage: str, at: float) -> None:
        """Take somebody's word for when a stage was reached: `at` is L1's wall clock.

        One of L2's is of the boot that was heard last.
        """
        self._reached.add(stage, round(max(0.0, at - self._inside.started), 2))

    @property
    def stages(self) -> dict[str, float]:
        """Stage to seconds from the container's start: its own, and those of L2's last boot."""
        return self._reached.stages

    @property
    def restarted(self) -> bool:
        """L2 has restarted in this start of the container."""
        return self._reached.restarted

    @property
    def now(self) -> float:
        """L1's wall clock."""
        return time.monotonic() + self._offset

    def heard(self, android: Android) -> None:
        """Keep what somebody heard of L2 by the container's own adb."""
        self._keep(self._inside, heard=android)

    def tell(self, guest: Guest) -> None:
        """Leave what was seen last where another command finds it."""
        ask(guest, self._name, self._contract, stages=self._reached.to_tell(), limit=0)

    def android(self, reach: Reach, *, whole: bool) -> Android:
        """What answers over ADB; with `whole` its services and screen, too."""
        return android(AdbServer(reach.adb_folder, self._journal), reach.addresses["adb"], whole=whole)

    def _look_inside(self, guest: Guest, ask_adb: bool) -> Inside:
        command = ["adb", "devices"] if ask_adb else []
        began = time.monotonic()
        look = ask(guest, self._name, self._contract, command=command, stages=self._reached.to_tell())
        inside, ended = reading.inside(look, self._contract), time.monotonic()
        if inside.started != self._inside.started:
            self.seen.clear()
            self._reached, self.clock_was_set = Reached(), False
            self._bounds = (-math.inf, math.inf)
        self._reached.told(look.stages)
        least, most = look.at - ended - _CLOCK_SECONDS, look.at - began + _CLOCK_SECONDS
        self.clock_was_set |= least > self._bounds[1] or most < self._bounds[0]
        self._bounds = (least, most)
        self._inside, self._offset = inside, look.at - ended
        return inside

    def _keep(
        self,
        inside: Inside,
        android: Android | None = None,
        page: Novnc | None = None,
        heard: Android | None = None,
    ) -> Sighting:
        at = time.monotonic()
        seconds = max(0.0, at + self._offset - inside.started) if inside.started else 0.0
        kept = Sighting(seconds, inside, android, page, heard, at=at)
        self.seen.append(kept)
        self._reached.saw(kept)
        return kept


def ask(
    guest: Guest,
    name: str,
    contract: Contract,
    *,
    command: Sequence[str] = (),
    stages: Mapping[str, Mapping[str, float]] | None = None,
    files: Sequence[str] = (),
    limit: int = _LOG_BYTES,
) -> ContainerLook:
    """One look from L1. Raises LabError when L1 does not answer, or Docker does not.

    `command` is run in the container, `files` are read beside the contract's own, `limit` bytes each.
    `stages` are left there for others, by L2's boot (timeline.Reached).
    A look changes nothing: the container's adb is left alone until there is an emulator, since its
    server, started too early, would not find one that does not announce itself.
    """
    logs = [contract.log(name) for name in (*contract.device_logs, contract.supervisor_log)]
    wish = {
        "name": name,
        "files": [*logs, contract.status_file, *files],
        "bytes": limit,
        "command": list(command),
        "beside": list(EMULATORS),
        "stages": dict(stages or {}),
    }
    argv = ["python3", "-", json.dumps(wish)]
    deadline = Deadline.after(_LOOK_SECONDS)
    done = guest.run(argv, sudo=True, stdin=script("container_look.py"), deadline=deadline)
    look = parsed(ContainerLook, done.out, done.err)
    if look.error:
        raise LabError("Docker in the VM does not answer", tail=look.error)
    return look


def android(server: AdbServer, address: str, *, whole: bool) -> Android:
    """What answers at `address` (127.0.0.1:port) of the host."""
    state, error = server.state(address)
    if state != "device":
        return Android(state, error)
    parts = BASICS | (KERNEL | _PROPERTIES if whole else {})
    try:
        answers = _told(server, address, parts)
        completed = answers.get("completed") == "1"
        # Before its services are up, asking for them takes a slow Android long and shows nothing.
        if whole and (completed or answers.get("animation")):
            with contextlib.suppress(LabError):
                answers |= _told(server, address, _SERVICES)
    except LabError as failure:
        return Android("silent", failure.what)
    screen, screen_error = _screen(server, address, answers) if whole and completed else (None, "")
    return Android(
        adb=state,
        nonce=answers.get("nonce", ""),
        boot_id=answers.get("boot_id", ""),
        uptime=reading.uptime(answers.get("uptime", "")),
        kernel=answers.get("kernel", ""),
        completed=completed,
        animation=answers.get("animation", ""),
        properties=reading.properties(answers.get("properties", "")),
        packages=answers.get("packages"),
        focus=reading.focus(answers["focus"]) if "focus" in answers else None,
        screen=screen,
        screen_error=screen_error,
    )


def screenshot(server: AdbServer, address: str, deadline: Deadline) -> bytes:
    """Android's screen as PNG. Raises LabError."""
    return server.output(address, "screencap", "-p", deadline=deadline, seconds=_ASK_SECONDS)


def novnc(address: str, seconds: float = _NOVNC_SECONDS) -> Novnc:
    """The page, and over the WebSocket beside it the VNC server's first words; `seconds` for each."""
    try:
        with (
            web.bounded("noVNC's page", Deadline.after(seconds), _NOVNC_BYTES),
            web.HttpSession() as session,
            session.get(f"http://{address}/vnc.html", timeout=seconds, stream=True) as answer,
        ):
            page = answer.status_code
            web.read_whole(answer, _NOVNC_BYTES)
    except (requests.RequestException, low.HTTPError, OSError, ValueError) as error:
        return Novnc(None, error=f"no page: {type(error).__name__}")
    except (BlockedError, DeadlineError) as error:
        return Novnc(None, error=f"no page: {error.what}")
    try:
        with web.bounded("noVNC's WebSocket", Deadline.after(seconds), _NOVNC_BYTES):
            greeting, error_text = _greeting(address, seconds)
    except (BlockedError, DeadlineError) as error:
        return Novnc(page, error=f"no WebSocket: {error.what}")
    return Novnc(page, greeting, error=error_text)


def _greeting(address: str, seconds: float) -> tuple[str, str]:
    """The first words of the VNC server behind the WebSocket, and why there are none."""
    try:
        host, _, port = address.partition(":")
        # A connection of our own: given an address, the library would ask the environment's proxy.
        way = web.watched(socket.create_connection((host, int(port)), seconds))
        page_socket = websocket.create_connection(
            f"ws://{address}/websockify",
            timeout=seconds,
            subprotocols=["binary"],
            socket=way,
        )
    except (websocket.WebSocketException, OSError, ValueError) as error:
        return "", f"no WebSocket: {error}"[:200]
    try:
        words = page_socket.recv()
    except (websocket.WebSocketException, OSError, ValueError) as error:
        return "", f"the VNC server says nothing: {error}"[:200]
    finally:
        with contextlib.suppress(websocket.WebSocketException, OSError, BlockedError, DeadlineError):
            page_socket.close(timeout=1)
    return (words.decode("latin-1") if isinstance(words, bytes) else words)[:_GREETING], ""


def _told(server: AdbServer, address: str, parts: dict[str, str]) -> dict[str, str]:
    argv = ("sh", "-c", reading.question(**parts))
    deadline = Deadline.after(_ASK_SECONDS)
    return reading.answers(server.shell(address, *argv, deadline=deadline, seconds=_ASK_SECONDS))


def _screen(
    server: AdbServer, address: str, answers: Mapping[str, str]
) -> tuple[sighting.Screen | None, str]:
    """What the screen shows; one that sleeps is woken first, since it is black by right."""
    deadline = Deadline.after(_ASK_SECONDS)
    try:
        if answers.get("awake") and "Awake" not in answers["awake"]:
            wake = ("sh", "-c", "input keyevent KEYCODE_WAKEUP; wm dismiss-keyguard")
            server.shell(address, *wake, deadline=deadline, seconds=_ASK_SECONDS)
        return reading.screen(screenshot(server, address, deadline)), ""
    except (LabError, ValueError) as error:
        return None, str(error)
