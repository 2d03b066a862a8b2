"""What is told to an image, old or new, and what its name says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.emulators.docker_android import contract
from lab.emulators.docker_android.contract import NEW, OLD, Version

PASSWORD = "abcd1234"


def given_to(promised: contract.Contract, *further: str, **more: str) -> tuple[dict[str, str], list[str]]:
    return contract.environment(
        promised, device="Nexus 5", password=PASSWORD, appium=False, further=further, **more
    )


@pytest.mark.parametrize(
    ("reference", "promised", "version"),
    [
        ("budtmo/docker-android:emulator_14.0", NEW, Version("14.0", 34)),
        ("budtmo/docker-android:emulator_12.0_v2.16.2-p0", NEW, Version("12.0", 32, "v2.16.2-p0")),
        ("localhost:5000/budtmo/docker-android:emulator_9.0", NEW, Version("9.0", 28)),
        ("budtmo/docker-android:emulator_14.0@sha256:" + "0" * 64, NEW, Version("14.0", 34)),
        ("butomo1989/docker-android-x86-8.1", OLD, Version("8.1", 27)),
        ("budtmo/docker-android-x86-7.1.1:1.8-p13", OLD, Version("7.1.1", 25, "1.8-p13")),
        ("localhost:5000/lab/double:1428f", NEW, Version()),
        ("sha256:" + "0" * 64, NEW, Version()),
    ],
)
def test_name_says_what_is_in_it(reference: str, promised: contract.Contract, version: Version) -> None:
    assert contract.of(reference) is promised and contract.version(reference) == version


def test_old_and_new_images_are_told_in_their_own_words() -> None:
    new, _ = given_to(NEW, arguments="-accel off")
    old, _ = given_to(OLD, arguments="-accel off")
    assert new["EMULATOR_DEVICE"] == old["DEVICE"] == "Nexus 5"
    assert new["USER_BEHAVIOR_ANALYTICS"] == old["GA"] == "false"
    assert new["EMULATOR_ADDITIONAL_ARGS"] == old["EMULATOR_ARGS"] == "-accel off"
    assert "DEVICE" not in new and "EMULATOR_DEVICE" not in old
    # The old one's VNC server never asks for one.
    assert new["VNC_PASSWORD"] == PASSWORD and "VNC_PASSWORD" not in old
    for words in (new, old):
        assert words["WEB_VNC"] == "true" and words["WEB_LOG"] == "false" and words["APPIUM"] == "false"


def test_watcher_is_given_the_time_a_nested_boot_takes() -> None:
    words, _ = given_to(NEW)
    assert int(words["DEVICE_INTERVAL_WAITING"]) * 59 >= 600


def test_users_words_come_last_and_reporting_is_never_silent() -> None:
    words, notes = given_to(NEW, "EMULATOR_DATA_PARTITION=900m", "WEB_LOG=true", "A=b=c")
    assert words["EMULATOR_DATA_PARTITION"] == "900m" and words["WEB_LOG"] == "true" and words["A"] == "b=c"
    assert notes == []
    words, notes = given_to(NEW, "USER_BEHAVIOR_ANALYTICS=True")
    assert words["USER_BEHAVIOR_ANALYTICS"] == "True" and "reports to its authors" in notes[0]
    assert contract.reports(NEW, ["USER_BEHAVIOR_ANALYTICS=True"])
    assert not contract.reports(NEW, ["USER_BEHAVIOR_ANALYTICS=false", "GA=true"])
    words, notes = given_to(NEW, "VNC_PASSWORD=mine1234")
    assert words["VNC_PASSWORD"] == PASSWORD and notes


def test_further_arguments_come_after_the_users() -> None:
    words, _ = given_to(NEW, "EMULATOR_ADDITIONAL_ARGS=-memory 2048", arguments="-accel off")
    assert words["EMULATOR_ADDITIONAL_ARGS"] == "-memory 2048 -accel off"


@pytest.mark.parametrize("word", ["nothing", "=x", "A=b\nVNC_PASSWORD=x"])
def test_words_that_are_none_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="KEY=VALUE"):
        given_to(NEW, word)


@given(st.text())
def test_password_that_a_shell_would_read_is_refused(password: str) -> None:
    """The image puts it on a shell's line."""
    try:
        words, _ = contract.environment(NEW, device="Nexus 5", password=password, appium=True)
    except ValueError:
        return
    assert words["VNC_PASSWORD"].isascii() and words["VNC_PASSWORD"].isalnum() and len(password) <= 8


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z_]+", fullmatch=True),
        st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
    )
)
def test_env_file_says_what_was_meant(variables: dict[str, str]) -> None:
    read = dict(line.split("=", 1) for line in contract.env_file(variables).splitlines())
    assert read == variables
