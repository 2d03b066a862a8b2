"""lab's eyes on docker-android, against the double: real processes, a real L2, ADB and noVNC. No Docker.

L1 is this machine, and `docker` a few lines over the double's namespaces; all else is what runs in a lab.
The same with a real Docker under nested KVM is in tests/e2e.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from lab.adb import AdbServer
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError, LabError
from lab.core.journal import Journal
from lab.core.steps import Steps
from lab.emulators.docker_android import DockerAndroid
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.docker_android.sighting import NONCE_LABEL
from lab.emulators.options import Place
from lab.emulators.protocol import Health, NestedLostError, Reach
from lab.guest.ssh import Guest, Result
from tests.double import build, rooted
from tests.double.rooted import Double

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run an image without Docker"),
]

SECONDS = 240.0
NONCE = "nonce-of-this-launch"
ADB, NOVNC = 5555, 6080
OPTED_OUT = {"WEB_VNC": "true", "USER_BEHAVIOR_ANALYTICS": "false", "DEVICE_INTERVAL_WAITING": "2"}

_DOCKER = """#!/bin/sh
case $1 in
container) case $* in *--format*) echo {first} ;; *) cat {folder}/inspected.json ;; esac ;;
logs) case $* in *--follow*) exec tail -n 5 -F {folder}/log ;; *) cat {folder}/log ;; esac ;;
exec)
    shift; [ "$1" = --interactive ] && shift; shift
    exec nsenter --target={first} --mount --uts --net --pid --root --wd \\
        --setuid={user} --setgid={group} /bin/env -i {variables} sh -c 'cd; exec "$@"' exec "$@" ;;
esac
"""


class HereIsL1:
    """Runs what lab runs in L1 here, as root, with a docker that knows the double."""

    def __init__(self, folder: Path, double: Double, labels: dict[str, str], env: dict[str, str]) -> None:
        variables = " ".join(shlex.quote(f"{name}={value}") for name, value in build._ENVIRONMENT.items())
        docker = folder / "docker"
        words = {"folder": folder, "first": double.first, "user": build.USER, "group": build.GROUP}
        docker.write_text(_DOCKER.format(**words, variables=variables))
        docker.chmod(0o755)
        state = {"Running": True, "Pid": double.first, "ExitCode": 0, "OOMKilled": False, "Error": ""}
        state["StartedAt"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        described = {"Id": os.urandom(32).hex(), "Image": "sha256:x", "State": state}
        described["Config"] = {"Image": "lab/double", "Labels": labels}
        described["Config"]["Env"] = [f"{name}={value}" for name, value in env.items()]
        (folder / "inspected.json").write_text(json.dumps([described]))
        (folder / "log").write_text("")
        self.env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}

    def run(self, argv: Sequence[str], *, check: bool = True, stdin: str | bytes = "", **more: Any) -> Result:
        text = stdin.encode() if isinstance(stdin, str) else stdin
        if on_line := more.get("on_line"):
            return self._heard(list(argv), text, on_line)
        done = subprocess.run(
            argv, input=text, capture_output=True, env=self.env, check=False, timeout=SECONDS
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert done.returncode == 0 or not check, err
        return Result(list(argv), out, err, done.returncode, 0.0)

    def _heard(self, argv: list[str], text: bytes, on_line: Callable[[str], None]) -> Result:
        """Each line as it comes; what `on_line` raises ends the command, as an interruption does."""
        pipe = subprocess.PIPE
        following = subprocess.Popen(argv, stdin=pipe, stdout=pipe, env=self.env, start_new_session=True)
        assert following.stdin and following.stdout
        try:
            following.stdin.write(text)
            following.stdin.close()
            for line in following.stdout:
                on_line(line.decode(errors="replace").rstrip("\n"))
        finally:
            os.killpg(following.pid, signal.SIGKILL)
            following.wait()
        return Result(argv, "", "", following.returncode, 0.0)


@dataclass(frozen=True)
class Run:
    """A running double as the lab's emulator."""

    emulator: DockerAndroid
    reach: Reach
    double: Double

    @property
    def guest(self) -> Guest:
        return self.reach.guest

    def wait(self, stage: Any = "usable", seconds: float = SECONDS) -> Health:
        with Steps().step("wait") as step:
            return self.emulator.wait(self.reach, stage, step, Deadline.after(seconds))

    def diagnoses(self, stage: Any = "usable", seconds: float = SECONDS) -> dict[str, bool]:
        """What it is said to have, and whether it refutes."""
        return {one.name: one.refutes for one in self.wait(stage, seconds).diagnoses}


@pytest.fixture(scope="module")
def image() -> build.Image:
    return build.built()


@contextlib.contextmanager
def started(image: build.Image, folder: Path, *traps: str, **env: str) -> Iterator[Run]:
    root = rooted.unpack(image, folder / "root")
    variables = {**OPTED_OUT, "DOUBLE_TRAP": ",".join(traps), **env}
    journal = Journal(folder / "journal")
    with rooted.running(root, variables, [ADB, NOVNC], folder / "console") as double:
        labels = {NONCE_LABEL: NONCE, build.LABEL: "1"}
        guest = cast(Guest, HereIsL1(folder, double, labels, variables))
        options = AndroidOptions(archive=image.archive)
        place = Place("u-1", folder, folder / "keys", folder, journal)
        addresses = {
            name: f"127.0.0.1:{double.ports[port]}" for name, port in (("adb", ADB), ("novnc", NOVNC))
        }
        reach = Reach(guest, addresses, folder / "adb", NONCE)
        try:
            yield Run(DockerAndroid(place, options), reach, double)
        finally:
            AdbServer(folder / "adb", journal).stop()


@pytest.fixture(scope="module")
def healthy(image: build.Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with started(image, tmp_path_factory.mktemp("healthy")) as run:
        yield run


def test_l2_proves_itself_from_inside_and_from_the_host(healthy: Run) -> None:
    inside = healthy.emulator.booted(healthy.guest, Deadline.after(SECONDS))
    outside = healthy.emulator.prove(
        healthy.reach.addresses["adb"], healthy.reach.adb_folder, Deadline.after(SECONDS)
    )
    for proof in (inside, outside):
        assert proof.nonce == NONCE and proof.kernel.endswith("-cloud-amd64")
        # Emulated here, and CPUID says so from L2: the ladder would refuse it.
        assert proof.hypervisor == "TCGTCGTCGTCG" and proof.clocksource != "kvm-clock"
        assert proof.boot_id == inside.boot_id
        assert proof.boot_id != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert inside.seconds is not None and 0 < inside.seconds < SECONDS and outside.seconds is None


def test_healthy_double_is_usable_and_no_android(healthy: Run) -> None:
    found = healthy.wait()
    assert found.usable and found.booted, found.checks
    assert found.facts["double"] == "yes" and found.facts["release"] == "14"
    assert not [one for one in found.diagnoses if one.final or one.refutes]
    reached = {stage.name: stage.seconds for stage in found.timeline}
    # No KVM here: that it is not open is seen, too.
    assert {name for name, seconds in reached.items() if seconds is None} == {"kvm-open"}
    assert {check.name: check.ok for check in found.checks}["kvm"] is False
    # The launcher is there a moment before the boot is called completed, and a look may fall in between.
    for last in ("boot-completed", "launcher"):
        order = [reached[name] or 0.0 for name in ("container", "adb-online", last)]
        assert order == sorted(order)
    # Another command, with no memory of its own, knows the same stages.
    another = DockerAndroid(healthy.emulator._place, healthy.emulator._options).health(healthy.reach)
    assert another.usable and {one.name: one.seconds for one in another.timeline} == reached


def test_another_nonce_is_another_l2(healthy: Run) -> None:
    stranger = Reach(healthy.guest, healthy.reach.addresses, healthy.reach.adb_folder, "of another launch")
    assert not healthy.emulator.health(stranger).booted


def test_screenshot_and_app(healthy: Run, tmp_path: Path) -> None:
    healthy.wait()
    picture = Image.open(io.BytesIO(healthy.emulator.screenshot(healthy.reach)))
    assert picture.format == "PNG" and len(set(picture.convert("RGB").getextrema())) > 0
    app = tmp_path / "app.apk"
    with zipfile.ZipFile(app, "w") as archive:
        archive.writestr("AndroidManifest.xml", '<manifest package="com.example.app"/>')
    with Steps().step("install") as step:
        name = healthy.emulator.install(healthy.reach, app, step, Deadline.after(SECONDS))
    assert name == "com.example.app"
    bad = tmp_path / "bad.apk"
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("nothing", "")
    with Steps().step("install") as step, pytest.raises(LabError, match="does not take"):
        healthy.emulator.install(healthy.reach, bad, step, Deadline.after(SECONDS))


def test_evidence_holds_all_logs(healthy: Run) -> None:
    found = healthy.emulator.logs(healthy.guest)
    assert "Command to run emulator" in found["device.stdout.log"]
    assert {"supervisord-base.log", "logcat.txt", "dumpsys.txt", "android-container.json"} <= found.keys()
    assert json.loads(found["android-container.json"])["processes"]


class EnoughError(Exception):
    """All that was waited for was heard."""


def test_logs_are_followed_as_they_are_written(healthy: Run) -> None:
    """The device's, from within the container: a new line comes, and no picture of one moment."""
    told: list[tuple[str, str]] = []
    log = "/home/androidusr/logs/device.stdout.log"

    def tell(file: str, line: str) -> None:
        told.append((file, line))
        if len(told) == 1:
            healthy.double.run(f"echo a line of the test >>{log}")
        if line == "a line of the test":
            raise EnoughError

    with pytest.raises(EnoughError):
        healthy.emulator.follow(healthy.guest, tell)
    assert {file for file, _ in told} <= {"container.log", "device.stdout.log"}
    assert told[-1] == ("device.stdout.log", "a line of the test") and len(told) > 1


@pytest.mark.parametrize(
    ("trap", "env", "error", "name"),
    [
        ("no-kvm", {}, InconclusiveError, "no-kvm"),
        ("kvm-denied", {"DOUBLE_ACCEL": "kvm"}, InconclusiveError, "kvm-denied"),
        ("", {"DOUBLE_ACCEL": "kvm"}, InconclusiveError, "kvm-error"),  # a device that is no KVM
        ("emulator-crash", {}, NestedLostError, "emulator-crashed"),
        ("", {"EMULATOR_ADDITIONAL_ARGS": "-accel off"}, BlockedError, "unaccelerated"),
        ("", {"EMULATOR_DEVICE": "Samsung Galaxy S99"}, InconclusiveError, "no-emulator"),
    ],
)
def test_container_without_an_l2_says_why(
    image: build.Image, tmp_path: Path, trap: str, env: dict[str, str], error: type[LabError], name: str
) -> None:
    with started(image, tmp_path, trap, **env) as run:
        with pytest.raises(error, match=name) as caught:
            run.emulator.booted(run.guest, Deadline.after(SECONDS))
        assert type(caught.value) is error and caught.value.tail


def test_boot_loop_refutes(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "boot-loop") as run:
        assert run.diagnoses("booted")["boot-loop"] is True


def test_empty_desktop_behind_novnc(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "novnc-no-emulator") as run:
        found = run.wait("booted", seconds=45)
        assert found.diagnoses[0].name == "no-emulator"
        assert not any(one.refutes for one in found.diagnoses)
        assert {check.name: check.ok for check in found.checks}["novnc"] is True


def test_faults_of_a_booted_android_are_all_named(image: build.Image, tmp_path: Path) -> None:
    traps = ("black-screen", "package-manager-dead", "novnc-dead", "telemetry", "dead-watcher", "anr")
    with started(image, tmp_path, *traps) as run:
        assert run.wait("booted").booted
        told = run.diagnoses(seconds=30)
    assert set(told) == {
        "black-screen",
        "package-manager-dead",
        "novnc-dead",
        "telemetry",
        "dead-watcher",
        "anr",
    }
    # Half a minute shows nothing yet.
    assert not any(told.values())


def test_boot_that_does_not_end_is_no_evidence(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "booting-forever") as run:
        run.emulator.booted(run.guest, Deadline.after(SECONDS))
        told = run.diagnoses("booted", seconds=20)
    assert set(told) <= {"slow-boot", "stuck-boot", "dead-watcher"} and told
    assert not any(told.values())


@pytest.mark.parametrize("trap", ["no-adb", "adb-offline"])
def test_adb_that_is_not_there_yet(image: build.Image, tmp_path: Path, trap: str) -> None:
    with started(image, tmp_path, trap, DOUBLE_OFFLINE="15") as run:
        if trap == "adb-offline":
            assert run.wait("booted").booted
            return
        told = run.diagnoses("booted", seconds=30)
    assert "no-adb" in told or "adb-offline" in told
    assert not any(told.values())
