"""Does KVM here really run a guest? Prints one line of JSON and needs nothing but Python 3.6.

A tiny guest writes a byte twice and halts: on x86 once entered in real mode, as firmware starts, and once in
long mode; on arm64 in EL1. Each runs in a child process that is killed when its time is up: `/dev/kvm` may
open and answer, and then hang whatever runs in it.

`failure` says whose word a failure is: `kvm` is KVM's own about a guest it ran, `absent` that there
is no KVM behind the device; all others say nothing of KVM (lab.probes.kvm.Failure).

Usage: python3 kvm_probe.py [--seconds N]   (per mode; 20 without)
"""

import contextlib
import errno
import grp
import json
import os
import pwd
import select
import signal
import stat
import sys
import time
from typing import Any, Callable  # noqa: UP035 - as Python 3.6 has it

from lab.probes.tiny.arm64 import el1
from lab.probes.tiny.talk import API_VERSION, DEVICE, Say, Trouble, ask, explained
from lab.probes.tiny.x86 import long_mode, real_mode

ABSENT = (errno.ENOENT, errno.ENODEV, errno.ENXIO)  # no node, or no driver behind it

MODES = {"real_mode": real_mode, "long_mode": long_mode}
if os.uname().machine == "aarch64":
    MODES = {"el1": el1}

Enter = Callable[[Say], None]


def attempt(enter: Enter, seconds: float) -> "dict[str, Any]":
    """`enter` in a child that is killed after `seconds`; what became of it."""
    report: dict[str, Any] = {"started": False, "entered": False, "ok": False, "exits": [],
                              "exit_reason": None, "hardware_entry_failure_reason": None,
                              "failure": "", "error": ""}  # fmt: skip
    began = time.monotonic()
    try:
        ours, theirs = os.pipe()
        child = os.fork()
    except OSError as error:
        return {**report, **explained(error, "starting the probe's child").facts(), "seconds": 0.0}
    if child == 0:
        os.close(ours)
        serve(enter, theirs)
    os.close(theirs)
    heard, ended = listen(ours, began + seconds)
    os.close(ours)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status, used = reap(child)
    for line in heard.splitlines():
        with contextlib.suppress(ValueError):
            report.update(json.loads(line))
    if not report["ok"] and not report["failure"]:
        failure, why = end(status)
        if not ended:
            failure, doing = "timeout", "KVM_RUN" if report["started"] else "setting up the guest"
            why = f"{doing} did not end in {seconds:g} s (killed; {used:.1f} s of them on the processor)"
        report.update(failure=failure, error=why)
    report["seconds"] = round(time.monotonic() - began, 3)
    return report


def end(status: int) -> "tuple[str, str]":
    """(failure, why) of a child that ended without a word of its own."""
    if not os.WIFSIGNALED(status):
        return "tool", f"the probe's child ended without a word (status {os.WEXITSTATUS(status)})"
    number = os.WTERMSIG(status)
    names = {known.value: known.name for known in signal.Signals}
    hint = ", as the kernel does for want of memory" if number == signal.SIGKILL else ""
    return "killed", f"the probe's child was killed by {names.get(number, number)}{hint}"


def serve(enter: Enter, pipe: int) -> None:
    """The child's life: report over the pipe, never return."""

    def say(**facts: Any) -> None:
        os.write(pipe, (json.dumps(facts) + "\n").encode())

    try:
        enter(say)
    except BaseException as error:
        say(**explained(error, "setting up the guest").facts())
    finally:
        os._exit(0)


def listen(pipe: int, until: float) -> "tuple[str, bool]":
    """All that was said before the pipe closed, and whether it did in time."""
    heard, ended = b"", False
    while not ended and select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        block = os.read(pipe, 65536)
        heard, ended = heard + block, not block
    return heard.decode(), ended


def reap(child: int) -> "tuple[int, float]":
    """Its wait status and its seconds on the processor; what even SIGKILL does not end is left behind."""
    for _ in range(60):
        pid, status, used = os.wait4(child, os.WNOHANG)
        if pid:
            return status, used.ru_utime + used.ru_stime
        time.sleep(0.05)
    return 0, 0.0


def device() -> "dict[str, Any]":
    """The device node: who may open it, and whether we can."""
    facts: dict[str, Any] = {"exists": False, "opened": False, "api_version": None, "mode": "",
                             "owner": "", "group": "", "failure": "", "error": ""}  # fmt: skip
    try:
        about = os.stat(DEVICE)  # noqa: PTH116 - a device, and no path to go on from
        facts.update(exists=True, mode=f"{stat.S_IMODE(about.st_mode):04o}")
        facts.update(owner=name_of(pwd.getpwuid, about.st_uid), group=name_of(grp.getgrgid, about.st_gid))
        kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        facts.update(explained(error, DEVICE).facts())
        if error.errno in ABSENT:
            facts["failure"] = "absent"
        return facts
    facts["opened"] = True
    try:
        facts["api_version"] = version = ask(kvm, "KVM_GET_API_VERSION")
        if version != API_VERSION:
            raise Trouble("tool", f"KVM API version {version}, and the probe knows {API_VERSION}")
    except Trouble as trouble:
        facts.update(trouble.facts())
    finally:
        os.close(kvm)
    return facts


def name_of(look_up: Callable[[int], Any], number: int) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def main(argv: "list[str]") -> None:
    seconds = float(argv[argv.index("--seconds") + 1]) if "--seconds" in argv else 20.0
    node = device()
    facts = {"schema": "lab.kvm_probe/1", "device": node, "real_mode": None, "long_mode": None, "el1": None}
    if not node["error"]:
        facts.update((name, attempt(enter, seconds)) for name, enter in MODES.items())
    print(json.dumps(facts))


if __name__ == "__main__":
    main(sys.argv)
