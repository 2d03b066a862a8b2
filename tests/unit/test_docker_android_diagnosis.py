"""Each way to fail gets its name, and only what was observed refutes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.emulators.docker_android.sighting import Android, Inside, Novnc
from tests.unit import docker_android_looks as looks
from tests.unit.diagnosing import found, run_of
from tests.unit.docker_android_looks import ANDROID, BOOTING, seen

NEVER_STARTED = f"""\
{looks.STARTING}Traceback (most recent call last):
  File "/usr/local/lib/python3.10/dist-packages/device/emulator.py", line 77, in __init__
RuntimeError: device 'Samsung Galaxy S99' is not supported!
"""


WATCHER_GAVE_UP = """\
2026-11-25 23:14:20 ERROR Emulator - emulator is not booted
Traceback (most recent call last):
  File "/usr/local/bin/docker-android", line 8, in <module>
RuntimeError: booted is checked 59 times!
"""


def unaccelerated(status: str) -> Inside:
    text = (
        f"{looks.LAUNCHED}ERROR   | x86_64 emulation currently requires hardware acceleration!\n"
        f"CPU acceleration status: {status}\n"
    )
    return looks.no_emulator(text)


def test_nothing_is_wrong_with_a_healthy_one() -> None:
    assert found(*run_of(ANDROID)) == {} and found(*run_of(ANDROID), late=True) == {}


def test_nothing_is_wrong_while_the_container_starts() -> None:
    starting = looks.no_emulator(looks.STARTING)
    assert found(seen(8.0, Android(""), inside=starting, novnc=Novnc(None, error="no page"))) == {}
    assert found() == {}


MISSING = looks.no_emulator(
    f"{looks.STARTING}{looks.FATAL}RuntimeError: /dev/kvm cannot be found!\n", supervisor=looks.WATCHER_DEAD
)
KILLED = looks.no_emulator(
    looks.LAUNCHED, memory_kills=1, kernel=["oom-kill: task=qemu-system-x86,pid=4799,uid=1300"]
)
ENDED_FOR_MEMORY = looks.inside(
    container=looks.inspected(Running=False, ExitCode=137, OOMKilled=True), processes=[]
)
ENDED = looks.inside(
    container=looks.inspected(Running=False, ExitCode=1), processes=[], log="supervisord: no such file\n"
)
ENTRY = looks.no_emulator(f"{looks.LAUNCHED}KVM: entry failed, hardware error 0xffffffffffffffff\n")
SEGFAULT = looks.no_emulator(f"{looks.LAUNCHED}Segmentation fault (core dumped)\n")
REASONS = [
    ("no-kvm", MISSING, False, "cannot be found"),
    ("no-kvm", unaccelerated("KVM requires a CPU that supports vmx or svm"), False, "vmx or svm"),
    ("no-kvm", unaccelerated("/dev/kvm is not found: VT disabled in BIOS or …"), False, "VT disabled"),
    ("kvm-denied", unaccelerated("This user doesn't have permissions to use KVM"), False, "permissions"),
    ("kvm-error", unaccelerated("Could not extract KVM version: Bad ioctl"), False, "extract"),
    ("kvm-error", unaccelerated("something new"), False, "hardware acceleration"),
    ("kvm-unusable", ENTRY, True, "entry failed"),
    ("emulator-crashed", SEGFAULT, False, "Segmentation"),
    ("emulator-gone", looks.no_emulator(looks.LAUNCHED), False, "emulator version"),
    ("no-emulator", looks.no_emulator(NEVER_STARTED, supervisor=looks.WATCHER_DEAD), False, "not supported"),
    ("out-of-memory", KILLED, False, "oom-kill"),
    ("out-of-memory", ENDED_FOR_MEMORY, False, "OOMKilled, exit code 137"),
    ("container-exited", ENDED, False, "no such file"),
]


@pytest.mark.parametrize(("name", "inside", "refutes", "line"), REASONS)
def test_reason_why_there_is_no_emulator(name: str, inside: Inside, refutes: bool, line: str) -> None:
    told = found(seen(60.0, None, inside=inside))
    assert list(told) == [name]
    assert told[name].final and told[name].refutes is refutes
    assert any(line in shown for shown in told[name].lines), told[name].lines
    assert told[name].hint


NO_ROOM = (
    "FATAL   | Not enough space to create userdata partition. "
    "Available: 6882.50 MB at /home/androidusr/emulator, need 7372.80 MB"
)


@pytest.mark.parametrize(
    "line",
    [NO_ROOM, "ERROR   | Not enough disk space to run AVD 'x'. Exiting...", "OSError: [Errno 28] No space"],
)
def test_disk_that_is_full_is_no_finding(line: str) -> None:
    full = looks.no_emulator(f"{looks.LAUNCHED}{line}\nAborted (core dumped)\n")
    told = found(seen(60.0, None, inside=full))
    assert list(told) == ["disk-full"] and told["disk-full"].lines == (line,)
    assert (
        told["disk-full"].final and not told["disk-full"].refutes and "vm.disk_gib" in told["disk-full"].hint
    )
    assert found(seen(60.0, BOOTING, inside=looks.inside(device=f"{looks.LAUNCHED}{line}\n"))) == {}


SETUP_FAULTS = [
    "PANIC: Broken AVD system path. Check your ANDROID_SDK_ROOT value [/opt/android]!",
    "FATAL   | Unknown AVD name [samsung], use -list-avds to see valid list.",
    "Fatal: This application failed to start because no Qt platform plugin could be initialized.",
]


@pytest.mark.parametrize("line", SETUP_FAULTS)
@pytest.mark.parametrize("after", ["", "Aborted (core dumped)\n"])
def test_emulator_that_gave_up_is_named_and_refutes_nothing(line: str, after: str) -> None:
    told = found(seen(60.0, None, inside=looks.no_emulator(f"{looks.LAUNCHED}{line}\n{after}")))
    assert list(told) == ["emulator-crashed"] and line in told["emulator-crashed"].lines
    assert told["emulator-crashed"].final and not told["emulator-crashed"].refutes


@pytest.mark.parametrize(
    "line", ["WARNING | non-fatal graphics warning", "qemu-system-x86_64: non-fatal warning: no tablet"]
)
def test_warning_of_an_emulator_that_was_killed_is_no_finding(line: str) -> None:
    killed = looks.no_emulator(f"{looks.LAUNCHED}{line}\n")
    told = found(seen(40.0, BOOTING), seen(60.0, Android(""), inside=killed))
    assert not told["emulator-gone"].refutes and "nothing says why" in told["emulator-gone"].what


@pytest.mark.parametrize(
    "line",
    [
        "qemu-system-x86_64: ../hw/core/cpu.c:77: cpu_reset: Assertion `cpu' failed.",
        "Illegal instruction",
        "emulator: terminated by SIGABRT",
        "FATAL   | qemu-system-x86_64 was ended by signal 11 (SIGSEGV)",
        "terminate called after throwing an instance of 'std::bad_function_call'",
    ],
)
def test_signals_and_assertions_are_no_words_of_kvms(line: str) -> None:
    """Also after KVM had made its VM and Android ran: launching anew may go well, and nothing is refuted."""
    ended = seen(60.0, Android(""), inside=looks.no_emulator(f"{looks.LAUNCHED}{line}\n"))
    for told in (found(ended), found(seen(40.0, BOOTING), ended)):
        one = told["emulator-crashed"]
        assert one.lines == (line,) and one.final and one.again and not one.refutes


SAME_AVD = """\
ERROR   | Running multiple emulators with the same AVD
ERROR   | is an experimental feature.
ERROR   | Please use -read-only flag to enable this feature.
"""
NO_LIBRARY = (
    f"{looks.QEMU}: error while loading shared libraries: libpulse.so.0: cannot open shared object file: "
    "No such file or directory\n"
)
NO_AVD = "ERROR   | No AVD specified. Use '@foo' or '-avd foo' to launch a virtual device named 'foo'\n"
HANGS = """\
ERROR | detected a hanging thread 'QEMU2 main loop'. No response for 15000 ms
ERROR | detected a hanging thread 'QEMU2 CPU0 thread'. No response for 15000 ms
"""
COMMANDED, _, BANNER = looks.LAUNCHED.rpartition("INFO    | Android emulator")
LAST_WORDS = [
    # (what it ended with, what of it must be shown, whether launching anew may mend it)
    (SAME_AVD, "Please use -read-only flag", False),
    (NO_LIBRARY, "libpulse.so.0", False),
    (NO_AVD, "No AVD specified", False),
    (HANGS, "QEMU2 CPU0 thread", True),
    ("PANIC: Missing emulator engine program for 'x86_64' CPU.\n", "Missing emulator engine", False),
    ("emulator: ERROR: It seems too many emulator instances are running. Aborting.\n", "too many", False),
    ("qemu-system-x86_64: -netdev user: Could not set up host forwarding rule 'tcp::5555'\n", "rule", False),
    ("FATAL   | Unknown AVD name [x]\nINFO    | Storing crashdata in: /tmp/x\n", "Unknown AVD", False),
    ("qemu-system-x86_64: terminating on signal 15 from pid 7 (supervisord)\n", "signal 15", True),
    ("Killed\n", "Killed", True),
]
NO_BANNER = [
    NO_LIBRARY,
    "PANIC: Cannot find AVD system path. Please define ANDROID_SDK_ROOT\n",
    "/bin/sh: 1: emulator: not found\n",
    "/opt/android/emulator/emulator: cannot execute binary file: Exec format error\n",
    "FATAL   | Not enough something\n",
    NO_AVD,
]


@pytest.mark.parametrize(("words", "line", "again"), LAST_WORDS)
@pytest.mark.parametrize("after", ["", WATCHER_GAVE_UP])
def test_emulators_own_last_words_are_the_reason(words: str, line: str, again: bool, after: str) -> None:
    told = found(seen(60.0, None, inside=looks.no_emulator(f"{looks.LAUNCHED}{words}{after}")))
    assert list(told) == ["emulator-crashed"]
    one = told["emulator-crashed"]
    assert any(line in shown for shown in one.lines), one.lines
    assert one.final and not one.refutes and one.again is again
    assert not any("59 times" in shown for shown in one.lines), "that is the image's program's"


@pytest.mark.parametrize("words", NO_BANNER)
def test_emulator_that_ends_before_its_banner_has_spoken(words: str) -> None:
    told = found(seen(25.0, None, inside=looks.no_emulator(f"{COMMANDED}{words}")))
    assert list(told) == ["emulator-crashed"]
    one = told["emulator-crashed"]
    assert words.strip() in one.lines and one.final and not one.refutes and not one.again


def test_what_came_before_its_last_calm_line_is_no_reason() -> None:
    """A healthy one complains at its start that adb is not there yet, and then somebody kills it."""
    early = "ERROR   | Something was wrong, and it went on\nINFO    | Boot completed in 90000 ms\n"
    killed = looks.no_emulator(f"{looks.LAUNCHED}{early}")
    told = found(seen(40.0, BOOTING), seen(60.0, Android(""), inside=killed))
    assert list(told) == ["emulator-gone"] and told["emulator-gone"].again
    noise = f"{looks.LAUNCHED}ERROR   | Unable to connect to adb daemon on port: 5037\n"
    told = found(seen(40.0, BOOTING), seen(60.0, Android(""), inside=looks.no_emulator(noise)))
    assert list(told) == ["emulator-gone"] and told["emulator-gone"].again


def test_words_of_a_launch_before_are_not_of_this_one() -> None:
    """The image's program may be started again in the same container, by its supervisor."""
    before = f"{looks.LAUNCHED}{KVMS[0]}\n2026-11-25 23:00:00 INFO Emulator - waits for a sigterm signal\n"
    assert list(found(seen(60.0, None, inside=looks.no_emulator(before)))) == ["kvm-unusable"]
    told = found(seen(90.0, None, inside=looks.no_emulator(before + looks.LAUNCHED)))
    assert list(told) == ["emulator-gone"] and not told["emulator-gone"].refutes


def test_launch_that_left_no_word_is_not_called_none() -> None:
    told = found(seen(200.0, Android(""), inside=looks.no_emulator(COMMANDED)))
    one = told["no-emulator"]
    assert "launched the emulator, which is gone without a word" in one.what and not one.refutes
    assert not one.final, "it was seen this once"
    later = [seen(60.0 + 10 * at, Android(""), inside=looks.no_emulator(COMMANDED)) for at in range(3)]
    one = found(*later)["no-emulator"]
    assert one.final and one.again and not one.refutes


def test_device_that_did_not_reach_the_container_is_no_word_of_kvms() -> None:
    """lab's own guest ran under it in L1 and in a container just before: Docker lost it, or somebody."""
    log = f"{looks.STARTING}{looks.FATAL}RuntimeError: /dev/kvm cannot be found!\n"
    given = [{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm"}]
    for devices in (given, None):
        container = looks.inspected() | {"HostConfig": {"Devices": devices}}
        absent = seen(60.0, None, inside=looks.no_emulator(log, container=container))
        for looked in ([absent], [seen(50.0, BOOTING), absent]):
            one = found(*looked)["no-kvm"]
            assert one.final and not one.refutes


@pytest.mark.parametrize("android", [Android("", error="failed to connect"), BOOTING])
def test_emulator_that_hangs_says_so_when_its_time_is_up(android: Android) -> None:
    hangs = looks.inside(device=f"{looks.LAUNCHED}{HANGS}")
    told = found(seen(590.0, android, inside=hangs), seen(600.0, replace(android), inside=hangs), late=True)
    assert any("hanging thread" in line for one in told.values() for line in one.lines)
    assert not any(one.refutes for one in told.values())


def test_log_of_a_start_before_refutes_nothing() -> None:
    """Somebody started the container again: its log has both."""
    again = looks.inspected(FinishedAt="2026-11-25T22:58:41.385917929Z")
    told = {}
    for container in (looks.inspected(FinishedAt="0001-01-01T00:00:00Z"), again):
        there = looks.no_emulator(f"{looks.LAUNCHED}{KVMS[0]}\n", container=container)
        one = found(seen(60.0, None, inside=there))["kvm-unusable"]
        told[container["State"]["FinishedAt"][:4]] = one.refutes
    assert told == {"0001": True, "2026": False}


KVMS = ["KVM: entry failed, hardware error 0x80000021", "KVM internal error. Suberror: 1"]
_LINES = st.lists(
    st.sampled_from(
        [
            *KVMS,
            "INFO    | a KVM: entry failed that somebody speaks of",
            "qemu-system-x86_64: failed to initialize kvm: Permission denied",
            "qemu-system-x86_64: failed to initialize kvm: Cannot allocate memory",
            "Could not access KVM kernel module: Device or resource busy",
            "error: kvm run failed Bad address",
            "error: failed to set MSR 0x10a to 0x0",
            "CPU acceleration status: something new",
            "ERROR   | x86_64 emulation currently requires hardware acceleration!",
            "ERROR   | detected a hanging thread 'QEMU2 main loop'. No response for 15000 ms",
            "Segmentation fault (core dumped)",
            "Aborted",
            "Killed",
            NO_LIBRARY.strip(),
            "FATAL   | Unknown AVD name [x]",
            "INFO    | Boot completed in 90000 ms",
        ]
    ),
    max_size=5,
)


_RUNNING = st.sampled_from([True, True, True, False])
_FOR_MEMORY = st.sampled_from([(False, 0)] * 6 + [(True, 0), (False, 1)])
"""Whether Docker says so, and how many were ended. Seldom: it hides all else."""


@given(_LINES, st.integers(0, 255), _RUNNING, _FOR_MEMORY, st.booleans())
def test_emulator_that_ended_refutes_by_kvms_own_words_alone(
    lines: list[str], code: int, running: bool, memory: tuple[bool, int], was_seen: bool
) -> None:
    killed, memory_kills = memory
    log = looks.LAUNCHED + "".join(f"{line}\n" for line in lines)
    container = looks.inspected(Running=running, ExitCode=code, OOMKilled=killed)
    inside = looks.no_emulator(log, container=container, memory_kills=memory_kills)
    before = [seen(40.0, BOOTING)] if was_seen else []
    told = found(*before, seen(60.0, Android(""), inside=inside))
    assert told, "it is gone, and something is said of that"
    refuting = {name for name, one in told.items() if one.refutes}
    assert refuting <= {"kvm-unusable"}
    assert not refuting or any(line in KVMS for line in lines)


WITHOUT_KVM = [
    (looks.inside(processes=[looks.process([*looks.COMMAND, "-accel", "off"], kvm=[])]), "off"),
    (looks.inside(processes=[looks.process([*looks.COMMAND, "-no-accel"], kvm=[])]), "off"),
    (looks.told_to("-accel off"), "EMULATOR_ADDITIONAL_ARGS=-accel off"),
    (
        looks.told_to("-memory 2048 -accel off", processes=[]),
        "EMULATOR_ADDITIONAL_ARGS=-memory 2048 -accel off",
    ),
    (looks.told_to("-qemu -accel tcg", processes=[]), "EMULATOR_ADDITIONAL_ARGS=-qemu -accel tcg"),
    # Left to choose, it runs L2 without.
    (
        looks.told_to("-accel auto", said="List of devices attached\nemulator-5554\tdevice\n"),
        "EMULATOR_ADDITIONAL_ARGS=-accel auto",
    ),
    # So it is where nothing is said.
    (
        looks.inside(
            processes=[looks.process([looks.QEMU, "@x"], kvm=[])],
            said="List of devices attached\nemulator-5554\tdevice\n",
        ),
        "no -accel",
    ),
    # It crashed as well: of KVM that says nothing.
    (looks.told_to("-accel off", processes=[], device=f"{looks.LAUNCHED}Segmentation fault\n"), "-accel off"),
]


@pytest.mark.parametrize(("inside", "line"), WITHOUT_KVM)
def test_setting_that_switches_kvm_off_refutes_nothing(inside: Inside, line: str) -> None:
    told = found(seen(60.0, BOOTING, inside=inside))
    assert list(told) == ["unaccelerated"] and line in told["unaccelerated"].lines[0]
    one = told["unaccelerated"]
    assert one.final and not one.refutes and "emulator.env" in one.hint
    # Where it is timed without, that is how it should be.
    assert "unaccelerated" not in found(seen(60.0, BOOTING, inside=inside), with_kvm=False)


def test_last_word_on_acceleration_counts() -> None:
    for words in ("-accel off -accel on", "-memory 2048", "-feature 'x", "-accel auto"):
        assert "unaccelerated" not in found(seen(60.0, BOOTING, inside=looks.told_to(words, processes=[])))


@pytest.mark.parametrize("word", [KVMS[0], "qemu-system-x86_64: KVM: unknown exit, hardware reason 31"])
@pytest.mark.parametrize("android", [None, Android(""), Android("offline")])
def test_emulator_that_stands_still_after_kvms_word_is_not_waited_for(
    word: str, android: Android | None
) -> None:
    """QEMU does not end by it: it stays, paused for ever."""
    stays = looks.inside(device=f"{looks.LAUNCHED}{word}\n")
    one = found(seen(60.0, android, inside=stays))["kvm-unusable"]
    assert one.final and one.refutes and word in one.lines
    again = looks.inspected(FinishedAt="2026-11-25T22:58:41.385917929Z")
    before = looks.inside(device=f"{looks.LAUNCHED}{word}\n", container=again)
    assert not found(seen(60.0, android, inside=before))["kvm-unusable"].refutes


def test_internal_error_that_may_be_survived_counts_when_the_time_is_up() -> None:
    """QEMU runs on after one of the guest's user space, and ends with no word after any other."""
    stays = seen(60.0, Android(""), inside=looks.inside(device=f"{looks.LAUNCHED}{KVMS[1]}\n"))
    assert "kvm-unusable" not in found(stays)
    assert found(stays, late=True)["kvm-unusable"].refutes
    lives = replace(stays, android=BOOTING)
    assert "kvm-unusable" not in found(lives, late=True)


def test_running_emulator_is_not_accused_of_what_the_log_says() -> None:
    """Only the end of the emulator, or of all answers, makes its words a reason."""
    warned = looks.inside(device=f"{looks.LAUNCHED}ERROR   | KVM: entry failed once\nSegmentation fault\n")
    assert found(seen(60.0, BOOTING, inside=warned)) == {}
    helper_killed = looks.inside(memory_kills=1)
    assert found(seen(60.0, BOOTING, inside=helper_killed)) == {}


def test_emulator_that_is_being_launched_has_not_crashed() -> None:
    """Its launch is in the log at 22:59:03, seven seconds after the container's start."""
    launching = looks.no_emulator(looks.LAUNCHED)
    assert found(seen(8.0, None, inside=launching)) == {}
    assert list(found(seen(40.0, None, inside=launching))) == ["emulator-gone"]


def test_clock_that_was_set_makes_no_crash() -> None:
    """An hour ahead between two looks: the launch in the log is then an hour ago, by L1's clock."""
    before = seen(6.0, None, inside=looks.no_emulator(looks.STARTING))
    launching = seen(3608.0, None, inside=looks.no_emulator(looks.LAUNCHED), at=looks.OURS + 8)
    assert found(before, launching) == {}


def test_supervisors_words_are_not_the_emulators() -> None:
    """It calls a program that ended as it should `FATAL`, in every healthy container."""
    gave_up = f"{looks.SUPERVISOR}INFO gave up: appium entered FATAL state, too many start retries\n"
    ended = looks.no_emulator(looks.LAUNCHED, supervisor=gave_up)
    assert not found(seen(60.0, None, inside=ended))["emulator-gone"].refutes


def test_emulator_that_never_said_a_word_was_never_there() -> None:
    commanded = looks.LAUNCHED.rpartition("INFO    | Android emulator")[0]
    told = found(seen(200.0, Android(""), inside=looks.no_emulator(commanded)))
    assert list(told) == ["no-emulator"] and not told["no-emulator"].refutes


def test_desktop_with_nothing_on_it() -> None:
    empty = looks.no_emulator(looks.STARTING)
    told = found(seen(200.0, Android(""), inside=empty))
    assert list(told) == ["no-emulator"] and not told["no-emulator"].final
    assert "desktop" in told["no-emulator"].what


def test_emulator_that_was_seen_and_is_gone_is_told_as_that() -> None:
    gone = looks.no_emulator("")  # its log was cut
    told = found(seen(40.0, BOOTING), seen(60.0, Android(""), inside=gone))
    assert list(told) == ["emulator-gone"] and not told["emulator-gone"].refutes
