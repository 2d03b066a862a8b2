"""Running a machine: forwards, start, stop, save, screen."""

from __future__ import annotations

import time
from typing import Any

from lab.core.deadline import pause
from lab.core.errors import LabError
from lab.engines.protocol import LOOPBACK
from lab.engines.virtualbox.manage import text
from lab.engines.virtualbox.manage.talk import Talk, state_of
from lab.engines.virtualbox.transport import WorkerLostError
from lab.engines.virtualbox.worker.power import OFF, RUNNING

_ENDING_SECONDS = 15.0
_UNLOCKING_SECONDS = 10.0
_CRASH_SECONDS = 15.0


def launch(talk: Talk, uuid: str, forwards: list[dict[str, Any]]) -> None:
    """Power on, or load the saved state, without a window: it outlives this process."""
    described = talk.describe(uuid)
    if state_of(described) in RUNNING:
        return
    words = [word for item in text.redirects(described) for word in ("--natpf1", "delete", item["name"])]
    words += [word for item in forwards for word in ("--natpf1", _rule(item))]
    if words:
        talk.run("setting the forwards", "modifyvm", uuid, *words)
    talk.run("starting the VM", "startvm", uuid, "--type", "headless")


def _rule(item: dict[str, Any]) -> str:
    return f"{item['name']},tcp,{LOOPBACK},{item['host_port']},,{item['guest_port']}"


def forward(talk: Talk, uuid: str, item: dict[str, Any]) -> str:
    """One more forward of a running VM, in the place of one of its name; it listens at once.

    The result is what VBoxManage printed: it may warn of a port and yet succeed.
    """
    unforward(talk, uuid, item["name"])
    return talk.run("adding a forward", "controlvm", uuid, "natpf1", _rule(item))


def unforward(talk: Talk, uuid: str, name: str) -> None:
    """Close a forward of a running VM. No-op when there is none of that name."""
    if any(item["name"] == name for item in text.redirects(talk.describe(uuid))):
        talk.run("closing a forward", "controlvm", uuid, "natpf1", "delete", name)


def forwards(talk: Talk, uuid: str) -> list[dict[str, Any]]:
    """The TCP forwards VirtualBox has, whatever address they bind."""
    return text.redirects(talk.describe(uuid))


def press(talk: Talk, uuid: str) -> None:
    """The ACPI power button; a paused VM is let run first, for it cannot hear it. No-op when it is ending."""
    state = talk.state(uuid)
    if state not in RUNNING:
        return
    if state == "Paused":
        talk.run("letting the VM run", "controlvm", uuid, "resume")
    talk.run("pressing the power button", "controlvm", uuid, "acpipowerbutton")


def power_off(talk: Talk, uuid: str) -> bool:
    """Pull the plug; says whether there was one to pull."""
    pulled = False
    until = time.monotonic() + _ENDING_SECONDS
    while talk.state(uuid) not in OFF:
        try:
            talk.run("powering the VM off", "controlvm", uuid, "poweroff")
            pulled = True
        except WorkerLostError:
            raise
        except LabError:
            # Its process may just be ending by itself, which VirtualBox notices a moment later.
            if time.monotonic() > until:
                raise
            pause(0.1)
    _wait_unlocked(talk, uuid)
    return pulled


def resume(talk: Talk, uuid: str) -> None:
    """Let a paused VM run."""
    if talk.state(uuid) != "Running":
        talk.run("letting the VM run", "controlvm", uuid, "resume")


def save(talk: Talk, uuid: str) -> None:
    """Save memory and devices to disk and end the VM's process."""
    if talk.state(uuid) == "Saved":
        return
    try:
        talk.run("saving the VM's memory", "controlvm", uuid, "savestate")
    except LabError as error:
        if not _crashed(talk, uuid):
            raise
        # Seen on 7.2.22: the VM's process dies of its network card while it saves (docs/virtualbox.md).
        raise LabError(
            "VirtualBox's VM process crashed while it saved the VM's memory, which is lost",
            tail=error.tail,
            hint="its disk is as after a power cut; `invoke lab.up` starts it anew",
        ) from error
    _wait_unlocked(talk, uuid)


def discard(talk: Talk, uuid: str) -> bool:
    """Give up the saved memory, if there is some."""
    if talk.state(uuid) not in ("Saved", "AbortedSaved"):
        return False
    talk.run("discarding the saved memory", "discardstate", uuid)
    return True


def screenshot(talk: Talk, uuid: str, target: str) -> None:
    """What the screen shows, as a PNG file."""
    talk.run("taking a picture of the screen", "controlvm", uuid, "screenshotpng", target)


def _crashed(talk: Talk, uuid: str) -> bool:
    """Whether the VM's process is gone: VirtualBox notices within moments."""
    until = time.monotonic() + _CRASH_SECONDS
    while (state := talk.state(uuid)) not in OFF and time.monotonic() < until:
        pause(0.1)
    return state in ("Aborted", "AbortedSaved")


def _wait_unlocked(talk: Talk, uuid: str) -> None:
    """Wait until no session holds the machine any more, for as long as a busy one is tried."""
    until = time.monotonic() + _UNLOCKING_SECONDS
    while talk.describe(uuid).get("SessionName") and time.monotonic() < until:
        pause(0.1)
