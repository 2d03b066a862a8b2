"""Why there is no emulator in the container, or no container."""

from __future__ import annotations

import re

from lab.emulators import lastwords
from lab.emulators.docker_android import words
from lab.emulators.docker_android.diagnosis.case import Case, Look, lines
from lab.emulators.docker_android.words import LINES
from lab.emulators.protocol import Diagnosis

# The emulator's own words for KVM (ProbeKVM in cpu_accelerator.cpp of the emulator's sources), the
# image's (cli/src/device/emulator.py), and QEMU's.
_NO_KVM = re.compile(
    r"/dev/kvm cannot be found|/dev/kvm is not found|/dev/kvm is missing"
    r"|KVM requires a CPU that supports vmx or svm|Could not access KVM kernel module: No such file",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"doesn't have permissions to use KVM|/dev/kvm ?: (?:Permission denied|Operation not permitted)"
    r"|(?:KVM kernel module|initialize kvm): (?:Permission denied|Operation not permitted)",
    re.IGNORECASE,
)
# An errno, or a word of another than KVM: it did not run, and why is not known of KVM.
_KVM_ERROR = re.compile(
    r"kvm run failed|failed to initialize kvm|KVM_CREATE_VM\b.*fail|Could not access KVM kernel module"
    r"|Could not extract KVM version|KVM version too old|failed to set MSR|kvm_buf_set_msrs"
    r"|Could not open /dev/kvm|KVM is not usable|emulation currently requires hardware acceleration"
    r"|CPU acceleration status: (?!KVM \(version)",
    re.IGNORECASE,
)
# Of the emulator's own (android-qemu2-glue/main.cpp), and of Python's, when it makes the AVD.
_NO_SPACE = re.compile(r"not (?:have )?enough (?:disk )?space|\[Errno 28\]", re.IGNORECASE)
_CRASH = re.compile(
    r"segmentation fault|illegal instruction|bus error|\bSIG(?:SEGV|ABRT|ILL|BUS|FPE|KILL|TERM)\b|core dumped"
    r"|terminate called after|Assertion .* failed|terminating on signal|^Killed\b",
    re.IGNORECASE,
)
# It ended itself, and says why: an AVD that is not there, no display. That it then aborts is its way to end.
_GAVE_UP = re.compile(r"\bPANIC:|\bFATAL\b|\bFatal: |[Nn]o Qt platform plugin")
_ENDED = re.compile(r"emulator.* (?:crashed|terminated unexpectedly)|qemu\S*: fatal:")
_PASSING = re.compile(r"hanging thread|crashed|terminated unexpectedly")
"""What need not be there when it is launched anew: a slow moment, a fault of its own."""
LOST = "emulator-gone"
_LAUNCH_SECONDS = 20.0
"""How long after its launch an emulator that is not to be seen counts as gone."""
_ERROR = re.compile(r"Error\b|ERROR", re.ASCII)


def out_of_memory(case: Case) -> Diagnosis | None:
    inside = case.last.inside
    killed = inside.killed or inside.memory_kills > 0
    refused = tuple(line for line in words.last(inside.device_log) if _is_of_memory(line))
    # Some other process of the container may be what was ended, and Android well.
    if case.alive or not (killed or refused):
        return None
    by_docker = (f"Docker: OOMKilled, {lastwords.exit_code(inside.state.exit_code)}",)
    return Diagnosis(
        "out-of-memory",
        "the kernel ended the emulator for want of memory" if killed else "the emulator gets no memory",
        (inside.kernel[-LINES:] or by_docker) if killed else refused,
        "give it more: emulator.memory_mib, and vm.memory_mib with it",
        final=True,
    )


def _is_of_memory(line: str) -> bool:
    return lastwords.trouble(line) == lastwords.MEMORY


def _complaint(name: str, pattern: re.Pattern[str], what: str, hint: str) -> Look:
    """A diagnosis of an emulator that is gone and whose log has such a line: no word of KVM's."""

    def diagnosis(case: Case) -> Diagnosis | None:
        shown = lines(case.last.inside.device_log, pattern)
        return None if case.alive or not shown else Diagnosis(name, what, shown, hint, final=True)

    return diagnosis


disk_full = _complaint(
    "disk-full",
    _NO_SPACE,
    "the VM's disk has no room for what the emulator writes",
    "make the lab anew with a larger vm.disk_gib",
)
no_kvm = _complaint(
    "no-kvm",
    _NO_KVM,
    "there is no KVM for the emulator in the container",
    "L1 has it, and it did not reach this container: compare with the rung container.kvm",
)
kvm_denied = _complaint(
    "kvm-denied",
    _DENIED,
    "the emulator may not open /dev/kvm in the container",
    "a matter of permissions, which says nothing of KVM: compare with the rung container.kvm",
)
kvm_error = _complaint(
    "kvm-error",
    _KVM_ERROR,
    "the emulator could not use KVM, by an error that is no word of KVM's",
    "compare with the rung container.kvm, where lab's own guest runs",
)


def unaccelerated(case: Case) -> Diagnosis | None:
    """Whatever comes of it then, nobody asked KVM."""
    inside = case.last.inside
    if not case.with_kvm or not inside.switched_off or not inside.state.running:
        return None
    by = "the setting emulator.env" if inside.told else "its command line"
    setting = f"-accel {inside.acceleration}" if inside.acceleration else "no -accel"
    return Diagnosis(
        "unaccelerated",
        f"{by} has the emulator run without KVM",
        (inside.told or f"{setting}, on the emulator's command line",),
        "have it run with `-accel on`: emulator.env must not say otherwise; then `invoke emulator.restart`",
        final=True,
    )


def container_exited(case: Case) -> Diagnosis | None:
    state = case.last.inside.state
    if state.exists and state.running:
        return None
    if not state.exists:
        what, lines = "there is no such container", []
    else:
        what = f"the container ended with {lastwords.exit_code(state.exit_code)}"
        lines = [state.facts.get("error", ""), *case.last.inside.log.splitlines()[-LINES:]]
    shown = tuple(line for line in lines if line.strip())
    return Diagnosis(
        "container-exited", what, shown, "`invoke emulator.up` starts it", final=True, refutes=False
    )


def kvm_unusable(case: Case) -> Diagnosis | None:
    """KVM's own words, and no others: these alone are evidence against it."""
    inside = case.last.inside
    shown = lines(_own(case), lastwords.KVM)
    if not shown or (case.alive and not _stands_still(case)):
        return None
    return Diagnosis(
        "kvm-unusable",
        "KVM is there, and does not run the emulator's machine",
        shown,
        "compare with the rung guest.kvm",
        final=True,
        refutes=not inside.restarted,
        again=True,
    )


def _stands_still(case: Case) -> bool:
    """The emulator is there, and its machine is not run any more: QEMU stays, paused for ever."""
    android, inside = case.last.android, case.last.inside
    if inside.adb == "device" or (android is not None and android.online):
        return False
    return case.late or bool(lines(_own(case), lastwords.STOPS))


def emulator_crashed(case: Case) -> Diagnosis | None:
    """It ended. By whatever signal: KVM may have run it until then, and had no part in it."""
    inside = case.last.inside
    if case.alive or not inside.state.running:
        return None
    crash = lines(_own(case), _CRASH)
    # A line that names the signal is of one who looked on, whatever it calls it.
    gave_up = tuple(line for line in lines(_own(case), _GAVE_UP) if not _CRASH.search(line))
    reason = () if crash else words.reason(inside.device_log)
    shown = (gave_up + crash or reason or lines(_own(case), _ENDED))[-LINES:]
    was_seen = any(look.inside.emulator is not None for look in case.seen)
    # A moment passes between the line in the log and the process.
    if not was_seen and not (inside.spoke and (shown or _since_launch(case) >= _LAUNCH_SECONDS)):
        return None
    if not shown:
        output = tuple(inside.device_log.splitlines()[-LINES:])
        what, hint = "the emulator was started, and is gone; nothing says why", "`invoke emulator.restart`"
        return Diagnosis(LOST, what, output, f"{hint} starts it anew", final=True, again=True)
    passing = not gave_up and bool(crash or any(_PASSING.search(line) for line in shown))
    trouble = next((kind for line in shown if (kind := lastwords.trouble(line))), "")
    return Diagnosis(
        "emulator-crashed",
        f"the emulator was started, and {'is gone' if passing else 'gave up'}{trouble and f': {trouble}'}",
        shown,
        "device.stdout.log in the evidence has all it said",
        final=True,
        again=passing,
    )


def _own(case: Case) -> str:
    """What the emulator itself said since its last launch, without the program that started it."""
    return "\n".join(words.own(case.last.inside.device_log))


def _since_launch(case: Case) -> float:
    """Seconds since the image launched it: by L1's clock, and no more than was waited since it had not."""
    inside = case.last.inside
    by_clock = inside.started + case.last.seconds - (inside.launched_at or inside.started)
    before = [look.at for look in case.seen if not look.inside.spoke]
    return min(by_clock, case.last.at - before[-1]) if before else by_clock


def no_emulator(case: Case) -> Diagnosis | None:
    inside = case.last.inside
    if case.alive or not inside.state.running or inside.spoke or not case.settled:
        return None
    if any(look.inside.emulator is not None for look in case.seen):
        return None
    novnc = case.last.novnc
    page = ", and noVNC shows a desktop with nothing on it" if novnc is not None and novnc.works else ""
    launched = [look.at for look in case.seen if look.inside.launched_at]
    vanished = bool(launched) and case.last.at - launched[0] >= _LAUNCH_SECONDS
    what = "launched the emulator, which is gone without a word" if launched else "never started the emulator"
    return Diagnosis(
        "no-emulator",
        f"the container {what}{page}",
        lines(case.words, _ERROR) or tuple((inside.device_log or inside.log).splitlines()[-LINES:]),
        "see its words; emulator.device must be one the image knows",
        final=inside.watcher_ended or vanished,
        again=vanished and not inside.watcher_ended,
    )
