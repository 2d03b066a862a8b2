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
