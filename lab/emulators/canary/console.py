"""What the container's log says: the entrypoint's lines and L2's own, as a proof or as an error."""

from __future__ import annotations

import re

from lab.core.errors import BlockedError, InconclusiveError, LabError
from lab.core.proc import tail
from lab.emulators import lastwords
from lab.emulators.protocol import NestedFailedError, NestedLostError, NestedProof

READY = "canary: l2 ready after "
FAILED = "canary: failed "
"""The two lines after which nothing more is to be waited for."""

_L2_READY = re.compile(r"^canary: l2 ready at [\d.]+ (?P<facts>.*)$", re.MULTILINE)
_AFTER = re.compile(r"^canary: l2 ready after (?P<seconds>[\d.]+) s \((?P<accel>\w+)\)$", re.MULTILINE)
_FAILURE = re.compile(r"^canary: failed \((?P<code>\d+)\): (?P<why>.*)$", re.MULTILINE)
_PROPERTY = re.compile(r"^\[(?P<name>[^\]]+)\]: \[(?P<value>.*)\]$", re.MULTILINE)
_MONITOR = re.compile(r"^\S*qemu-system-\S+: .*$", re.MULTILINE)
_BANNER = "canary: this is the lab canary"
"""The first line of every start."""
_NO_DEVICE, _NOT_OPENED, _KVM_SAID_NO, _LATE, _ENDED, _NEVER_BEGAN = "70", "71", "72", "73", "74", "75"
"""The entrypoint's exit codes (images/canary/container/entrypoint)."""
_SAYS = "KVM does not run L2: "
"""What it puts before KVM's own line."""


def proof(log: str, *, out_of_memory: bool = False) -> NestedProof:
    """L2's report from the log.

    Raises NestedFailedError when KVM itself says that it does not run L2, BlockedError when memory was
    wanting (`out_of_memory`: Docker says so), InconclusiveError or LabError for all else.
    """
    log = _of_last_start(log)
    _raise_failure(log, out_of_memory)
    ready = _L2_READY.search(log)
    if ready is None:
        raise InconclusiveError("the container's log holds no report of L2", tail=tail(log))
    facts = dict(word.split("=", 1) for word in ready["facts"].split() if "=" in word)
    return NestedProof(
        nonce=facts.get("nonce", ""),
        hypervisor=facts.get("hypervisor"),
        clocksource=facts.get("clocksource", ""),
        boot_id=facts.get("boot_id", ""),
        boot_completed=True,
        kernel=facts.get("kernel", ""),
        machine=facts.get("machine", ""),
        seconds=seconds(log, "kvm"),
    )


def seconds(log: str, accel: str, *, machine: str = "", out_of_memory: bool = False) -> float:
    """From the launch of L2's monitor to adbd listening in L2, on L1's clock.

    Raises as `proof` does, also when L2 ran under something else than `accel`, or is by its own word
    another machine than `machine`, if that is given.
    """
    log = _of_last_start(log)
    _raise_failure(log, out_of_memory)
    ready = _L2_READY.search(log)
    if machine and f"machine={machine}" not in (ready["facts"].split() if ready else ()):
        raise InconclusiveError(f"L2 does not say that it is a machine of {machine}", tail=tail(log))
    for ready in _AFTER.finditer(log):
        if ready["accel"] == accel:
            return float(ready["seconds"])
    raise InconclusiveError(f"the container's log does not say how long L2 took ({accel})", tail=tail(log))


def properties(printed: str) -> NestedProof:
    """What `getprop` printed on the device that answered over ADB, as a proof."""
    values = {match["name"]: match["value"] for match in _PROPERTY.finditer(printed.replace("\r", ""))}
    return NestedProof(
        nonce=values.get("ro.lab.nonce", ""),
        hypervisor=values.get("ro.lab.hypervisor"),
        clocksource=values.get("ro.lab.clocksource", ""),
        boot_id=values.get("ro.lab.boot_id", ""),
        boot_completed=values.get("sys.boot_completed") == "1",
        kernel=values.get("ro.kernel.version", ""),
        machine=values.get("ro.lab.machine", ""),
    )


def of_l2(log: str) -> str:
    """The lines of a container log (with or without Docker's time stamps) that L2 wrote."""
    return "".join(line for line in log.splitlines(keepends=True) if _wrote_l2(line))


def _wrote_l2(line: str) -> bool:
    return "canary: " not in line or ("canary: l2 " in line and READY not in line)


def _of_last_start(log: str) -> str:
    """A container that was started again has the lines of its earlier starts in its log, too."""
    log = log.replace("\r", "")
    return log[max(log.rfind(_BANNER), 0) :]


def _raise_failure(log: str, out_of_memory: bool) -> None:
    failure = _FAILURE.search(log)
    if failure is None:
        return
    code, why, shown = failure["code"], failure["why"], tail(log)
    what = f"the canary's container ended: {why}"
    if code == _NO_DEVICE:  # guest.kvm found it in L1: that it is not here is Docker's doing
        raise InconclusiveError(what, hint="compare with the rung container.kvm", tail=shown)
    # Whatever the code: an entrypoint of before said 72 for all that ended QEMU early.
    if code == _KVM_SAID_NO and lastwords.KVM.match(why.removeprefix(_SAYS)):
        raise NestedFailedError(what, hint="compare with the rung guest.kvm", tail=shown)
    if code == _LATE:
        raise InconclusiveError(what, hint="this machine may just be slow", tail=shown)
    if code not in (_NOT_OPENED, _KVM_SAID_NO, _ENDED, _NEVER_BEGAN):
        raise LabError(what, tail=shown)
    trouble = lastwords.trouble("\n".join((why, *_MONITOR.findall(log))))
    if out_of_memory or trouble == lastwords.MEMORY:
        what = f"{lastwords.MEMORY}: {what}"
        raise BlockedError(what, hint="make the lab anew with a larger vm.memory_mib", tail=shown)
    if trouble or code == _NOT_OPENED:
        hint = "that is no word of KVM's: compare with the rung container.kvm"
        raise InconclusiveError(f"{trouble}: {what}" if trouble else what, hint=hint, tail=shown)
    raise NestedLostError(what, hint="`invoke lab.up` starts it again", tail=shown)
