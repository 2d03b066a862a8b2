"""How a person reaches a lab: the ssh command, the ADB address, how to stop it."""

from __future__ import annotations

import shlex

from lab.core.showing import labelled
from lab.documents.climbs import LabAccess
from lab.documents.labs import AdbAccess, ForwardEntry, ScreenAccess, SshAccess
from lab.emulators import MAIN
from lab.engines.protocol import LOOPBACK
from lab.guest.ssh import ssh_command
from lab.workflow import attached
from lab.workflow.emulator_status import all_known
from lab.workflow.workbench import Workbench


def forwards(bench: Workbench) -> list[ForwardEntry]:
    """The lab's forwards."""
    return [
        ForwardEntry(name=name, host=LOOPBACK, host_port=forward.host_port, guest_port=forward.guest_port)
        for name, forward in bench.record().forwards.items()
    ]


def ssh(bench: Workbench) -> SshAccess | None:
    if attached.is_attached(bench.record()):
        link = attached.link_of(bench.lab)
        if link.way is None:
            return None
        return SshAccess(command=shlex.join(ssh_command(bench.guest)), port=link.way.machine.port)
    forward = bench.record().forwards.get("ssh")
    return (
        SshAccess(command=shlex.join(ssh_command(bench.guest)), port=forward.host_port) if forward else None
    )


def adb(bench: Workbench) -> AdbAccess | None:
    address = bench.addresses(MAIN).get("adb")
    return AdbAccess(address=address) if address else None


def novnc(bench: Workbench) -> ScreenAccess | None:
    """The page that shows the main emulator's screen. Its password is not here: `lab.open` gives it."""
    return next((entry.novnc for entry in all_known(bench) if entry.name == MAIN), None)


def access(bench: Workbench, evidence: str | None) -> LabAccess:
    """How the lab is reached, `evidence` being the folder of the run that says so."""
    return LabAccess(
        ssh=ssh(bench),
        adb=adb(bench),
        novnc=novnc(bench),
        ports=forwards(bench),
        evidence=evidence,
        stop=_task(bench, _stop(bench)),
    )


def lines(bench: Workbench, evidence: str | None) -> list[str]:
    """What the user can do now, a line each."""
    ways = access(bench, evidence)
    return labelled(
        [
            ("log in", _task(bench, "lab.ssh")),
            ("  or", ways.ssh.command if ways.ssh else ""),
            ("adb", f"adb connect {ways.adb.address}" if ways.adb else ""),
            ("screen", f"{ways.novnc.address}   (open: {_task(bench, 'lab.open')})" if ways.novnc else ""),
            *_ends(bench, ways),
            ("evidence", evidence or ""),
        ],
        10,
    )


def _stop(bench: Workbench) -> str:
    return "emulator.down" if attached.is_attached(bench.record()) else "lab.halt"


def _ends(bench: Workbench, ways: LabAccess) -> list[tuple[str, str]]:
    """How it is stopped, and how it is removed; lab neither halts nor destroys somebody's machine."""
    if attached.is_attached(bench.record()):
        return [("stop", ways.stop), ("leave", _task(bench, "lab.detach"))]
    pause = _task(bench, "lab.suspend")
    return [("stop", f"{ways.stop}   (pause: {pause})"), ("remove", _task(bench, "lab.destroy"))]


def _task(bench: Workbench, task: str) -> str:
    name = bench.lab.name
    return f"bin/invoke {task}" + ("" if name == "default" else f" --name {name}")
