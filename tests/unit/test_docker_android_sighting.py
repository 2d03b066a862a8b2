"""What one look says, read from texts as they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.emulators.docker_android import contract, reading
from lab.emulators.docker_android.sighting import Android, Novnc
from tests.unit import docker_android_looks as looks


def test_container_that_runs_an_emulator_under_kvm() -> None:
    seen = looks.inside()
    assert seen.state.running and seen.state.facts["nonce"] == looks.NONCE
    assert seen.started == pytest.approx(looks.AT) and seen.status == "BOOTING"
    assert seen.emulator is not None and seen.acceleration == "on" and seen.spoke
    assert seen.holder is not None and seen.holder.started - seen.started == pytest.approx(7.5)
    assert seen.made_vm and not seen.watcher_ended and not seen.double


def test_open_device_is_no_machine() -> None:
    opened = looks.inside(processes=[looks.process(kvm=["/dev/kvm"])])
    assert opened.holder is not None and not opened.made_vm
    assert looks.inside(processes=[looks.process(kvm=[])]).holder is None


def test_last_acceleration_counts_and_qemu_is_the_emulator() -> None:
    off = [*looks.COMMAND, "-accel", "off"]
    assert looks.inside(processes=[looks.process(off)]).acceleration == "off"
    starter = looks.process(["/usr/bin/emulator", "@x", "-accel", "on"], kvm=[])
    both = looks.inside(processes=[starter, looks.process([looks.QEMU, "-accel", "kvm"])])
    assert both.emulator is not None and both.emulator.command[0] == looks.QEMU and both.acceleration == "kvm"
    assert looks.inside(processes=[starter]).emulator is not None
    other = looks.process(["/opt/android/emulator/crashpad_handler", "--database=emulator"])
    assert looks.inside(processes=[other]).emulator is None


def test_container_that_ended_or_is_not_there() -> None:
    ended = looks.inside(container=looks.inspected(Running=False, ExitCode=137, OOMKilled=True), processes=[])
    assert ended.state.exists and not ended.state.running and ended.state.exit_code == 137 and ended.killed
    gone = looks.inside(container=None)
    assert not gone.state.exists and gone.started == 0.0


def test_old_images_have_their_logs_elsewhere() -> None:
    files = {"/var/log/supervisor/docker-android.stdout.log": "INFO - Device: Samsung Galaxy S10"}
    files["/var/log/supervisor/docker-android.stderr.log"] = "emulator: Android emulator version 29.3.4.0"
    files["/var/log/supervisor/supervisord.log"] = "INFO exited: docker-appium (exit status 0; expected)"
    seen = reading.inside(looks.look(files=files), contract.OLD)
    assert seen.spoke and seen.watcher_ended and seen.status == ""


def test_program_that_was_started_again_has_not_ended() -> None:
    again = f"{looks.WATCHER_DEAD}2026-11-25 23:15:00,000 INFO spawned: 'device' with pid 99\n"
    assert looks.inside(supervisor=looks.WATCHER_DEAD).watcher_ended
    assert not looks.inside(supervisor=again).watcher_ended
    other = looks.SUPERVISOR + "INFO exited: appium (exit status 0; expected)\n"
    assert not looks.inside(supervisor=other).watcher_ended


def test_double_says_so_in_image_and_in_l2() -> None:
    described = looks.inspected()
    described["Config"]["Labels"]["io.lab.double"] = "1"
    assert looks.inside(container=described).double
    assert Android("device", properties={"ro.lab.double": "1 not Android"}).double
    assert not Android("device", properties={"ro.lab.double": "0"}).double


OLD_LAUNCHER = "com.android.launcher/com.android.launcher2.Launcher"
ANR = "Application Not Responding: com.android.systemui"


@pytest.mark.parametrize(
    ("said", "window"),
    [
        (f"  mCurrentFocus=Window{{72459d u0 {looks.HOME}}}\n", looks.HOME),
        ("  mCurrentFocus=null\n", ""),
        ("  mCurrentFocus=Window{85a52f2 u0 StatusBar}\n", "StatusBar"),
        (f"  mCurrentFocus=Window{{4aab40a {OLD_LAUNCHER}}}", OLD_LAUNCHER),
        (f"  mCurrentFocus=Window{{1 u0 {looks.HOME}}}\r\n  mCurrentFocus=Window{{2 u0 {ANR}}}\r\n", ANR),
        ("Can't find service: window", ""),
    ],
)
def test_window_with_the_focus(said: str, window: str) -> None:
    assert reading.focus(said) == window


def test_launcher_app_and_dialog_are_told_apart() -> None:
    assert Android("device", focus=looks.HOME).launcher
    aosp = Android("device", focus="com.android.launcher3/.uioverrides.QuickstepLauncher")
    app = Android("device", focus="com.android.settings/.FallbackHome")
    dialog = Android("device", focus="Application Not Responding: com.android.launcher3")
    assert aosp.launcher and not app.launcher and app.component
    assert not dialog.launcher and not dialog.component and dialog.not_responding == "com.android.launcher3"
    assert Android("device", focus="").component == "" and Android("device").component == ""


def test_screen_of_one_colour() -> None:
    assert reading.screen(looks.picture((0, 0, 0), (0, 0, 0))).one_colour
    assert reading.screen(looks.picture((10, 10, 10), (11, 12, 10))).one_colour
    seen = reading.screen(looks.picture((0, 0, 0), (0, 0, 9), (0, 0, 0)))
    assert not seen.one_colour and (seen.width, seen.height) == (3, 2)


@given(st.binary(max_size=200))
def test_what_is_no_picture_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match="no picture"):
        reading.screen(junk)


def test_picture_cut_short_is_refused() -> None:
    whole = looks.picture(*[(n, 0, 0) for n in range(200)])
    with pytest.raises(ValueError, match="no picture"):
        reading.screen(whole[: len(whole) // 2])


_WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029"))


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.lists(_WORDS).map("\n".join)))
def test_answers_are_told_apart(parts: dict[str, str]) -> None:
    """As a shell would print them, each after the line that names it."""
    printed = "".join(f"\n{reading._PART}{name}\n{text}\n" for name, text in parts.items())
    if any(f"\n{reading._PART}" in f"\n{text}" for text in parts.values()):
        return
    assert reading.answers(printed) == {name: text.strip() for name, text in parts.items()}
    assert reading.answers(printed.replace("\n", "\r\n")) == reading.answers(printed)


def test_question_is_a_script_that_a_shell_runs() -> None:
    import subprocess

    script = reading.question(one="printf 'a\\nb'", two="false", three="printf '  c'; echo d")
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False).stdout
    assert reading.answers(said) == {"one": "a\nb", "two": "", "three": "cd"}


_NAMES = st.from_regex(r"[\w.]+", fullmatch=True).filter(str.isascii)
_VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029"))


@given(st.dictionaries(_NAMES, _VALUES))
def test_properties_as_getprop_prints_them(known: dict[str, str]) -> None:
    printed = "\n".join(f"[{name}]: [{value}]" for name, value in known.items())
    assert reading.properties(printed) == known
    assert reading.properties(printed.replace("\n", "\r\n")) == known


@given(st.text())
def test_no_text_makes_a_parser_fail(text: str) -> None:
    reading.answers(text)
    reading.properties(text)
    reading.focus(text)
    reading.uptime(text)
    reading.listed(text)
    reading.signature(text)
    reading.epoch(text)


def test_figures() -> None:
    assert reading.uptime("123.45 678.90\n") == 123.45
    assert reading.uptime("cat: /proc/uptime: Permission denied") is None and reading.uptime("") is None
    assert reading.epoch("1970-01-01T00:00:01.5Z") == 1.5 and reading.epoch("0001-01-01T00:00:00Z") == 0.0
    assert reading.epoch("") == 0.0


def test_devices_as_the_containers_adb_lists_them() -> None:
    said = "* daemon started successfully\nList of devices attached\nemulator-5554\toffline\n\n"
    assert reading.listed(said) == "offline"
    assert reading.listed(said.replace("offline", "device")) == "device"
    assert reading.listed("List of devices attached\n\n") == ""


def test_signature_is_what_cpuid_told() -> None:
    assert reading.signature("hypervisor: KVMKVMKVM\0\0\0\n") == "KVMKVMKVM"
    assert reading.signature("hypervisor: TCGTCGTCGTCG\r\n") == "TCGTCGTCGTCG"
    assert reading.signature("hypervisor: " + "\0" * 12) == ""
    assert reading.signature("sh: lab-cpuid: not executable: 64-bit ELF file") is None


def test_novnc_works_when_all_of_it_does() -> None:
    assert Novnc(200, "RFB 003.008\n").works and Novnc(200, "RFB 003.889\n").works
    assert not Novnc(200, "").works and not Novnc(404, "RFB 003.008\n").works and not Novnc(None).works
