"""DockerAndroid: how its container is started, recognised, waited for and asked; no VM and no Docker here."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from lab.core import deadline, redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError, LabError
from lab.core.steps import Event, Steps
from lab.emulators.docker_android import (
    DockerAndroid,
    reading,
    room,
    waiting,
)
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.docker_android.sighting import Android, Sighting
from lab.emulators.protocol import AndroidEmulator, Reach
from lab.formats import oci
from lab.formats.cpio import CpioEntry
from lab.guest.ssh import Guest, Result
from tests.unit import docker_android_looks as looks
from tests.unit.androids import REFERENCE, FakeGuest, made, reach, started
from tests.unit.docker_android_looks import BOOTING, NONCE


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "saved.tar"
    oci.write(path, reference=REFERENCE, entries={"x": CpioEntry.file(b"x")}, config={})
    return path


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
