"""Each way to fail gets its name, and only what was observed refutes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.emulators.docker_android import timeline
from lab.emulators.docker_android.diagnosis import Case, diagnose
from lab.emulators.docker_android.sighting import Android, Inside, Novnc, Screen, Sighting
from lab.emulators.protocol import Diagnosis
from tests.unit import docker_android_looks as looks
from tests.unit.docker_android_looks import ANDROID, BOOTING, seen

BLACK = Screen(1440, 3040, one_colour=True)
DIALOG = "Application Not Responding: com.android.systemui"
NEVER_STARTED = f"""\
{looks.STARTING}Traceback (most recent call last):
  File "/usr/local/lib/python3.10/dist-packages/device/emulator.py", line 77, in __init__
RuntimeError: device 'Samsung Galaxy S99' is not supported!
"""


def unaccelerated(status: str) -> Inside:
    text = (
        f"{looks.LAUNCHED}ERROR   | x86_64 emulation currently requires hardware acceleration!\n"
        f"CPU acceleration status: {status}\n"
    )
    return looks.no_emulator(text)


def found(*sightings: Sighting, late: bool = False, **more: Any) -> dict[str, Diagnosis]:
    stages: dict[str, float] = {}
    for one in sightings:
        stages = timeline.merged(stages, timeline.reached(one))
    case = Case(sightings, late=late, stages=stages, **more)
    return {one.name: one for one in diagnose(case)}


def run_of(android: Android, seconds: float = 400.0, every: float = 20.0, **more: Any) -> list[Sighting]:
    return [seen(60.0 + at * every, android, **more) for at in range(int(seconds / every))]


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
    ("no-kvm", MISSING, True, "cannot be found"),
    ("no-kvm", unaccelerated("KVM requires a CPU that supports vmx or svm"), True, "vmx or svm"),
    ("no-kvm", unaccelerated("/dev/kvm is not found: VT disabled in BIOS or …"), True, "VT disabled"),
    ("kvm-denied", unaccelerated("This user doesn't have permissions to use KVM"), False, "permissions"),
    ("kvm-unusable", unaccelerated("Could not extract KVM version: Bad ioctl"), True, "extract"),
    ("kvm-unusable", unaccelerated("something new"), True, "hardware acceleration"),
    ("kvm-unusable", ENTRY, True, "entry failed"),
    ("emulator-crashed", SEGFAULT, True, "Segmentation"),
    ("emulator-crashed", looks.no_emulator(looks.LAUNCHED), False, "emulator version"),
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


def test_running_emulator_is_not_accused_of_what_the_log_says() -> None:
    """Only the end of the emulator makes its words a reason."""
    warned = looks.inside(device=f"{looks.LAUNCHED}ERROR   | KVM: entry failed once\nSegmentation fault\n")
    assert found(seen(60.0, BOOTING, inside=warned)) == {}
    helper_killed = looks.inside(memory_kills=1)
    assert found(seen(60.0, BOOTING, inside=helper_killed)) == {}


def test_emulator_that_is_being_launched_has_not_crashed() -> None:
    """Its launch is in the log at 22:59:03, seven seconds after the container's start."""
    launching = looks.no_emulator(looks.LAUNCHED)
    assert found(seen(8.0, None, inside=launching)) == {}
    assert list(found(seen(40.0, None, inside=launching))) == ["emulator-crashed"]


def test_supervisors_words_are_not_the_emulators() -> None:
    """It calls a program that ended as it should `FATAL`, in every healthy container."""
    gave_up = f"{looks.SUPERVISOR}INFO gave up: appium entered FATAL state, too many start retries\n"
    ended = looks.no_emulator(looks.LAUNCHED, supervisor=gave_up)
    assert not found(seen(60.0, None, inside=ended))["emulator-crashed"].refutes


def test_emulator_that_never_said_a_word_was_never_there() -> None:
    commanded = looks.LAUNCHED.replace("INFO    | Android emulator", "x")
    told = found(seen(200.0, Android(""), inside=looks.no_emulator(commanded)))
    assert list(told) == ["no-emulator"] and not told["no-emulator"].refutes


def test_desktop_with_nothing_on_it() -> None:
    empty = looks.no_emulator(looks.STARTING)
    told = found(seen(200.0, Android(""), inside=empty))
    assert list(told) == ["no-emulator"] and not told["no-emulator"].final
    assert "desktop" in told["no-emulator"].what


def test_emulator_that_was_seen_and_is_gone_has_crashed() -> None:
    gone = looks.no_emulator("")  # its log was cut
    told = found(seen(40.0, BOOTING), seen(60.0, Android(""), inside=gone))
    assert list(told) == ["emulator-crashed"] and not told["emulator-crashed"].refutes


def boots(*identities: str, completed_at: int = -1) -> list[Sighting]:
    return [
        seen(60.0 + 20 * at, replace(BOOTING, boot_id=one, uptime=5.0 + at, completed=at == completed_at))
        for at, one in enumerate(identities)
    ]


def test_boot_loop_is_three_kernels_and_no_boot() -> None:
    assert found(*boots("a", "a", "a")) == {}
    twice = found(*boots("a", "a", "b"))["boot-loop"]
    assert not twice.final and not twice.refutes
    loop = found(*boots("a", "b", "b", "c"))["boot-loop"]
    assert loop.final and loop.refutes and len(loop.lines) == 3 and "boot c" in loop.lines[-1]
    assert "boot-loop" not in found(*boots("a", "b", "c", completed_at=2))
    # What came before a boot that ended counts no more.
    assert "boot-loop" not in found(*boots("a", "b", "c", "d", completed_at=2))


def test_boot_loop_is_seen_by_the_uptime_where_the_boot_id_is_not_told() -> None:
    uptimes = (30.0, 50.0, 6.0, 26.0, 4.0)
    told = [seen(60.0 + 20 * at, replace(BOOTING, boot_id="", uptime=up)) for at, up in enumerate(uptimes)]
    assert found(*told)["boot-loop"].refutes


def test_adb_that_does_not_answer_is_a_matter_of_time() -> None:
    silent = Android("", error="failed to connect to 127.0.0.1:15555")
    assert found(seen(100.0, silent)) == {}
    told = found(seen(100.0, silent), seen(600.0, silent), late=True)
    assert {"no-adb", "stuck-boot"} == set(told)
    assert not any(one.final or one.refutes for one in told.values())
    offline = found(seen(100.0, Android("offline")))
    assert list(offline) == ["adb-offline"] and not offline["adb-offline"].final
    key = found(seen(100.0, Android("unauthorized", error="failed to authenticate")))["adb-unauthorized"]
    assert key.final and not key.refutes


def test_slow_boot_moves_and_a_stuck_one_does_not() -> None:
    going_on = [
        seen(
            60.0 + 30 * at,
            replace(BOOTING, properties={f"init.svc.{n}": "running" for n in range(at)} | {"a": "b"}),
        )
        for at in range(18)
    ]
    slow = found(*going_on, late=True)
    assert list(slow) == ["slow-boot"]
    stands = [*going_on[:6], *(replace(going_on[5], seconds=300.0 + 20 * at) for at in range(16))]
    stuck = found(*stands, late=True)
    assert list(stuck) == ["stuck-boot"] and "nothing has changed for" in stuck["stuck-boot"].what
    for one in (*slow.values(), *stuck.values()):
        assert not one.final and not one.refutes
    assert found(*going_on) == {}


def test_glances_in_between_do_not_look_like_a_change() -> None:
    stands = [seen(60.0 + 20 * at, BOOTING) for at in range(20)]
    glances = [
        replace(one, seconds=one.seconds + 5, android=replace(BOOTING, properties={})) for one in stands
    ]
    mixed = sorted([*stands, *glances], key=lambda one: one.seconds)
    assert list(found(*mixed, late=True)) == ["stuck-boot"]


FAULTS = {
    "anr": replace(ANDROID, focus=DIALOG),
    "black-screen": replace(ANDROID, screen=BLACK),
    "no-launcher": replace(ANDROID, focus="com.android.settings/.FallbackHome"),
    "package-manager-dead": replace(ANDROID, packages="cmd: Can't find service: package"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_of_a_booted_android_refutes_once_it_has_lasted(name: str) -> None:
    one = found(seen(100.0, FAULTS[name]))[name]
    assert not one.final and not one.refutes and one.lines
    lasting = found(*run_of(FAULTS[name], 400))[name]
    assert lasting.final and lasting.refutes
    # Not while it came and went, and not when it has only just come back.
    away = [
        *run_of(FAULTS[name], 200),
        seen(262.0),
        *(seen(270.0 + 20 * at, FAULTS[name]) for at in range(3)),
    ]
    told = found(*away)
    assert name not in told or not told[name].refutes


@pytest.mark.parametrize("name", FAULTS)
def test_fault_must_last_as_long_as_the_boot_took(name: str) -> None:
    late = [replace(one, seconds=one.seconds + 900) for one in run_of(FAULTS[name], 400)]
    assert not found(seen(60.0, BOOTING), *late)[name].final


def test_launcher_that_was_there_is_not_missed_behind_an_app() -> None:
    app = replace(ANDROID, focus="com.example/com.example.Main")
    assert found(seen(100.0), *run_of(app)) == {}


def test_watcher_that_died_is_no_failure() -> None:
    orphan = looks.inside(
        supervisor=looks.WATCHER_DEAD, device=f"{looks.LAUNCHED}RuntimeError: booted is checked 59 times!\n"
    )
    told = found(*run_of(ANDROID, inside=orphan))
    assert list(told) == ["dead-watcher"]
    one = told["dead-watcher"]
    assert not one.final and not one.refutes and "BOOTING" in one.what
    assert any("59 times" in line for line in one.lines)


def test_page_that_does_not_work_says_nothing_of_android() -> None:
    dead = Novnc(None, error="no page: ConnectionError")
    once = found(seen(100.0, novnc=dead))
    assert list(once) == ["novnc-dead"] and not once["novnc-dead"].final
    lasting = found(*run_of(ANDROID, novnc=dead))["novnc-dead"]
    assert lasting.final and not lasting.refutes


def test_reports_to_the_authors_are_told() -> None:
    reporting = looks.inside(
        device="2026-11-25 22:58:59 INFO Emulator - Sending user behavior analytics to improve the tool\n"
        + looks.LAUNCHED
    )
    told = found(seen(100.0, inside=reporting))
    assert list(told) == ["telemetry"] and not told["telemetry"].final
    assert found(seen(100.0, inside=reporting), telemetry_off=False) == {}


_ANDROIDS = st.sampled_from(
    [
        None,
        Android(""),
        Android("offline"),
        BOOTING,
        ANDROID,
        *FAULTS.values(),
        replace(BOOTING, boot_id="other"),
    ]
)
_INSIDES = st.sampled_from(
    [
        looks.inside(),
        looks.no_emulator(looks.STARTING),
        looks.no_emulator(looks.LAUNCHED),
        looks.inside(supervisor=looks.WATCHER_DEAD),
        looks.inside(container=None, processes=[]),
    ]
)
_SEEN = st.lists(
    st.builds(
        Sighting, st.floats(0, 3000), _INSIDES, _ANDROIDS, st.sampled_from([None, Novnc(None), looks.NOVNC])
    ),
    min_size=1,
    max_size=8,
).map(lambda several: sorted(several, key=lambda one: one.seconds))


@given(_SEEN, st.booleans())
def test_what_refutes_is_final_and_shown_and_time_never_refutes(
    sightings: list[Sighting], late: bool
) -> None:
    in_time, too_late = found(*sightings), found(*sightings, late=True)
    for one in (found(*sightings, late=late)).values():
        assert one.name and one.what and one.hint
        if one.refutes:
            assert one.final and one.lines
    refuting = {name for name, one in too_late.items() if one.refutes}
    assert refuting == {name for name, one in in_time.items() if one.refutes}
