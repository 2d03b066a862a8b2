"""Running a machine: forwards, start, stop, save, screen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lab.engines.virtualbox.worker.api import Api
from lab.engines.virtualbox.worker.faults import FaultError, explain, finish

LOOPBACK = "127.0.0.1"
RUNNING = frozenset({"Running", "Paused"})
OFF = frozenset({"PoweredOff", "Saved", "Aborted", "AbortedSaved", "Teleported"})
"""States without a VM process. Aborted also comes from a holder of a lock that was killed."""

_ENDING_SECONDS = 15.0


def launch(api: Api, uuid: str, forwards: list[dict[str, Any]]) -> None:
    """Power on, or load the saved state, without a window: it outlives this process."""
    machine = api.known(uuid)
    if api.state(machine) in RUNNING:
        return
    _forward(api, machine, forwards)
    session = api.session()
    # Not pyvbox's own launch_vm_process: its default for the environment is a type error.
    progress = api.library.IProgress(machine._i.launchVMProcess(session._i, "headless", []))
    try:
        finish(progress, "starting the VM")
    finally:
        if int(session._i.state) == api.value("SessionState", "Locked"):
            session.unlock_machine()


def _forward(api: Api, machine: Any, forwards: list[dict[str, Any]]) -> None:
    """Exactly these forwards, all on the loopback address. VirtualBox is silent about a taken port."""
    with api.locked(machine, "write") as session:
        nat = session.machine.get_network_adapter(0).nat_engine
        for line in list(nat.redirects):
            nat.remove_redirect(str(line).split(",")[0])
        for item in forwards:
            _redirect(api, nat, item)
        session.machine.save_settings()


def _redirect(api: Api, nat: Any, item: dict[str, Any]) -> None:
    nat.add_redirect(
        item["name"], api.library.NATProtocol.tcp, LOOPBACK, item["host_port"], "", item["guest_port"]
    )


def forward(api: Api, uuid: str, item: dict[str, Any]) -> None:
    """One more forward of a running VM, in the place of one of its name; it listens at once."""
    _change(api, uuid, item["name"], item)


def unforward(api: Api, uuid: str, name: str) -> None:
    """Close a forward of a running VM. No-op when there is none of that name."""
    _change(api, uuid, name, None)


def _change(api: Api, uuid: str, name: str, item: dict[str, Any] | None) -> None:
    with api.locked(api.known(uuid), "shared") as session:
        nat = session.machine.get_network_adapter(0).nat_engine
        if any(str(line).split(",")[0] == name for line in nat.redirects):
            nat.remove_redirect(name)
        if item is not None:
            _redirect(api, nat, item)
        session.machine.save_settings()


def forwards(api: Api, uuid: str) -> list[dict[str, Any]]:
    """The TCP forwards VirtualBox has, whatever address they bind."""
    nat = api.known(uuid).get_network_adapter(0).nat_engine
    listed = []
    for line in nat.redirects:
        name, protocol, address, host_port, _, guest_port = str(line).split(",")
        if int(protocol) == api.value("NATProtocol", "TCP"):
            listed.append(
                {"name": name, "address": address, "host_port": int(host_port), "guest_port": int(guest_port)}
            )
    return listed


def press(api: Api, uuid: str) -> None:
    """The ACPI power button; a paused VM is let run first, for it cannot hear it. No-op when it is ending."""
    machine = api.known(uuid)
    if api.state(machine) not in RUNNING:
        return
    with api.locked(machine, "shared") as session:
        if api.state(machine) == "Paused":
            session.console.resume()
        session.console.power_button()


def power_off(api: Api, uuid: str) -> bool:
    """Pull the plug; says whether there was one to pull."""
    machine = api.known(uuid)
    pulled = False
    until = time.monotonic() + _ENDING_SECONDS
    while api.state(machine) not in OFF:
        try:
            with api.locked(machine, "shared") as session:
                finish(session.console.power_down(), "powering the VM off")
            pulled = True
        except Exception as error:
            # Its process may just be ending by itself, which VirtualBox notices a moment later.
            fault = explain(error, "powering the VM off")
            if fault.kind == "dead" or time.monotonic() > until:
                raise fault from error
            time.sleep(0.1)
    api.wait_unlocked(machine)
    return pulled


def resume(api: Api, uuid: str) -> None:
    """Let a paused VM run."""
    machine = api.known(uuid)
    if api.state(machine) == "Running":
        return
    with api.locked(machine, "shared") as session:
        session.console.resume()


def save(api: Api, uuid: str) -> None:
    """Save memory and devices to disk and end the VM's process."""
    machine = api.known(uuid)
    if api.state(machine) == "Saved":
        return
    try:
        with api.locked(machine, "shared") as session:
            finish(session.machine.save_state(), "saving the VM's memory")
    except FaultError as fault:
        if fault.kind != "failed" or not _crashed(api, machine):
            raise
        # Seen on 7.2.22: the VM's process dies of its network card while it saves (docs/virtualbox.md).
        raise FaultError(
            "failed",
            "VirtualBox's VM process crashed while it saved the VM's memory, which is lost",
            fault.tail,
            "its disk is as after a power cut; `invoke lab.up` starts it anew",
        ) from fault
    api.wait_unlocked(machine)


def _crashed(api: Api, machine: Any) -> bool:
    """Whether the VM's process is gone: VirtualBox notices within moments."""
    until = time.monotonic() + 5
    while api.state(machine) not in OFF and time.monotonic() < until:
        time.sleep(0.1)
    return api.state(machine) in ("Aborted", "AbortedSaved")


def discard(api: Api, uuid: str) -> bool:
    """Give up the saved memory, if there is some."""
    machine = api.known(uuid)
    if api.state(machine) not in ("Saved", "AbortedSaved"):
        return False
    with api.locked(machine, "write") as session:
        session.machine.discard_saved_state(True)
    return True


def screenshot(api: Api, uuid: str, target: str) -> None:
    """What the screen shows, as a PNG file."""
    machine = api.known(uuid)
    with api.locked(machine, "shared") as session:
        # pyvbox would return the display's values re-typed; the raw call gives the picture as bytes.
        display = session.console._i.display
        width, height = display.getScreenResolution(0)[:2]
        picture = display.takeScreenShotToArray(0, width, height, api.value("BitmapFormat", "PNG"))
    Path(target).write_bytes(_bytes(picture))


def _bytes(picture: Any) -> bytes:
    """XPCOM gives bytes or a list of numbers, by the binding's version."""
    if isinstance(picture, str):
        return picture.encode("latin-1")
    return bytes(picture)
