"""lab.halt, lab.suspend and lab.resume."""

from __future__ import annotations

from lab.adb import AdbServer
from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.engines.protocol import HELD, DiskFullError, State
from lab.tasks.lab import open as screen
from lab.workflow import attached, ports, waking
from lab.workflow.answers import acted
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def halt(session: Session, name: str) -> Reply:
    """Power the VM off: gracefully within the deadline, else hard."""
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.halt"), session.steps.step("vm.stop") as step:
        if not bench.record().image:
            return acted(bench, "halt", False, ["its VM was never made"])
        AdbServer(bench.lab.adb_folder, bench.lab.journal).stop()
        screen.shut(bench.lab)
        how = bench.machine.stop(Deadline.after(session.settings.deadlines.stop))
        step.result = how
        notes = {
            "graceful": "powered off",
            "forced": "did not power off in time: ended",
            "already": "was off",
        }
        return acted(bench, "halt", how != "already", [notes[how]])


def suspend(session: Session, name: str) -> Reply:
    """Save the running VM's memory on disk and end its process. Raises UsageError, DiskFullError."""
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.suspend"):
        state = bench.state_of_vm()
        if state is State.SUSPENDED:
            return acted(bench, "suspend", False, ["was suspended"])
        if state is State.DISK_FULL:
            raise DiskFullError(bench.lab.vm_folder, name)  # its memory would find no place either
        if state not in (State.RUNNING, State.PAUSED):  # paused: a suspend was cut short
            raise UsageError(f"lab {name} is {state}: only a running lab can be suspended")
        with session.steps.step("vm.suspend"):
            bench.machine.suspend()
        AdbServer(bench.lab.adb_folder, bench.lab.journal).stop()
        return acted(bench, "suspend", True, ["`lab.resume` brings it back where it was"])


def resume(session: Session, name: str) -> Reply:
    """Back to where it was: the VM's clock set, and L2 answering over ADB if it did before."""
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.resume"):
        state = bench.state_of_vm()
        if attached.is_attached(bench.record()):  # it has a clock of its own
            bench.machine.resume([])
        if state is State.RUNNING:
            waking.set_clock(bench)  # an earlier resume may have been cut short before it was
            return acted(bench, "resume", False, ["was running"])
        if state is not State.SUSPENDED and state not in HELD:
            raise UsageError(
                f"lab {name} is {state}: there is nothing to resume", hint="`invoke lab.up` starts it"
            )
        with session.steps.step("vm.resume"):
            if state in HELD:  # it holds its ports itself
                bench.machine.resume(ports.forwards(bench.lab))
                bench.close()
            else:
                waking.start_on_ports(bench, bench.machine.resume)
        return acted(bench, "resume", True, waking.come_back(bench))
