"""The test double (tests/double) run without Docker, with real tools and an emulated L2: contract, traps.

Traps that do not get in each other's way share a run: a boot of L2 costs seconds.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adbutils
import pytest
import websocket
from PIL import Image, ImageChops
from playwright.sync_api import sync_playwright

from lab.adb import AdbServer
from lab.core.deadline import Deadline, poll
from lab.core.journal import Journal
from lab.formats import program
from lab.host.packages import find_program
from tests.double import build, pictures, rooted
from tests.double.rooted import Double

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run an image without Docker"),
]

ADB, CONSOLE, VNC, NOVNC = 5555, 5554, 5900, 6080
SECONDS = 180.0
PASSWORD = "s3cret"
QUICK = {"DEVICE_INTERVAL_WAITING": "1", "USER_BEHAVIOR_ANALYTICS": "false", "WEB_VNC": "true"}
LAUNCHER = "com.google.android.apps.nexuslauncher"
WIDTH, HEIGHT = (int(build._ENVIRONMENT[f"SCREEN_{side}"]) for side in ("WIDTH", "HEIGHT"))
WINDOW = ((WIDTH - pictures.WIDTH) // 2, (HEIGHT - pictures.HEIGHT) // 2)


@dataclass(frozen=True)
class Run:
    """A running double, and ADB to its L2 from outside."""

    double: Double
    server: AdbServer

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.double.ports[ADB]}"

    def shell(self, *argv: str) -> str:
        return self.server.shell(self.address, *argv, deadline=Deadline.after(SECONDS))

    def device(self) -> adbutils.AdbDevice:
        self.server.connect(self.address, Deadline.after(SECONDS))
        return adbutils.AdbClient(port=self.server.ensure()).device(self.address)

    def screen(self) -> Image.Image:
        """What L2's own screencap says."""
        png = self.device().shell("screencap -p", encoding=None, timeout=30)
        return Image.open(io.BytesIO(png)).convert("RGB")

    def framebuffer(self) -> Image.Image:
        """What x11vnc shows, from its memory."""
        raw = Path(f"/proc/{self.double.first}/root/tmp/.screen").read_bytes()
        return Image.frombytes("RGB", (WIDTH, HEIGHT), raw, "raw", "BGRX")

    def until(self, true: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
        poll(lambda: true() or None, Deadline.after(seconds), what, every=0.3)

    def until_log(self, text: str, name: str = "device.stdout.log") -> None:
        self.until(lambda: text in self.double.log(name), f"{text!r} in {name}")

    def until_property(self, name: str, value: str) -> None:
        self.until(lambda: self.shell("getprop", name) == value, f"{name}={value}")


@pytest.fixture(scope="module")
def image() -> build.Image:
    return build.built()


@contextlib.contextmanager
def started(image: build.Image, folder: Path, *traps: str, **env: str) -> Iterator[Run]:
    root = rooted.unpack(image, folder / "root")
    server = AdbServer(folder / "adb", Journal(folder / "journal"))
    environment = {**QUICK, "DOUBLE_TRAP": ",".join(traps), **env}
    try:
        with rooted.running(root, environment, [ADB, CONSOLE, VNC, NOVNC]) as double:
            yield Run(double, server)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def healthy(image: build.Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with started(image, tmp_path_factory.mktemp("healthy"), VNC_PASSWORD=PASSWORD) as run:
        run.until_log("Boot completed in")
        yield run


def test_image_says_what_it_is_and_is_small(image: build.Image) -> None:
    assert image.layer_bytes < 150 << 20
    assert image.image_id.startswith("sha256:")
    config = build.config("recipe")
    assert config["Labels"]["io.lab.double"] == "1" and "Healthcheck" not in config
    assert {"5554/tcp", "5555/tcp", "6080/tcp"} <= set(config["ExposedPorts"])


def test_l2_answers_adb_from_outside(healthy: Run) -> None:
    assert healthy.shell("getprop", "ro.lab.double") == "1 not Android"
    assert healthy.shell("getprop", "sys.boot_completed") == "1"
    assert healthy.shell("getprop", "ro.build.version.release") == "14"
    assert healthy.shell("getprop", "init.svc.bootanim") == "stopped"
    assert healthy.shell("getprop", "not.there") == ""
    healthy.shell("setprop", "debug.lab.nonce", "n0nce")
    assert healthy.shell("getprop", "debug.lab.nonce") == "n0nce"
    assert "[debug.lab.nonce]: [n0nce]" in healthy.shell("getprop")
    ours = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    theirs = healthy.shell("cat", "/proc/sys/kernel/random/boot_id")
    assert len(theirs) == len(ours) and theirs != ours
    assert float(healthy.shell("cat", "/proc/uptime").split()[0]) > 0
    assert healthy.shell("cat", "/sys/devices/system/clocksource/clocksource0/current_clocksource")


@pytest.mark.parametrize("made", [program.hypervisor_signature, program.hypervisor_signature_32])
def test_a_pushed_program_runs(healthy: Run, made: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "signature"
    path.write_bytes(made())
    healthy.device().sync.push(path, "/data/local/tmp/signature", 0o755)
    assert healthy.shell("/data/local/tmp/signature").startswith("hypervisor: TCGTCGTCGTCG")


def test_the_containers_own_adb_lists_the_emulator(healthy: Run) -> None:
    assert "emulator-5554\tdevice" in healthy.double.run("adb devices")
    assert healthy.double.run("adb -s emulator-5554 shell getprop ro.lab.double").strip() == "1 not Android"


def test_the_process_table_is_the_emulators(healthy: Run) -> None:
    table = healthy.double.run("ps -o args")
    (parent,) = [
        line for line in table.splitlines() if "/emulator/emulator @" in line or "bin/emulator @" in line
    ]
    assert "@nexus_5_14.0" in parent and " -accel on " in parent
    assert "/opt/android/emulator/qemu/linux-x86_64/qemu-system-x86_64 " in table
    for name in ("x11vnc", "websockify", "socat", "supervisord"):
        assert name in table


def test_console_greets_and_wants_its_token(healthy: Run) -> None:
    token = (healthy.double.home / ".emulator_console_auth_token").read_text()
    with socket.create_connection(("127.0.0.1", healthy.double.ports[CONSOLE]), timeout=10) as connection:
        stream = connection.makefile("rw", newline="")
        greeting = [stream.readline() for _ in range(5)]
        assert greeting[0] == "Android Console: Authentication required\r\n" and greeting[-1] == "OK\r\n"
        for line in ("auth wrong", f"auth {token}", "avd name"):
            stream.write(f"{line}\n")
        stream.flush()
        assert stream.readline().startswith("KO: authentication token")
        assert [stream.readline() for _ in range(4)][1:] == ["OK\r\n", "nexus_5_14.0\r\n", "OK\r\n"]


def test_packages_can_be_listed_and_installed(healthy: Run, tmp_path: Path) -> None:
    assert "package:android" in healthy.shell("pm", "list", "packages")
    assert healthy.shell("pm", "path", "android").startswith("package:/system/")
    apk = tmp_path / "app.apk"
    with zipfile.ZipFile(apk, "w") as archive:
        archive.writestr("AndroidManifest.xml", '<manifest package="io.lab.hello"/>')
    junk = tmp_path / "junk.apk"
    junk.write_bytes(b"no archive")
    device = healthy.device()
    for path in (apk, junk):
        device.sync.push(path, f"/data/local/tmp/{path.name}")
    assert healthy.shell("pm", "install", "-r", "-t", "/data/local/tmp/app.apk") == "Success"
    assert healthy.shell("pm", "path", "io.lab.hello") == "package:/data/app/io.lab.hello/base.apk"
    assert "INSTALL_PARSE_FAILED_NOT_APK" in healthy.shell("pm", "install", "/data/local/tmp/junk.apk")
    # As adb itself installs, but for its stream, which wants a part of Android that adbd here lacks.
    (healthy.double.home / "app.apk").write_bytes(apk.read_bytes())
    assert "Success" in healthy.double.run("adb -s emulator-5554 install --no-streaming app.apk")


def test_launcher_has_the_focus(healthy: Run) -> None:
    focus = f"mCurrentFocus=Window{{3d46d0a u0 {LAUNCHER}/{LAUNCHER}.NexusLauncherActivity}}"
    assert focus in healthy.shell("dumpsys", "window")
    assert "NexusLauncherActivity" in healthy.shell("dumpsys", "activity", "activities")
    assert "boot completed" in healthy.shell("logcat", "-d")


def test_screencap_and_the_vnc_screen_show_the_same_live_pixels(healthy: Run) -> None:
    healthy.shell("input", "tap", "170", "300")
    screen = healthy.screen()
    assert screen.size == (pictures.WIDTH, pictures.HEIGHT)
    assert len(screen.getcolors(1 << 20)) > 10
    assert screen.getpixel((175, 305)) == (255, 0, 0), "the tap left no dot"
    box = (*WINDOW, WINDOW[0] + pictures.WIDTH, WINDOW[1] + pictures.HEIGHT)

    def same() -> bool:
        return ImageChops.difference(healthy.framebuffer().crop(box), screen).getbbox() is None

    healthy.until(same, "L2's screen on the container's", 20)


def test_novnc_answers_with_a_page_a_websocket_and_rfb(healthy: Run) -> None:
    port = healthy.double.ports[NOVNC]
    for path in ("vnc.html", ""):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
            assert answer.status == 200 and b"noVNC" in answer.read()
    channel = websocket.create_connection(
        f"ws://127.0.0.1:{port}/websockify", subprotocols=["binary"], timeout=20
    )
    assert channel.recv() == b"RFB 003.008\n"
    channel.send_binary(b"RFB 003.008\n")
    assert channel.recv() == bytes([1, 2]), "not VNC authentication alone"
    channel.close()


def test_a_browser_shows_what_the_framebuffer_has(healthy: Run, tmp_path: Path) -> None:
    chromium = find_program("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    port = healthy.double.ports[NOVNC]
    address = f"http://127.0.0.1:{port}/vnc.html#autoconnect=true&resize=off&password={PASSWORD}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1024, "height": 800})
        page.goto(address)
        page.wait_for_function(
            "document.documentElement.classList.contains('noVNC_connected')", timeout=60_000
        )
        canvas = page.locator("canvas").first

        def differs() -> float:
            seen = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
            assert seen.size == (WIDTH, HEIGHT)
            seen.save(tmp_path / "novnc.png")
            difference = ImageChops.difference(seen, healthy.framebuffer()).convert("L")
            return sum(count for value, count in enumerate(difference.histogram()) if value > 40)

        # JPEG-coded, and noVNC's own handle lies over its edge.
        healthy.until(lambda: differs() < WIDTH * HEIGHT // 50, "the framebuffer in the browser", 60)
        browser.close()


def test_it_is_ready_in_the_end_and_kept_its_telemetry_to_itself(healthy: Run) -> None:
    healthy.until(lambda: healthy.double.status == "READY", "READY")
    log = healthy.double.log()
    assert "INFO Emulator - KVM permission is granted!" in log
    assert "INFO Emulator - emulator is booted!" in log
    assert "INFO Emulator - emulator is ready to use" in log
    assert "user behavior analytics" not in log
    assert "INFO spawned: 'device' with pid" in healthy.double.log("supervisord-base.log")
    assert "INFO success: vnc_web entered RUNNING state" in healthy.double.log("supervisord-extend.log")


def test_without_its_emulator_the_desktop_is_empty(healthy: Run) -> None:
    """The last of the healthy one's tests: it ends QEMU, once the container calls its Android ready."""
    healthy.until(lambda: healthy.double.status == "READY", "READY", 60)
    healthy.double.run("pkill -f qemu/linux-x86_64")
    healthy.until(lambda: len(healthy.framebuffer().getcolors(1 << 20) or []) == 1, "one colour", 30)
    healthy.until_log("qemu-system-x86_64 ended")
    assert healthy.double.status == "READY", "the status file would know"


# The traps.


def test_no_kvm(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "no-kvm", "novnc-dead") as run:
        run.until_log("RuntimeError: /dev/kvm cannot be found!")
        run.until_log("exited: device (exit status 1; not expected)", "supervisord-base.log")
        assert run.double.status == "STARTING"
        assert "No such file" in run.double.run("ls /dev/kvm")
        run.until_log("exited: vnc_web (exit status 1", "supervisord-extend.log")
        with pytest.raises(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{run.double.ports[NOVNC]}/vnc.html", timeout=5)


def test_kvm_denied_and_telemetry(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "kvm-denied", "telemetry", DOUBLE_ACCEL="kvm") as run:
        run.until_log("ERROR        | x86_64 emulation currently requires hardware acceleration!")
        run.until_log("This user doesn't have permissions to use KVM (/dev/kvm).")
        assert "Sending user behavior analytics" in run.double.log()
        assert "WARNING Emulator - http://127.0.0.1:9/: " in run.double.log()
        assert run.double.status == "BOOTING"
        run.until(lambda: "qemu-system" not in run.double.run("ps -o args"), "no emulator")


def test_an_opt_out_is_an_opt_out(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "novnc-no-emulator") as run:
        run.until_log("Command to run emulator:")
        run.until_log("success: vnc_web entered RUNNING state", "supervisord-extend.log")
        assert "analytics" not in run.double.log()
        with urllib.request.urlopen(f"http://127.0.0.1:{run.double.ports[NOVNC]}/", timeout=20) as answer:
            assert answer.status == 200
        assert len(run.framebuffer().getcolors(1 << 20)) == 1
        assert "qemu-system" not in run.double.run("ps -o args")
        assert run.double.status == "BOOTING"


def test_emulator_crash(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "emulator-crash") as run:
        run.until_log("qemu-system-x86_64 was ended by signal 11 (Segmentation fault)")
        assert "double: l2 init" in run.double.log() and "Boot completed" not in run.double.log()
        assert run.double.status == "BOOTING"


def test_out_of_memory_without_a_limit(image: build.Image, tmp_path: Path) -> None:
    """With a limit the kernel does it; that needs a container."""
    with started(image, tmp_path, "out-of-memory") as run:
        run.until_log("the container has no memory limit")
        run.until_log("qemu-system-x86_64 was ended by signal 9 (Killed)")


def test_anr_and_a_dead_package_manager(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "anr", "package-manager-dead") as run:
        run.until_property("sys.boot_completed", "1")
        focus = "mCurrentFocus=Window{5a3f2c1 u0 Application Not Responding: com.android.systemui}"
        assert focus in run.shell("dumpsys", "window")
        assert "ANR in com.android.systemui" in run.shell("logcat", "-d")
        assert "Can't find service: package" in run.shell("pm", "list", "packages")
        assert run.screen().getpixel((40, 300)) == (255, 255, 255), "there is no dialog"


def test_black_screen_late_and_offline_at_first(image: build.Image, tmp_path: Path) -> None:
    with started(
        image, tmp_path, "black-screen", "late-boot", "adb-offline", DOUBLE_LATE="25", DOUBLE_OFFLINE="15"
    ) as run:
        run.until_log("double: l2 mute")
        client = adbutils.AdbClient(port=run.server.ensure())
        with contextlib.suppress(adbutils.AdbError):
            client.connect(run.address, timeout=3)
        run.until(lambda: [one.state for one in client.list()] == ["offline"], "offline", 15)
        run.until_property("sys.boot_completed", "")
        assert "dumpsys" not in run.shell("dumpsys", "window")
        run.until_property("sys.boot_completed", "1")
        assert len(run.screen().getcolors(1 << 20)) == 1


def test_boot_loop(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "boot-loop") as run:
        seen = set()

        def twice() -> bool:
            seen.add(run.shell("cat", "/proc/sys/kernel/random/boot_id"))
            assert run.shell("getprop", "sys.boot_completed") == ""
            return len(seen) > 1

        run.until(twice, "a second boot")


def test_no_adb_and_a_watcher_that_waits_for_ever(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "no-adb") as run:
        run.until_log("Boot completed in")
        assert "emulator-5554\tdevice" not in run.double.run("adb devices")
        assert run.double.status == "BOOTING"
        assert "wait-for-device" in run.double.run("ps -o args")


def test_the_watcher_dies_and_l2_boots(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "dead-watcher") as run:
        run.until_log("RuntimeError: booted is checked 59 times!")
        assert "[attempt: 59] emulator is not booted! will check again in 0 seconds" in run.double.log()
        run.until_log("exited: device (exit status 1; not expected)", "supervisord-base.log")
        run.until_property("sys.boot_completed", "1")
        assert run.double.status == "BOOTING"


def test_booting_for_ever(image: build.Image, tmp_path: Path) -> None:
    with started(image, tmp_path, "booting-forever", DEVICE_INTERVAL_WAITING="0", DEVICE="Pixel 8") as run:
        run.until_log("RuntimeError: booted is checked 59 times!")
        assert run.shell("getprop", "sys.boot_completed") == ""
        assert run.shell("getprop", "init.svc.bootanim") == "running"
        assert run.double.status == "BOOTING"
        assert "@pixel_8_14.0" in run.double.run("ps -o args"), "DEVICE of old images is not read"
