"""DockerAndroid: how its container is started, recognised, waited for and asked; no VM and no Docker here."""

from __future__ import annotations

import json
import os
import platform
import re
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.core import deadline, redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError, LabError, UsageError
from lab.core.journal import Journal
from lab.core.steps import Event, Steps
from lab.emulators.docker_android import (
    DockerAndroid,
    apk,
    contract,
    looking,
    reading,
    room,
    sighting,
    waiting,
    within,
)
from lab.emulators.docker_android.looking import Watch
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.docker_android.sighting import Android, Sighting
from lab.emulators.options import Place
from lab.emulators.protocol import AndroidEmulator, NestedFailedError, NestedLostError, Reach
from lab.formats import oci
from lab.formats.cpio import CpioEntry
from lab.guest.ssh import Guest, Result
from tests.unit import docker_android_looks as looks
from tests.unit.docker_android_looks import BOOTING, NONCE

REFERENCE = "budtmo/docker-android:emulator_14.0"
Answer = str | Callable[[str | bytes], str]


class FakeGuest:
    """Answers by the command's first words; keeps what was asked, and what was put on standard input."""

    def __init__(self, **answers: Answer) -> None:
        self.answers: dict[str, Answer] = {"printenv": "10.0.2.2 4711 10.0.2.15 22\n", **answers}
        self.asked: list[str] = []
        self.stdin: list[str | bytes] = []

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "", **_: Any) -> Result:
        line = " ".join(argv)
        self.asked.append(line)
        self.stdin.append(stdin)
        if line.startswith("sh -c mark="):  # many commands in one (lab.guest.gather)
            mark = "".join(re.findall(r"mark=(\w+); mark=\$\{mark\}(\w+)", line)[0])
            return Result(list(argv), f"{mark}\nsaid\n" * line.count("\necho $mark; cat"), "", 0, 0.0)
        found = next((answer for start, answer in self.answers.items() if line.startswith(start)), "")
        text = found if isinstance(found, str) else found(stdin)
        if text.startswith("Error: "):
            return Result(list(argv), "[]\n", text, 1, 0.0)
        return Result(list(argv), text, "", 0, 0.0)

    def read(self, _: str) -> str:
        return "MemTotal: 4000000 kB\nMemAvailable: 1024000 kB\n"

    def telling(self, *told: looking.ContainerLook) -> FakeGuest:
        """What its looks see, one after the other; the last one for ever."""
        left = list(told)
        self.answers["python3"] = lambda _: (left.pop(0) if len(left) > 1 else left[0]).model_dump_json()
        return self


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "saved.tar"
    oci.write(path, reference=REFERENCE, entries={"x": CpioEntry.file(b"x")}, config={})
    return path


def made(tmp_path: Path, archive: Path | None = None, **options: Any) -> DockerAndroid:
    place = Place(
        lab_uuid="u-1",
        cache=tmp_path / "cache",
        secrets=tmp_path / "keys",
        state=tmp_path / "state",
        journal=Journal(tmp_path / "journal"),
    )
    (tmp_path / "state").mkdir(exist_ok=True)
    return DockerAndroid(place, AndroidOptions(archive=archive, **options))


def started(emulator: DockerAndroid) -> tuple[FakeGuest, list[str]]:
    guest, notes = FakeGuest(), []

    def hear(event: Event) -> None:
        notes.append(event.text)

    with Steps(hear).step("start") as step:
        emulator.start(cast(Guest, guest), step, nonce=NONCE)
    return guest, notes


def test_keeps_the_protocol(tmp_path: Path) -> None:
    emulator: AndroidEmulator = made(tmp_path, appium=True)
    assert emulator.android and not emulator.own_clock
    assert dict(emulator.ports) == {"adb": 5555, "console": 5554, "novnc": 6080, "appium": 4723}
    assert "appium" not in made(tmp_path).ports


def test_container_is_started_with_what_it_needs(tmp_path: Path, archive: Path) -> None:
    guest, _ = started(made(tmp_path, archive, memory_mib=2000, cpus=1.5))
    run = next(line for line in guest.asked if " run lab-docker-android kvm " in line)
    for words in (
        "--label io.lab.uuid=u-1",
        f"--label io.lab.nonce={NONCE}",
        "--memory 2000m --memory-swap 2000m",
        "--cpus 1.5",
        "--restart no",
        "--publish 10.0.2.15:5555:5555",
        "--publish 10.0.2.15:6080:6080",
    ):
        assert words in run
    assert "--privileged" not in run and run.endswith(REFERENCE)


def test_password_is_on_no_command_line_and_masked_everywhere(tmp_path: Path, archive: Path) -> None:
    guest, _ = started(made(tmp_path, archive))
    secret = tmp_path / "keys" / "vnc-password"
    password = secret.read_text().strip()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600 and len(password) == 8
    assert not any(password in line for line in guest.asked)
    assert redact.clean(f"VNC_PASSWORD={password}") == "VNC_PASSWORD=[redacted]"
    given = next(str(text) for text in guest.stdin if "VNC_PASSWORD" in str(text))
    assert f"VNC_PASSWORD={password}\n" in given and "USER_BEHAVIOR_ANALYTICS=false\n" in given
    # The file it was in is only root's, and gone.
    written = next(line for line in guest.asked if "umask 077" in line).split()[-1]
    assert f"rm -f {written}" in guest.asked[-1] and guest.asked[-1] == f"rm -f {written}"
    # The same one for the lab's next container.
    started(made(tmp_path, archive))
    assert secret.read_text().strip() == password


def test_env_file_is_removed_when_docker_refuses_too(tmp_path: Path, archive: Path) -> None:
    class Refusing(FakeGuest):
        def run(self, argv: Sequence[str], **more: Any) -> Result:
            done = super().run(argv, **more)
            refused = " run lab-docker-android " in " ".join(argv)
            return Result(done.argv, done.out, "no", 92 if refused else 0, 0.0)

    guest = Refusing()
    with Steps().step("start") as step, pytest.raises(BlockedError, match="/dev/kvm"):
        made(tmp_path, archive).start(cast(Guest, guest), step, nonce=NONCE)
    assert guest.asked[-1].startswith("rm -f /run/")


def test_reporting_that_was_asked_for_is_told(tmp_path: Path, archive: Path) -> None:
    _, notes = started(made(tmp_path, archive, env=("USER_BEHAVIOR_ANALYTICS=true",)))
    assert any("reports to its authors" in note for note in notes)


def labels_of(guest: FakeGuest) -> dict[str, str]:
    """What a container was labelled with when it was started."""
    words = next(line for line in guest.asked if " run lab-docker-android " in line).split()
    given = (after for word, after in pairwise(words) if word == "--label")
    return dict(label.split("=", 1) for label in given)


SETTINGS: list[dict[str, Any]] = [
    {"device": "Nexus 5"},
    {"memory_mib": 4096},
    {"cpus": 1.5},
    {"appium": True},
    {"env": ("EMULATOR_ADDITIONAL_ARGS=-memory 2048",)},
]


@pytest.mark.parametrize("changed", SETTINGS)
def test_container_of_other_settings_is_launched_anew_and_it_is_said(
    tmp_path: Path, archive: Path, changed: dict[str, Any]
) -> None:
    guest, notes = started(made(tmp_path, archive))
    assert not any("launched anew" in note for note in notes)
    described = looks.inspected()
    described["Config"]["Labels"] |= labels_of(guest)
    state = reading.state(described)
    assert made(tmp_path, archive).runs_with(state, NONCE)
    other = made(tmp_path, archive, **changed)
    assert not other.runs_with(state, NONCE)
    _, notes = started(other)
    assert any("launched anew" in note and "settings" in note for note in notes)
    _, notes = started(other)  # as emulator.restart does: nothing was looked at
    assert not any("launched anew" in note for note in notes)


def test_container_is_known_by_nonce_and_image(tmp_path: Path, archive: Path) -> None:
    emulator = made(tmp_path, archive)
    described = looks.inspected()
    identity = emulator.image_id().partition("@")[2]
    described["Config"]["Labels"] |= labels_of(started(emulator)[0]) | {"io.lab.android-image": identity}
    guest = FakeGuest(**{"docker container inspect": json.dumps([described])})
    state = emulator.state(cast(Guest, guest))
    assert identity.startswith("sha256:") and emulator.runs_with(state, NONCE)
    assert not emulator.runs_with(state, "another") and not emulator.runs_with(state, "")
    described["Config"]["Labels"]["io.lab.android-image"] = "sha256:yesterday"
    guest.answers["docker container inspect"] = json.dumps([described])
    assert not emulator.runs_with(emulator.state(cast(Guest, guest)), NONCE)


@pytest.mark.parametrize(
    ("memory_mib", "disk_gib", "missing"),
    [(4096, 12, ""), (0, 0, ""), (4095, 12, r"vm\.memory_mib = 4095"), (4096, 10, r"vm\.disk_gib = 10")],
)
def test_vm_that_cannot_hold_android_blocks_before_anything_is_fetched(
    tmp_path: Path, archive: Path, memory_mib: int, disk_gib: int, missing: str
) -> None:
    place = replace(made(tmp_path, archive)._place, vm_memory_mib=memory_mib, vm_disk_gib=disk_gib)
    with Steps().step("prepare") as step:
        if missing:
            with pytest.raises(BlockedError, match=missing) as caught:
                DockerAndroid(place, AndroidOptions(archive=tmp_path / "not-there")).prepare(step)
            assert "vm.memory_mib = 5120 and vm.disk_gib = 32" in caught.value.hint
        else:
            DockerAndroid(place, AndroidOptions(archive=archive)).prepare(step)


def test_room_is_of_the_images_size(tmp_path: Path, archive: Path) -> None:
    options = AndroidOptions()
    assert room.lacking(options, 7 << 29, 4096, 17) == [
        "the VM's disk (vm.disk_gib = 17) does not hold an image of 3.5 GiB and Android: it needs 18"
    ]
    assert room.lacking(options, 7 << 29, 4096, 18) == [] and room.disk_gib(20 << 30) == 51
    place = replace(made(tmp_path, archive)._place, vm_memory_mib=4096, vm_disk_gib=11)
    with Steps().step("prepare") as step, pytest.raises(BlockedError, match=r"vm\.disk_gib = 11"):
        DockerAndroid(place, AndroidOptions(archive=archive)).prepare(step)  # of the archive, which is there


def test_no_image_blocks_and_is_said(tmp_path: Path) -> None:
    emulator = made(tmp_path)
    assert emulator.image_id() == "docker-android (not fetched)"
    with Steps().step("load") as step, pytest.raises(BlockedError, match="is not on this host"):
        emulator.load(cast(Guest, FakeGuest()), step)


def test_archive_is_prepared_and_its_tag_tells_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "old.tar"
    oci.write(
        path,
        reference="butomo1989/docker-android-x86-8.1:latest",
        entries={"x": CpioEntry.file(b"x")},
        config={},
    )
    emulator = made(tmp_path, path)
    with Steps().step("prepare") as step:
        emulator.prepare(step)
        assert "x86-8.1" in step.result
    guest, _ = started(emulator)
    assert any("DEVICE=Samsung Galaxy S10\nWEB_VNC" in str(text) for text in guest.stdin)


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


class Scripted:
    """A Watch whose looks at everything are given; glances see the next one coming."""

    def __init__(self, *sightings: Sighting) -> None:
        self.left = list(sightings)
        self.seen: list[Sighting] = []
        self.stages: dict[str, float] = {}

    def everything(self, _: Reach) -> Sighting:
        self.seen.append(self.left.pop(0) if len(self.left) > 1 else self.left[0])
        return self.seen[-1]

    glance = everything

    def tell(self, _: Guest) -> None: ...


def reach(guest: FakeGuest) -> Reach:
    return Reach(cast(Guest, guest), {"adb": "127.0.0.1:1", "novnc": "127.0.0.1:2"}, Path("/nowhere"), NONCE)


def waited(
    tmp_path: Path, archive: Path, *sightings: Sighting, stage: Any = "usable", seconds: float = 60.0
) -> tuple[Any, FakeGuest, list[str]]:
    emulator, guest, notes = made(tmp_path, archive), FakeGuest(), []
    emulator.__dict__["_watch"] = Scripted(*sightings)

    def hear(event: Event) -> None:
        notes.append(event.text)

    with Steps(hear).step("wait") as step:
        found = emulator.wait(reach(guest), stage, step, Deadline.after(seconds))
    return found, guest, notes


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.001)


def test_waiting_ends_at_the_stage_and_tells_the_way(tmp_path: Path, archive: Path) -> None:
    way = (
        looks.seen(20.0, Android("")),
        looks.seen(50.0, BOOTING),
        looks.seen(50.0, BOOTING),
        looks.seen(90.0),
    )
    found, _, notes = waited(tmp_path, archive, *way)
    assert found.usable
    assert any(note.startswith("adb-online after") for note in notes)
    assert any(note.startswith("launcher after") for note in notes)


def test_waiting_ends_at_a_final_diagnosis(tmp_path: Path, archive: Path) -> None:
    crashed = looks.seen(60.0, Android(""), inside=looks.no_emulator(f"{looks.LAUNCHED}Segmentation fault\n"))
    found, _, notes = waited(tmp_path, archive, looks.seen(50.0, BOOTING), crashed, seconds=600.0)
    assert not found.booted and [one.name for one in found.diagnoses] == ["emulator-crashed"]
    assert any("emulator-crashed" in note for note in notes)


def test_time_that_is_up_is_told_as_such(tmp_path: Path, archive: Path) -> None:
    found, _, _ = waited(tmp_path, archive, looks.seen(50.0, BOOTING), stage="booted", seconds=0.0)
    assert [one.name for one in found.diagnoses] in (["slow-boot"], ["stuck-boot"])
    assert not any(one.refutes for one in found.diagnoses)


def test_l2_that_restarted_is_told_the_nonce_again(tmp_path: Path, archive: Path) -> None:
    forgot = looks.seen(80.0, Android("device", boot_id="new", uptime=3.0))
    _, guest, _ = waited(tmp_path, archive, forgot, looks.seen(90.0))
    assert any("setprop" in line and NONCE in line for line in guest.asked)
    # An L2 with another nonce is somebody else's, and is told nothing.
    other = looks.seen(80.0, Android("device", nonce="another", uptime=3.0))
    _, guest, _ = waited(tmp_path, archive, other, seconds=0.0)
    assert not any("setprop" in line for line in guest.asked)


def test_browser_gets_the_password_where_no_server_logs_it(tmp_path: Path, archive: Path) -> None:
    emulator = made(tmp_path, archive)
    assert emulator.browser_url(reach(FakeGuest())).endswith("/vnc.html?autoconnect=true&resize=scale")
    started(emulator)
    url = emulator.browser_url(reach(FakeGuest()))
    password = (tmp_path / "keys" / "vnc-password").read_text().strip()
    before, _, after = url.partition("#")
    assert before.startswith("http://127.0.0.1:2/vnc.html?") and after == f"password={password}"


def test_comparison_needs_memory_for_another_android(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(BlockedError, match="another Android needs 3072 MiB, and the VM has 1000 MiB"):
        made(tmp_path, archive).time_boot(cast(Guest, FakeGuest()), "kvm", Deadline.after(1))


@pytest.mark.parametrize(("acceleration", "kvm"), [("kvm", looks.KVM), ("tcg", [])])
def test_comparison_measures_what_it_says(
    tmp_path: Path, archive: Path, acceleration: Any, kvm: list[str]
) -> None:
    online = looks.look(
        said="List of devices attached\nemulator-5554\tdevice\n", processes=[looks.process(kvm=kvm)]
    )
    emulator = made(tmp_path, archive, memory_mib=900)
    gone = {"docker container inspect": "Error: No such container: lab-docker-android-compared"}
    guest = FakeGuest(**gone).telling(online)
    assert emulator.time_boot(cast(Guest, guest), acceleration, Deadline.after(60)) > 0
    variables = next(str(text) for text in guest.stdin if "WEB_VNC" in str(text))
    assert ("EMULATOR_ADDITIONAL_ARGS=-accel off" in variables) is (acceleration == "tcg")
    assert not any("--publish" in line for line in guest.asked)
    assert any("docker container inspect lab-docker-android-compared" in line for line in guest.asked)
    other = "tcg" if acceleration == "kvm" else "kvm"
    with pytest.raises(InconclusiveError, match="not to be measured"):
        emulator.time_boot(
            cast(Guest, FakeGuest(**gone).telling(online)), cast(Any, other), Deadline.after(60)
        )


def test_docker_that_does_not_answer_is_labs_trouble(tmp_path: Path, archive: Path) -> None:
    guest = FakeGuest().telling(looks.look(container=None, error="Cannot connect to the Docker daemon"))
    with pytest.raises(LabError, match="Docker in the VM does not answer"):
        made(tmp_path, archive).booted(cast(Guest, guest), Deadline.after(60))


def test_logs_name_every_file_and_what_android_says(tmp_path: Path, archive: Path) -> None:
    told = looks.look(said="01-01 a line of logcat\nlab-next-file\n  mCurrentFocus=null\n", status=0)
    found = made(tmp_path, archive).logs(cast(Guest, FakeGuest().telling(told)))
    assert found["device.stdout.log"] == looks.LAUNCHED and found["supervisord-base.log"]
    assert found["logcat.txt"].startswith("01-01") and "mCurrentFocus" in found["dumpsys.txt"]
    assert {"container.log", "container-inspect.json"} <= found.keys()
    assert json.loads(found["android-container.json"])["status"] == "BOOTING"


def test_logs_of_an_ended_container_are_copied_out(tmp_path: Path, archive: Path) -> None:
    told = looks.look(container=looks.inspected(Running=False), processes=[], files={})
    copied = {"sh -c \nfolder=": "==> device.stdout.log <==\nwhat it said\n"}
    found = made(tmp_path, archive).logs(cast(Guest, FakeGuest(**copied).telling(told)))
    assert "what it said" in found["container-files.log"] and "logcat.txt" not in found


class FakeAdb:
    """adb on the host, and a device that answers each part of a question."""

    def __init__(self, state: str = "device", **parts: str) -> None:
        self.parts = parts
        self.online = state
        self.asked: list[str] = []
        self.broken = ""

    def state(self, _: str) -> tuple[str, str]:
        return self.online, "" if self.online == "device" else "failed to connect"

    def shell(self, _: str, *argv: str, **__: Any) -> str:
        self.asked.append(argv[-1])
        if self.broken and self.broken in argv[-1]:
            raise DeadlineError("it says nothing")
        named = re.findall(r"echo lab-part (\w+)", argv[-1])
        return "".join(f"\nlab-part {name}\n{self.parts.get(name, '')}\n" for name in named)

    def output(self, _: str, *argv: str, **__: Any) -> bytes:
        self.asked.append(" ".join(argv))
        return looks.picture((0, 0, 0), (9, 99, 9))


TOLD = {"nonce": NONCE, "completed": "1", "animation": "stopped", "uptime": "9.5 1.0", "boot_id": "b"}
SERVICES = {
    "packages": "package:/system/framework/framework-res.apk",
    "focus": f"  mCurrentFocus=Window{{1 u0 {looks.HOME}}}",
    "awake": "  mWakefulness=Awake",
    "properties": "[ro.build.version.release]: [14]",
}


def test_android_that_answers_is_asked_for_everything() -> None:
    adb = FakeAdb(**TOLD, **SERVICES)
    seen = looking.android(cast(Any, adb), "127.0.0.1:1", whole=True)
    assert seen.online and seen.completed and seen.launcher and seen.packages_answer
    assert seen.screen is not None and not seen.screen.one_colour and seen.uptime == 9.5
    assert seen.properties == {"ro.build.version.release": "14"}
    assert not any("WAKEUP" in line for line in adb.asked)


def test_sleeping_screen_is_woken_before_it_is_judged() -> None:
    adb = FakeAdb(**TOLD, **{**SERVICES, "awake": "  mWakefulness=Asleep"})
    looking.android(cast(Any, adb), "127.0.0.1:1", whole=True)
    woken = next(number for number, line in enumerate(adb.asked) if "WAKEUP" in line)
    assert adb.asked.index("screencap -p") > woken


def test_glance_asks_once_and_not_for_services() -> None:
    adb = FakeAdb(**TOLD, **SERVICES)
    seen = looking.android(cast(Any, adb), "127.0.0.1:1", whole=False)
    assert len(adb.asked) == 1 and seen.completed and seen.focus is None and seen.screen is None
    early = FakeAdb(**{**TOLD, "completed": "", "animation": ""})
    assert looking.android(cast(Any, early), "127.0.0.1:1", whole=True).packages is None
    assert not any("dumpsys" in line for line in early.asked)


def test_android_that_falls_silent_is_what_was_seen() -> None:
    offline = looking.android(cast(Any, FakeAdb("offline")), "127.0.0.1:1", whole=True)
    assert offline.adb == "offline" and offline.error and not offline.online
    silent = FakeAdb(**TOLD)
    silent.broken = "boot_id"
    assert looking.android(cast(Any, silent), "127.0.0.1:1", whole=True).adb == "silent"
    busy = FakeAdb(**TOLD, **SERVICES)
    busy.broken = "dumpsys"
    seen = looking.android(cast(Any, busy), "127.0.0.1:1", whole=True)
    assert seen.completed and seen.packages is None and seen.focus is None and seen.screen is not None


class FakeServer:
    """adb on the host: answers by the first words of what the device is asked."""

    def __init__(self, installed: str, lists: Sequence[str], lost: str = "") -> None:
        self.installed, self.lists, self.lost = installed, list(lists), lost

    def shell(self, _: str, *argv: str, **__: Any) -> str:
        if self.lost and argv[:2] != ("pm", "list"):
            raise LabError(f"{argv[0]}: {self.lost}")
        if argv[:2] == ("pm", "list"):
            return self.lists.pop(0)
        return self.installed if argv[:2] == ("pm", "install") else ""

    def command(self, _: str, *argv: str, **__: Any) -> list[str]:
        return ["true", *argv]


def installed(tmp_path: Path, said: str, *lists: str) -> str:
    path = tmp_path / "app.apk"
    path.write_bytes(b"PK\x03\x04rest")
    with Steps().step("install") as step:
        return apk.install(cast(Any, FakeServer(said, lists)), "127.0.0.1:1", path, step, Deadline.after(9))


def test_installed_app_is_named_new_or_replaced(tmp_path: Path) -> None:
    before = "package:/system/a.apk=android\npackage:/data/app/old==/base.apk=com.example.app\n"
    after = before.replace("old==", "new==")
    assert installed(tmp_path, "Success\n", before, after) == "com.example.app"
    assert installed(tmp_path, "Success\n", "package:/system/a.apk=android\n", before) == "com.example.app"
    assert installed(tmp_path, "Success\n", before, before) == ""
    assert installed(tmp_path, "Success\n", "package:android\n", "package:android\npackage:a.b\n") == "a.b"


def test_what_went_wrong_is_told_although_tidying_up_fails_too(tmp_path: Path) -> None:
    path = tmp_path / "app.apk"
    path.write_bytes(b"PK\x03\x04rest")
    server = cast(Any, FakeServer("", [""], lost="device offline"))
    with Steps().step("install") as step, pytest.raises(LabError, match=r"^pm: device offline"):
        apk.install(server, "127.0.0.1:1", path, step, Deadline.after(9))


def test_refused_app_is_refused_in_androids_words(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="INSTALL_FAILED_NO_MATCHING_ABIS"):
        installed(tmp_path, "Failure [INSTALL_FAILED_NO_MATCHING_ABIS: Failed to extract]\n", "", "")
    path = tmp_path / "no.apk"
    path.write_text("no zip")
    with Steps().step("install") as step, pytest.raises(UsageError, match="no APK"):
        apk.install(cast(Any, None), "127.0.0.1:1", path, step, Deadline.after(9))
