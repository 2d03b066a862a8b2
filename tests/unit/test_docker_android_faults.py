"""Ways in which an Android that was launched fails: its boot, its services, its page."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.emulators.docker_android.sighting import Android, Novnc, Screen, Sighting
from tests.unit import docker_android_looks as looks
from tests.unit.diagnosing import found, run_of
from tests.unit.docker_android_looks import ANDROID, BOOTING, seen

BLACK = Screen(1440, 3040, one_colour=True)
DIALOG = "Application Not Responding: com.android.systemui"


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


def test_boot_id_that_cannot_be_read_is_no_boot() -> None:
    assert found(*boots("a", "", "a", "", "a", "")) == {}
    assert found(*boots("", "a", "a")) == {}
    assert found(*boots("a", "", "b", "", "c"))["boot-loop"].refutes
    # One boot whose id was told later, by its uptime, is one.
    restarted = (("a", 30.0), ("", 4.0), ("b", 24.0), ("b", 44.0))
    twice = found(
        *(
            seen(60.0 + 20 * at, replace(BOOTING, boot_id=one, uptime=up))
            for at, (one, up) in enumerate(restarted)
        )
    )
    assert not twice["boot-loop"].final and "2 times" in twice["boot-loop"].what


def test_adb_that_does_not_answer_is_a_matter_of_time() -> None:
    silent = Android("", error="failed to connect to 127.0.0.1:15555")
    assert found(seen(100.0, silent)) == {}
    told = found(seen(100.0, silent), seen(600.0, silent), late=True)
    assert {"no-adb", "stuck-boot"} == set(told)
    assert not any(one.final or one.refutes for one in told.values())
    # Our own clock says how long: L1's was set an hour ahead.
    stepped = found(seen(100.0, silent), seen(3601.0, silent, at=looks.OURS + 101), late=True)
    assert "nothing has changed for 1 s of 101 s" in stepped["stuck-boot"].what
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
    stands = [*going_on[:6], *(looks.moved(going_on[5], 90.0 + 20 * at) for at in range(16))]
    stuck = found(*stands, late=True)
    assert list(stuck) == ["stuck-boot"] and "nothing has changed for" in stuck["stuck-boot"].what
    for one in (*slow.values(), *stuck.values()):
        assert not one.final and not one.refutes
    assert found(*going_on) == {}


def test_glances_in_between_do_not_look_like_a_change() -> None:
    stands = [seen(60.0 + 20 * at, BOOTING) for at in range(20)]
    glances = [replace(looks.moved(one, 5), android=replace(BOOTING, properties={})) for one in stands]
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
def test_fault_of_an_earlier_boot_is_none_of_this_one(name: str) -> None:
    """It was there for as long as a boot takes, but in two boots."""
    half = run_of(FAULTS[name], 120)
    restarted = replace(FAULTS[name], boot_id="another", uptime=5.0)
    other = [seen(200.0 + 20 * at, replace(restarted, uptime=5.0 + 20 * at)) for at in range(5)]
    told = found(*half, seen(180.0, Android("offline")), *other)
    assert name in told and not told[name].final and not told[name].refutes
    lasting = [seen(200.0 + 20 * at, replace(restarted, uptime=5.0 + 20 * at)) for at in range(20)]
    assert found(*half, *lasting)[name].refutes


def test_phone_is_starting_is_no_app_in_front_of_a_launcher() -> None:
    starting = replace(ANDROID, focus="com.android.settings/com.android.settings.FallbackHome")
    assert not starting.app and replace(ANDROID, focus="com.example/.Main").app


@pytest.mark.parametrize("name", FAULTS)
def test_fault_must_last_as_long_as_the_boot_took(name: str) -> None:
    late = [looks.moved(one, 900) for one in run_of(FAULTS[name], 400)]
    assert not found(seen(60.0, BOOTING), *late)[name].final


@pytest.mark.parametrize("name", FAULTS)
def test_clock_that_is_set_is_no_patience(name: str) -> None:
    """L1's clock is set an hour ahead, as by NTP; the fault has been seen for forty seconds."""
    stepped = [
        seen(60.0, BOOTING),
        *(seen(3680.0 + 20 * at, FAULTS[name], at=looks.OURS + 80 + 20 * at) for at in range(3)),
        *(seen(120.0 + 20 * at, FAULTS[name], at=looks.OURS + 140 + 20 * at) for at in range(3)),
    ]
    for ahead in (stepped[:4], stepped):
        one = found(*ahead)[name]
        assert not one.final and not one.refutes
    # And set back it does not make the boot shorter than it was.
    back = [seen(60.0 + 20 * at, BOOTING) for at in range(20)]
    back += [seen(0.0, FAULTS[name], at=looks.OURS + 460 + 20 * at) for at in range(10)]
    assert not found(*back)[name].final
    lasting = [*back, *(seen(0.0, FAULTS[name], at=looks.OURS + 660 + 20 * at) for at in range(20))]
    assert found(*lasting)[name].refutes


def test_container_is_as_old_as_was_waited() -> None:
    """Its programs have not had their time because L1's clock was set ahead."""
    empty, dead = looks.no_emulator(looks.STARTING), Novnc(None, error="no page")
    early = seen(2.0, None, inside=empty, novnc=dead)
    assert found(early, seen(3604.0, None, inside=empty, novnc=dead, at=looks.OURS + 4)) == {}


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
        Sighting,
        st.floats(0, 3000),
        _INSIDES,
        _ANDROIDS,
        st.sampled_from([None, Novnc(None), looks.NOVNC]),
        at=st.floats(0, 3000),
    ),
    min_size=1,
    max_size=8,
).map(lambda several: sorted(several, key=lambda one: one.at))


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
