"""Booted and usable rest on Android's word over the host's ADB; the timeline on each stage's first sight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.emulators.docker_android import contract, timeline
from lab.emulators.docker_android.health import booted, health
from lab.emulators.docker_android.sighting import Android, Novnc, Screen, Sighting
from lab.emulators.protocol import Health
from tests.unit import docker_android_looks as looks
from tests.unit.docker_android_looks import ANDROID, BOOTING, NONCE, seen


def judged(*sightings: Sighting, stages: dict[str, float] | None = None, **more: Any) -> Health:
    return health(sightings, stages or {}, **({"nonce": NONCE} | more))


def checks(found: Health) -> dict[str, bool | None]:
    return {check.name: check.ok for check in found.checks}


def test_healthy_android_is_usable() -> None:
    found = judged(
        seen(100.0), image="docker-android@sha256:d", version=contract.version("a/b:emulator_14.0_v3.5.2-p0")
    )
    assert found.booted and found.usable and found.diagnoses == ()
    assert found.facts["release"] == "14" and found.facts["api"] == "34"
    assert (
        found.facts["fingerprint"].startswith("google/sdk_gphone64")
        and found.facts["docker_android"] == "v3.5.2-p0"
    )
    assert "double" not in found.facts


def test_android_without_kvm_is_not_usable() -> None:
    """By a setting: it may answer as well as it likes."""
    slow = looks.told_to("-accel off")
    found = judged(seen(100.0, inside=slow))
    assert found.booted and not found.usable and [one.name for one in found.diagnoses] == ["unaccelerated"]


def test_device_profile_is_a_fact() -> None:
    assert judged(seen(100.0)).facts["device"] == "Samsung Galaxy S10"
    old = looks.inspected()
    old["Config"]["Env"] = ["DEVICE=Nexus 5"]
    assert judged(seen(100.0, inside=looks.inside(container=old))).facts["device"] == "Nexus 5"


@pytest.mark.parametrize("status", contract.STATES)
def test_the_containers_own_word_decides_nothing(status: str) -> None:
    assert judged(seen(100.0, inside=looks.inside(status_file=status))).usable
    ready = looks.inside(status_file=status)
    assert not judged(seen(100.0, BOOTING, inside=ready)).booted
    assert checks(judged(seen(100.0)))["status"] is None


@pytest.mark.parametrize("nonce", ["", "another"])
def test_another_l2_has_not_booted_for_us(nonce: str) -> None:
    stranger = seen(100.0, replace(ANDROID, nonce=nonce))
    assert not judged(stranger).booted and not booted(stranger, NONCE)
    # And no nonce is nobody's.
    assert not judged(seen(100.0, replace(ANDROID, nonce="")), nonce="").booted


@pytest.mark.parametrize(
    ("check", "sighting"),
    [
        ("packages", seen(9.0, replace(ANDROID, packages="Can't find service: package"))),
        ("packages", seen(9.0, replace(ANDROID, packages=""))),
        ("packages", seen(9.0, replace(ANDROID, packages=None))),
        ("launcher", seen(9.0, replace(ANDROID, focus=""))),
        ("launcher", seen(9.0, replace(ANDROID, focus="com.android.settings/.FallbackHome"))),
        ("responding", seen(9.0, replace(ANDROID, focus="Application Not Responding: com.android.systemui"))),
        ("screen", seen(9.0, replace(ANDROID, screen=Screen(1, 1, one_colour=True)))),
        ("screen", seen(9.0, replace(ANDROID, screen=None, screen_error="screencap gave no picture"))),
        ("novnc", seen(9.0, novnc=Novnc(200, error="no WebSocket: refused"))),
        ("novnc", seen(9.0, novnc=None)),
        ("boot", seen(9.0, BOOTING)),
        ("adb", seen(9.0, Android("offline"))),
    ],
)
def test_each_thing_is_needed(check: str, sighting: Sighting) -> None:
    found = judged(sighting)
    assert not found.usable and not checks(found)[check]
    assert found.booted is (check not in ("boot", "adb"))


def test_app_in_front_is_as_good_as_the_launcher_once_that_was_seen() -> None:
    app = seen(200.0, replace(ANDROID, focus="com.example/com.example.Main"))
    assert not judged(app).usable
    assert judged(app, stages={"launcher": 90.0}).usable
    nothing = seen(200.0, replace(ANDROID, focus=""))
    assert not judged(nothing, stages={"launcher": 90.0}).usable


def test_container_that_is_gone_is_told_without_android() -> None:
    found = judged(Sighting(0.0, looks.inside(container=None, processes=[]), at=0.0))
    assert not found.booted and checks(found)["container"] is False and checks(found)["boot"] is None
    assert [one.name for one in found.diagnoses] == ["container-exited"]
    assert all(stage.seconds is None for stage in found.timeline)


def test_double_is_known_from_any_look() -> None:
    double = replace(ANDROID, properties={**ANDROID.properties, "ro.lab.double": "1 not Android"})
    found = judged(seen(90.0, double), seen(91.0, replace(ANDROID, properties={})))
    assert found.facts["double"] == "yes" and found.facts["release"] == "14"


def test_stages_come_from_the_first_look_that_shows_them() -> None:
    stages: dict[str, float] = {}
    for one in (seen(20.0, Android(""), novnc=None), seen(50.0, BOOTING, novnc=None), seen(90.0), seen(95.0)):
        stages = timeline.merged(stages, timeline.reached(one))
    assert stages == {
        "container": 0.0,
        "kvm-open": 7.5,  # the start of the process that has it open, whenever that was seen
        "adb-online": 50.0,
        "boot-animation": 50.0,
        "boot-completed": 90.0,
        "package-manager": 90.0,
        "launcher": 90.0,
        "screen": 90.0,
        "novnc": 90.0,
    }
    assert [stage.name for stage in timeline.timeline(stages)] == list(timeline.STAGES)


def test_containers_own_adb_shows_l2_online_too() -> None:
    within = looks.inside(said="List of devices attached\nemulator-5554\tdevice\n")
    assert timeline.reached(seen(30.0, None, inside=within, novnc=None))["adb-online"] == 30.0


def reached(*sightings: Sighting) -> timeline.Reached:
    found = timeline.Reached()
    for one in sightings:
        found.saw(one)
    return found


STARTING = "com.android.settings/com.android.settings.FallbackHome"
AGAIN = replace(ANDROID, boot_id="another", uptime=40.0)


@pytest.mark.parametrize("focus", [STARTING, "com.android.phone/com.android.phone.PhoneIsStarting"])
def test_launcher_of_an_earlier_boot_does_not_vouch_for_this_one(focus: str) -> None:
    """Android restarted in the same container, and shows "Phone is starting": it has no launcher."""
    before, now = seen(90.0), seen(200.0, replace(AGAIN, focus=focus))
    found = judged(before, now, stages=reached(before, now).stages)
    assert found.booted and not found.usable and checks(found)["launcher"] is False
    assert "no-launcher" in {one.name for one in found.diagnoses}
    launched = seen(260.0, replace(AGAIN, uptime=100.0))
    app = seen(270.0, replace(AGAIN, uptime=110.0, focus="com.example/com.example.Main"))
    assert judged(app, stages=reached(before, now, launched, app).stages).usable


def test_phone_is_starting_in_this_very_boot_is_no_app() -> None:
    """Android's own processes may start anew without its kernel: the boot is the same."""
    before, now = seen(90.0), seen(200.0, replace(ANDROID, uptime=190.0, focus=STARTING))
    found = judged(before, now, stages=reached(before, now).stages)
    assert not found.usable and checks(found)["launcher"] is False


def test_stages_are_of_the_boot_that_reached_them() -> None:
    first = reached(seen(50.0, BOOTING), seen(90.0))
    assert not first.restarted and first.stages["launcher"] == 90.0
    first.saw(seen(120.0, Android("offline")))
    assert first.stages["launcher"] == 90.0, "nobody says that it restarted"
    first.saw(seen(150.0, replace(BOOTING, boot_id="another", uptime=20.0)))
    assert first.restarted and set(timeline.OF_L2) & set(first.stages) == {"adb-online", "boot-animation"}
    assert first.stages["adb-online"] == 150.0 and first.stages["novnc"] == 50.0
    # By what is left for others they know the same, and nothing before they have heard which boot it is.
    other = timeline.Reached()
    other.told(first.to_tell())
    assert not set(timeline.OF_L2) & set(other.stages)
    other.saw(seen(160.0, replace(BOOTING, boot_id="another", uptime=30.0), novnc=None))
    assert other.stages == first.stages and other.restarted


def test_boot_whose_id_is_not_told_is_told_by_its_uptime() -> None:
    nameless = replace(ANDROID, boot_id="")
    found = reached(seen(90.0, nameless))
    assert found.stages["launcher"] == 90.0
    found.saw(seen(200.0, replace(nameless, uptime=20.0, focus=STARTING)))
    assert "launcher" not in found.stages and found.stages["boot-completed"] == 200.0
    assert list(found.to_tell()) == [timeline.OWN]


def test_what_was_seen_before_a_boot_had_a_name_is_its_own_only_if_it_is_as_old() -> None:
    online = looks.inside(said="List of devices attached\nemulator-5554\tdevice\n")
    early = seen(30.0, None, inside=online, novnc=None)
    assert reached(early, seen(60.0, replace(BOOTING, uptime=50.0))).stages["adb-online"] == 30.0
    assert reached(early, seen(60.0, replace(BOOTING, uptime=10.0))).stages["adb-online"] == 60.0


_KERNELS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from([STARTING, looks.HOME])), min_size=1
)


@given(_KERNELS)
def test_a_boot_is_vouched_for_by_its_own_looks_alone(kernels: list[tuple[str, str]]) -> None:
    """Whatever restarts there were; a boot that comes back by another command's word is the same one."""
    sightings = [
        seen(60.0 + at, replace(ANDROID, boot_id=boot, uptime=float(at), focus=focus))
        for at, (boot, focus) in enumerate(kernels)
    ]
    last = kernels[-1][0]
    own = [at for at, (boot, focus) in enumerate(kernels) if boot == last and focus == looks.HOME]
    expected = 60.0 + own[0] if own else None
    assert reached(*sightings).stages.get("launcher") == expected


_STAGES = st.dictionaries(st.sampled_from(timeline.STAGES), st.floats(0, 1e6))


@given(_STAGES, _STAGES, _STAGES)
def test_earliest_sight_of_a_stage_is_kept_in_any_order(
    one: dict[str, float], two: dict[str, float], three: dict[str, float]
) -> None:
    merged = timeline.merged(timeline.merged(one, two), three)
    assert merged == timeline.merged(one, timeline.merged(three, two))
    for name, seconds in merged.items():
        assert seconds == min(known[name] for known in (one, two, three) if name in known)


_ANDROIDS = st.builds(
    Android,
    adb=st.sampled_from(["device", "offline", ""]),
    nonce=st.sampled_from(["", NONCE, "another"]),
    completed=st.booleans(),
    packages=st.sampled_from([None, "", "package:/x", "no"]),
    focus=st.sampled_from([None, "", looks.HOME, "Application Not Responding: a.b"]),
    screen=st.sampled_from([None, Screen(1, 1, one_colour=True), Screen(1, 1, one_colour=False)]),
)


@given(_ANDROIDS, st.sampled_from([None, Novnc(None), looks.NOVNC]), st.sampled_from(contract.STATES))
def test_usable_needs_everything_and_booted_the_nonce(
    android: Android, novnc: Novnc | None, status: str
) -> None:
    found = judged(seen(99.0, android, novnc=novnc, inside=looks.inside(status_file=status)))
    if found.usable:
        assert found.booted and novnc == looks.NOVNC and android.launcher and not android.not_responding
        assert android.screen is not None and not android.screen.one_colour
    if found.booted:
        assert android.nonce == NONCE and android.completed and android.online
    assert {check.name for check in found.checks} >= {"container", "kvm", "adb", "boot", "novnc"}
