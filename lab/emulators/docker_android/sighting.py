"""What one look saw: of the container, of Android, and of the page that shows its screen. Pure.

Each part is None when it was not looked at. lab.emulators.docker_android.reading makes them of text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.emulators.protocol import ContainerState
from lab.probes.kvm import Process

DOUBLE_LABEL, DOUBLE_PROPERTY = "io.lab.double", "ro.lab.double"
"""What a test double calls itself, in its image and in its L2: it is never Android."""
NONCE_LABEL, IMAGE_LABEL = "io.lab.nonce", "io.lab.android-image"
LAUNCH_LABEL = "io.lab.launch"
"""A hash of all that is set of a launch: another one is another emulator."""
NONCE_PROPERTY = "debug.lab.nonce"
"""Properties that begin with `debug.` may be set by ADB's own user, on every build of Android."""
OFF, AUTO = "off", "auto"
"""The -accel without KVM, and the one that leaves the choice to the emulator."""
TCG = "tcg"
"""QEMU's own word for the first."""
NOT_RESPONDING = re.compile(r"(?:Application )?Not Responding: (?P<package>\S+)", re.IGNORECASE)
"""The title of Android's dialog."""

_COMPONENT = re.compile(r"[\w.]+/[\w.$]+")
_STARTING = "FallbackHome"
"""The activity of Android's Settings that says "Phone is starting" until there is a launcher."""


@dataclass(frozen=True)
class Inside:
    """The container, as seen from L1."""

    state: ContainerState
    started: float
    """Wall clock of L1, seconds; 0 when there is no container."""
    status: str = ""
    """The status file. It is the container's own word."""
    emulator: Process | None = None
    """The emulator itself: QEMU, or what starts it."""
    acceleration: str = ""
    """The last -accel of its command line."""
    told: str = ""
    """The further words it is given, as the container's variable has them: KEY=VALUE."""
    switched_off: bool = False
    """Its command line, or these words, has it run without KVM."""
    holder: Process | None = None
    """The process that has /dev/kvm open."""
    made_vm: bool = False
    """KVM made a VM for it."""
    spoke: bool = False
    """The emulator itself has said something."""
    launched_at: float = 0.0
    """When the image started it, by L1's wall clock; 0 when its log does not say."""
    watcher_ended: bool = False
    """The program that starts and watches the emulator is gone; the container lives on without it."""
    memory_kills: int = 0
    killed: bool = False
    """Docker says it was ended for want of memory."""
    restarted: bool = False
    """The container was started before, by somebody else: its logs tell of that start, too."""
    device_log: str = ""
    supervisor_log: str = ""
    log: str = ""
    kernel: tuple[str, ...] = ()
    adb: str = ""
    """`adb devices` in the container: device, offline, …; empty when not asked or unknown there."""

    @property
    def double(self) -> bool:
        return self.state.facts.get("double", "") not in ("", "0")


@dataclass(frozen=True)
class Screen:
    """Android's own screenshot."""

    width: int
    height: int
    one_colour: bool


@dataclass(frozen=True)
class Android:
    """What answered over ADB on the host's loopback. Seconds are L2's."""

    adb: str
    """device, offline, unauthorized, …; empty when nothing answers."""
    error: str = ""
    nonce: str = ""
    boot_id: str = ""
    uptime: float | None = None
    kernel: str = ""
    completed: bool = False
    animation: str = ""
    """init.svc.bootanim: empty, running, stopped."""
    properties: Mapping[str, str] = field(default_factory=dict)
    packages: str | None = None
    """What the package manager said of the package android."""
    focus: str | None = None
    """The window with the focus; empty when there is none."""
    screen: Screen | None = None
    screen_error: str = ""

    @property
    def online(self) -> bool:
        return self.adb == "device"

    @property
    def packages_answer(self) -> bool | None:
        return None if self.packages is None else self.packages.startswith("package:")

    @property
    def component(self) -> str:
        """The activity with the focus; empty when a window without one has it."""
        match = _COMPONENT.fullmatch(self.focus or "")
        return match[0] if match else ""

    @property
    def not_responding(self) -> str:
        """The application a dialog says does not respond; empty without such a dialog."""
        match = NOT_RESPONDING.search(self.focus or "")
        return match["package"] if match else ""

    @property
    def launcher(self) -> bool:
        """All launchers are called so, Google's and AOSP's; the image's own watcher goes by that, too."""
        return "launcher" in self.component.lower()

    @property
    def app(self) -> bool:
        """An activity has the focus that is not there for want of a launcher."""
        return bool(self.component) and not self.component.endswith(_STARTING)

    @property
    def double(self) -> bool:
        return self.properties.get(DOUBLE_PROPERTY, "") not in ("", "0")


@dataclass(frozen=True)
class Novnc:
    """The page and the socket behind it."""

    page: int | None
    """HTTP status of the page; None when nothing answered."""
    banner: str = ""
    """What the VNC server said first over the WebSocket: RFB 003.008."""
    error: str = ""

    @property
    def works(self) -> bool:
        return self.page == 200 and self.banner.startswith("RFB 003.")


@dataclass(frozen=True)
class Sighting:
    """One look. `seconds` is when, from the container's start, on L1's clock, which may be set meanwhile."""

    seconds: float
    at: float = field(kw_only=True)
    """The same on our own monotonic clock: what durations are measured by."""
    inside: Inside
    android: Android | None = None
    novnc: Novnc | None = None
    heard: Android | None = None
    """What the container's own adb let be heard of it: its boot alone."""

    @property
    def kernel(self) -> Android | None:
        """Whichever way its kernel answered."""
        android = self.android
        if android is not None and android.online and (android.boot_id or android.uptime is not None):
            return android
        return self.heard

    @property
    def sign_of_life(self) -> tuple[object, ...]:
        """What changes as long as a boot goes on."""
        android = self.android or Android("")
        running = sum(
            value == "running" for name, value in android.properties.items() if name.startswith("init.svc.")
        )
        return (
            self.inside.status,
            bool(self.inside.emulator),
            self.inside.made_vm,
            android.adb,
            android.boot_id,
            android.animation,
            android.completed,
            running,
            android.packages_answer,
            android.focus,
        )
