"""docker-android's L2: how it proves itself, and what is said where it cannot."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError, LabError
from lab.core.journal import Journal
from lab.emulators.docker_android import (
    contract,
    looking,
    sighting,
    waiting,
    within,
)
from lab.emulators.docker_android.looking import Watch
from lab.emulators.protocol import NestedFailedError, NestedLostError
from lab.formats import oci
from lab.formats.cpio import CpioEntry
from lab.guest.ssh import Guest, Result
from tests.unit import docker_android_looks as looks
from tests.unit.androids import REFERENCE, FakeGuest, made, reach
from tests.unit.docker_android_looks import NONCE


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "saved.tar"
    oci.write(path, reference=REFERENCE, entries={"x": CpioEntry.file(b"x")}, config={})
    return path


ANSWER = f"""
lab-part boot_id
0b1c

lab-part uptime
12.50 3.00

lab-part nonce
{NONCE}

lab-part completed


lab-part animation
running

lab-part kernel
6.1.23-android14

lab-part clocksource


lab-part hypervisor
hypervisor: KVMKVMKVM\0\0\0
"""
ANSWERED = f"\nlab-part at\n{looks.AT + 37.5:.3f}\n"
FIRST = """
lab-part boot_id
0b1c

lab-part uptime
12.00 3.00

lab-part completed

"""
"""All that was heard of an L2 that restarted then."""
ONLINE = looks.look(said="List of devices attached\nemulator-5554\tdevice\n")


def test_l2_proves_itself_before_android_has_booted(tmp_path: Path, archive: Path) -> None:
    guest = FakeGuest(**{"docker exec": f"{ANSWERED}{ANSWER}"}).telling(
        looks.look(processes=[], device=looks.STARTING), looks.look(), ONLINE
    )
    proof = made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(60))
    assert (proof.nonce, proof.hypervisor, proof.boot_id) == (NONCE, "KVMKVMKVM", "0b1c")
    assert not proof.boot_completed and proof.clocksource == ""
    asked = next(line for line in guest.asked if line.startswith("docker exec --interactive"))
    assert NONCE in asked and "setprop" in asked
    # From the start of the emulator's process, not of the container.
    assert proof.seconds == pytest.approx(30.0)


def test_no_proof_is_put_together_from_two_boots() -> None:
    second = FIRST.replace("0b1c", "second")
    said = within.heard(f"{ANSWERED}{ANSWER}{ANSWERED}{second}")
    assert said.proof is None and said.android is not None and said.android.boot_id == "second"
    assert within.heard(f"{ANSWERED}{second}{ANSWERED}{ANSWER}").proof is not None


def test_when_l2_came_online_is_told_by_the_uptime_where_date_has_no_fractions(
    tmp_path: Path, archive: Path
) -> None:
    said = "\nlab-part at\n1795723351.%N\n\nlab-part online\n100.25 9.0\n"
    guest = FakeGuest(**{"docker exec": f"{said}{ANSWER}\nlab-part over\n104.75 9.0\n"}).telling(looks.look())
    began = time.monotonic()
    proof = made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(60))
    # Looked at after 60 s; the monitor began at 7.5 s, and L2 was online 4.5 s before the end of the asking.
    assert proof.seconds is not None
    assert 48.0 <= proof.seconds <= 48.0 + time.monotonic() - began + 0.01


def test_l2_that_answers_once_its_time_is_up_is_heard(tmp_path: Path, archive: Path) -> None:
    guest = FakeGuest(**{"docker exec": ANSWER}).telling(ONLINE)
    assert made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(0)).boot_id == "0b1c"


def test_l2_that_restarts_before_it_has_answered_is_a_boot_loop_and_nothing_against_kvm(
    tmp_path: Path, archive: Path
) -> None:
    class Restarting(FakeGuest):
        boots = 0

        def run(self, argv: Sequence[str], **more: Any) -> Result:
            if argv[:2] == ["docker", "exec"]:
                self.boots += 1
                self.answers["docker exec"] = f"{ANSWERED}{FIRST.replace('0b1c', f'b-{self.boots}')}"
            return super().run(argv, **more)

    guest = Restarting().telling(looks.look())
    with pytest.raises(InconclusiveError, match="boot-loop: Android's kernel started 3 times") as caught:
        made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(60))
    assert type(caught.value) is InconclusiveError and guest.boots == 3
    assert all(f"boot b-{number}, up 12 s" in caught.value.tail for number in (1, 2, 3))


def test_l2_that_restarted_once_is_asked_again(tmp_path: Path, archive: Path) -> None:
    guest = FakeGuest(**{"docker exec": f"{ANSWERED}{FIRST.replace('0b1c', 'before')}{ANSWERED}{ANSWER}"})
    found = made(tmp_path, archive).booted(cast(Guest, guest.telling(ONLINE)), Deadline.after(60))
    assert (found.boot_id, found.nonce) == ("0b1c", NONCE)


ADB = """#!/bin/sh
# Online at once; the first $VAIN questions find an L2 that has restarted.
count() { n=$(($(cat "$0.$1" 2>/dev/null || echo 0) + 1)); echo "$n" >"$0.$1"; }
case $3 in
get-state) echo "$STATE" ;;
push) cp "$4" "$5" "${0%/*}" ;;
shell)
    count asked
    [ "$n" -gt "$VAIN" ] || { echo "error: closed" >&2; exit 1; }
    sh -c "PATH=${0%/*}:$PATH; $4" ;;
esac
"""


@pytest.mark.skipif(not Path("/proc/uptime").exists(), reason="the script runs in containers, on Linux")
@pytest.mark.parametrize(
    ("state", "vain", "seconds", "answers"),
    [
        ("device", 0, 0.0, True),
        ("device", 3, 9.0, True),  # longer than it is waited for to come online
        ("device", 9, 0.0, False),
        ("offline", 0, 0.0, False),
    ],
)
def test_script_in_the_container_asks_again_what_was_online_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, vain: int, seconds: float, answers: bool
) -> None:
    """The script itself, with an adb whose L2 is this machine."""
    for name, text in (
        ("adb", ADB),
        ("setprop", '#!/bin/sh\necho "$2" >"$(dirname "$0")/nonce"\n'),
        ("getprop", f'#!/bin/sh\n[ "$1" != {sighting.NONCE_PROPERTY} ] || cat "$(dirname "$0")/nonce"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("STATE", state)
    monkeypatch.setenv("VAIN", str(vain))
    monkeypatch.setattr(within, "_LOOKS", 1)
    monkeypatch.setattr(within, "QUESTION", within.QUESTION.replace("/data/local/tmp", str(tmp_path)))

    class Container(FakeGuest):
        def run(self, argv: Sequence[str], **more: Any) -> Result:
            assert argv[:2] == ["docker", "exec"]
            words = argv[argv.index("sh") :]
            done = subprocess.run(words, input=more["stdin"], capture_output=True, check=False)
            return Result(list(argv), done.stdout.decode(errors="replace"), "", done.returncode, 0.0)

    guest = cast(Guest, Container())
    said = within.ask(guest, cast(Any, SimpleNamespace(name="c")), NONCE, Deadline.after(seconds))
    assert (said.at is not None) is (state == "device")
    assert (said.android is not None) is answers
    if answers:
        assert said.android.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        for name, content in within.PROGRAMS.items():
            assert (tmp_path / name).read_bytes() == content
    if answers and platform.machine() == "x86_64":
        assert said.proof is not None and said.proof.nonce == NONCE


@pytest.mark.parametrize("said", ["", ANSWERED, "error: no devices/emulators found\n"])
def test_l2_that_was_not_heard_is_told_by_the_deadline(tmp_path: Path, archive: Path, said: str) -> None:
    guest = FakeGuest(**{"docker exec": said}).telling(looks.look())
    with pytest.raises(DeadlineError, match="did not answer the container's own adb in 0 s"):
        made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(0))


INTERNAL = "KVM internal error. Suberror: 1"


def test_answer_without_a_signature_is_none() -> None:
    assert within.proof(ANSWER.replace("hypervisor: KVM", "sh: not executable: KVM")) is None
    assert within.proof("") is None


@pytest.mark.parametrize(
    ("device", "more", "error", "name"),
    [
        (f"{looks.STARTING}RuntimeError: /dev/kvm cannot be found!\n", {}, InconclusiveError, "no-kvm"),
        (f"{looks.LAUNCHED}KVM: entry failed, hardware error 0x0\n", {}, NestedFailedError, "kvm-unusable"),
        (
            f"{looks.LAUNCHED}This user doesn't have permissions to use KVM (/dev/kvm).\n",
            {},
            InconclusiveError,
            "kvm-denied",
        ),
        (looks.LAUNCHED, {"memory_kills": 1}, BlockedError, "out-of-memory"),
        (f"{looks.LAUNCHED}FATAL | Not enough space to create userdata\n", {}, BlockedError, "disk-full"),
        (f"{looks.LAUNCHED}FATAL | Unknown AVD name [x]\n", {}, InconclusiveError, "emulator-crashed"),
        (f"{looks.LAUNCHED}Segmentation fault\n", {}, NestedLostError, "emulator-crashed"),
        (f"{looks.LAUNCHED}failed to initialize kvm: Bad address\n", {}, InconclusiveError, "kvm-error"),
        (
            f"{looks.LAUNCHED}qemu-system-x86_64: cannot set up guest memory: Cannot allocate memory\n",
            {},
            BlockedError,
            "out-of-memory",
        ),
        (f"{looks.LAUNCHED}ERROR | qemu ended with status 0\n", {}, NestedLostError, "emulator-gone"),
    ],
)
def test_container_that_cannot_run_l2_says_why(
    tmp_path: Path, archive: Path, device: str, more: dict[str, Any], error: type[LabError], name: str
) -> None:
    guest = FakeGuest().telling(looks.look(processes=[], device=device, **more))
    with pytest.raises(error, match=name) as caught:
        made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(60))
    assert type(caught.value) is error
    assert caught.value.tail and caught.value.hint


@pytest.mark.parametrize(("word", "seconds"), [("KVM: entry failed, hardware error 0x0", 60), (INTERNAL, 0)])
def test_emulator_that_stays_after_kvms_word_refutes(
    tmp_path: Path, archive: Path, word: str, seconds: float
) -> None:
    guest = FakeGuest().telling(looks.look(device=f"{looks.LAUNCHED}{word}\n"))
    with pytest.raises(NestedFailedError, match="kvm-unusable"):
        made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(seconds))


def test_l2_that_is_lost_before_it_gave_its_answer_is_not_waited_for(tmp_path: Path, archive: Path) -> None:
    """It was online; then its monitor ended, and nothing says why."""
    lost = looks.look(processes=[], device=f"{looks.LAUNCHED}ERROR | qemu ended with status 0\n")
    guest = FakeGuest().telling(looks.look(), ONLINE, lost)
    with pytest.raises(NestedLostError, match="nothing says why"):
        made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(60))


def test_silence_is_no_evidence(tmp_path: Path, archive: Path) -> None:
    guest = FakeGuest().telling(looks.look())
    with pytest.raises(DeadlineError, match="did not answer"):
        made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(0))


WITHOUT_KVM = [*looks.COMMAND, "-accel", "off"]


@pytest.mark.parametrize("said", ["", "List of devices attached\nemulator-5554\tdevice\n"])
def test_setting_that_switches_kvm_off_blocks_and_is_named(tmp_path: Path, archive: Path, said: str) -> None:
    """Also where that emulator answers: nothing of KVM follows from what it says."""
    described = looks.inspected()
    described["Config"]["Env"] += ["EMULATOR_ADDITIONAL_ARGS=-accel off"]
    slow = looks.look(container=described, processes=[looks.process(WITHOUT_KVM, kvm=[])], said=said)
    with pytest.raises(BlockedError, match=r"unaccelerated.*emulator\.env") as caught:
        made(tmp_path, archive).booted(cast(Guest, FakeGuest().telling(slow)), Deadline.after(60))
    assert caught.value.tail == "EMULATOR_ADDITIONAL_ARGS=-accel off"


def watched(*told: looking.ContainerLook) -> Watch:
    """What a watch has seen after these looks."""
    watch, guest = Watch("lab-x", contract.NEW, Journal(Path("/nowhere"))), FakeGuest().telling(*told)
    for _ in told:
        watch.container(cast(Guest, guest))
    return watch


def test_durations_are_of_our_own_clock() -> None:
    """L1's is set an hour ahead between two looks: what is shown follows it, what is measured does not."""
    before, after = watched(looks.look(at=looks.AT + 60), looks.look(at=looks.AT + 3660)).seen
    assert after.seconds - before.seconds > 3500
    assert 0 < after.at - before.at < 60


@pytest.mark.parametrize(
    ("ats", "was_set"),
    [((60.0, 60.3), False), ((60.0, 3661.0), True), ((60.0, 0.0), True), ((60.0, 62.0, 3.0), True)],
)
def test_clock_that_was_set_is_noticed_and_nothing_timed_by_it(ats: tuple[float, ...], was_set: bool) -> None:
    watch = watched(*(looks.look(at=looks.AT + at) for at in ats))
    watch.reached("adb-online", looks.AT + 40)
    assert watch.clock_was_set is was_set
    assert (waiting.monitor_to_adb(watch) is None) is was_set
    # Another start of the container has a time of its own.
    anew = looks.inspected(StartedAt="2026-11-26T00:00:00.000000000Z")
    watch.container(cast(Guest, FakeGuest().telling(looks.look(container=anew, at=looks.AT + 9999))))
    assert not watch.clock_was_set


def test_l2_that_restarted_is_not_timed_by_its_first_boot(tmp_path: Path, archive: Path) -> None:
    """It was online, restarted before it had answered, and then proved itself: that is no boot's time."""
    told = [f"{ANSWERED}{FIRST.replace('0b1c', 'before')}", f"{ANSWERED}{ANSWER.replace('12.50', '3.50')}"]
    guest = FakeGuest(**{"docker exec": lambda _: told.pop(0)}).telling(looks.look())
    proof = made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(60))
    assert proof.boot_id == "0b1c" and proof.seconds is None and not told


def test_stages_are_left_in_the_vm_by_boot(tmp_path: Path, archive: Path) -> None:
    guest = FakeGuest(**{"docker exec": f"{ANSWERED}{ANSWER}"}).telling(looks.look())
    emulator = made(tmp_path, archive)
    emulator.booted(cast(Guest, guest), Deadline.after(60))
    emulator._watch.tell(cast(Guest, guest))
    wish = json.loads(guest.asked[-1].removeprefix("python3 - "))
    assert wish["stages"]["0b1c"] == {"adb-online": 37.5} and "kvm-open" in wish["stages"][""]


@pytest.mark.parametrize("another_command", [False, True])
def test_android_that_restarted_is_not_usable_by_the_launcher_it_had(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, another_command: bool
) -> None:
    """The whole way: what was looked at before, by this command or by another, is of another boot."""
    starting = replace(
        looks.ANDROID,
        boot_id="another",
        uptime=40.0,
        focus="com.android.phone/com.android.phone.PhoneIsStarting",
    )
    answers = [looks.ANDROID, starting]
    monkeypatch.setattr(looking, "android", lambda *_, **__: answers.pop(0))
    monkeypatch.setattr(looking, "novnc", lambda _: looks.NOVNC)
    emulator, guest = made(tmp_path, archive), FakeGuest().telling(looks.look())
    assert emulator.health(reach(guest)).usable
    if another_command:
        emulator._watch.tell(cast(Guest, guest))
        left = json.loads(guest.asked[-1].removeprefix("python3 - "))["stages"]
        emulator = made(tmp_path, archive)
        guest.telling(looks.look(stages=left))
    found = emulator.health(reach(guest))
    assert found.booted and not found.usable
    assert {check.name: check.ok for check in found.checks}["launcher"] is False
    assert {one.name: one.seconds for one in found.timeline}["launcher"] is None


def test_boot_beside_which_the_clock_was_set_is_not_timed(tmp_path: Path, archive: Path) -> None:
    online = looks.look(at=looks.AT + 4000, said="List of devices attached\nemulator-5554\tdevice\n")
    gone = {"docker container inspect": "Error: No such container: lab-docker-android-compared"}
    guest = FakeGuest(**gone).telling(looks.look(), online)
    with pytest.raises(InconclusiveError, match="clock was set"):
        made(tmp_path, archive, memory_mib=900).time_boot(cast(Guest, guest), "kvm", Deadline.after(60))
