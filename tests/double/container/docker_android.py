#!/usr/bin/python3
"""docker-android's program, as its supervisors start it (`docker-android start APP`, `share log`).

Written anew after what the real one does and says (README.md says where): the order of its states, its
log lines, its errors, and that an error ends it while the container stays.
"""

# Pathlib is slow to load on an emulated processor; the rest is the contract.
# ruff: noqa: PTH103, PTH110, PTH123, S108, S602

import os
import re
import subprocess
import sys
import time

WORK = os.environ.get("WORK_PATH", "/home/androidusr")
LOGS = os.environ.get("LOG_PATH", f"{WORK}/logs")
TRAPS = frozenset(filter(None, os.environ.get("DOUBLE_TRAP", "").split(",")))
SCREEN = "/usr/local/bin/screen"
KVM = "/dev/kvm"
ADB = "adb -s emulator-5554"
DEVICES = (
    *("Nexus 4", "Nexus 5", "Nexus 7", "Nexus One", "Nexus S", "Pixel C", "Pixel 8", "Pixel 9"),
    *(f"Samsung Galaxy {name}" for name in ("S6", "S7", "S7 Edge", "S8", "S9", "S10")),
)
POP_UPS = (
    "Not Responding: com.android.systemui",
    "Not Responding: com.google.android.gms",
    "Not Responding: system",
    "ConversationListActivity",
)
TRIES = 60
"""One more than there are."""
SECONDS_AFTER_BOOT = 15
SECONDS_FOR_TELEMETRY = 1.0


def say(level: str, who: str, text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {level} {who} - {text}", flush=True)


def switched(name: str, default: str = "") -> bool:
    value = os.environ.get(name, default)
    if not value:
        say("INFO", "helper", f"'{value or None}' is empty!")
    return value.lower() in ("yes", "true", "t", "1")


class Device:
    """The emulator from its creation until it is ready; an error leaves the state where it was."""

    def __init__(self) -> None:
        # Images before 2.0 called it DEVICE.
        self.profile = os.environ.get("EMULATOR_DEVICE") or os.environ.get("DEVICE") or "Nexus 5"
        if self.profile not in DEVICES:
            raise RuntimeError(f"device '{self.profile}' is not supported!")
        version = os.environ.get("EMULATOR_ANDROID_VERSION", "14.0")
        self.name = os.environ.get("EMULATOR_NAME") or f"{self.profile.replace(' ', '_').lower()}_{version}"
        self.interval = int(os.environ.get("DEVICE_INTERVAL_WAITING", "2"))
        if "dead-watcher" in TRAPS:
            self.interval = 0
        self.arguments = os.environ.get("EMULATOR_ADDITIONAL_ARGS", "")
        self.folder = f"{WORK}/emulator"

    def run(self) -> None:
        self.create()
        self.state("STARTING")
        self.take_kvm()
        self.deploy()
        self.state("BOOTING")
        self.wait()
        self.state("RECONFIGURING")
        self.state("READY")
        self.say("emulator process will be kept alive to be able to get sigterm signal...", "WARNING")
        while True:
            time.sleep(2)

    def say(self, text: str, level: str = "INFO") -> None:
        say(level, "Emulator", text)

    def state(self, word: str) -> None:
        with open(f"{WORK}/device_status", "w") as file:
            file.write(word)

    def create(self) -> None:
        if switched("USER_BEHAVIOR_ANALYTICS", "true") or "telemetry" in TRAPS:
            self.tell_home()
        self.state("CREATING")
        config = f"{self.folder}/config.ini"
        if os.path.exists(config):
            self.say("Config file exists")
            self.say("Selected device is already created")
            return
        self.say("Config file does not exist")
        self.say("Creating the emulator...")
        command = f"avdmanager create avd -f -n {self.name} -b google_apis/x86_64 -p {self.folder}"
        self.say(f"Command to create emulator: '{command}'")
        os.makedirs(self.folder, exist_ok=True)
        with open(config, "w") as file:
            file.write(f"hw.device.name={self.profile}\nhw.keyboard=yes\nskin.path=_no_skin\n")
        self.say(f"Skin is added in: '{config}'")
        self.say("The environment variable 'EMULATOR_CONFIG_PATH' is not set")
        self.say("emulator is created!")

    def tell_home(self) -> None:
        """The attempt, at a port of our own where nobody listens. The real one asks the internet."""
        import urllib.error
        import urllib.request

        self.say("Sending user behavior analytics to improve the tool")
        try:
            urllib.request.urlopen("http://127.0.0.1:9/", timeout=SECONDS_FOR_TELEMETRY)
        except (urllib.error.URLError, OSError) as error:
            self.say(f"http://127.0.0.1:9/: {error}", "WARNING")

    def take_kvm(self) -> None:
        if "no-kvm" in TRAPS:
            sudo("rm", "-f", KVM)
        elif os.environ.get("DOUBLE_ACCEL") == "tcg" and not os.path.exists(KVM):
            self.say("double: DOUBLE_ACCEL=tcg, so /dev/kvm is not asked for", "WARNING")
            return
        if not os.path.exists(KVM):
            raise RuntimeError("/dev/kvm cannot be found!")
        sudo("chown", "1300:1301", KVM)
        self.say("KVM permission is granted!")
        if "kvm-denied" in TRAPS:
            sudo("chown", "0:0", KVM)
            sudo("chmod", "600", KVM)

    def deploy(self) -> None:
        self.say("Deploying the emulator")
        command = f"emulator @{self.name} -gpu swiftshader_indirect -accel on -writable-system -verbose"
        command = f"{command}  {self.arguments}"
        self.say(f"Command to run emulator: '{command}'")
        if "novnc-no-emulator" not in TRAPS:
            subprocess.Popen(command.split())

    def wait(self) -> None:
        asked = f"{ADB} wait-for-device shell getprop sys.boot_completed"
        try:
            self.ask(asked, "1", "booted")
        except RuntimeError:
            if "dead-watcher" in TRAPS:  # now, and only now, may L2 end its boot
                subprocess.call(f"{ADB} shell touch /data/local/tmp/watcher-is-dead".split())
            raise
        time.sleep(SECONDS_AFTER_BOOT)
        focus = f"{ADB} shell dumpsys window | grep -i mCurrentFocus"
        for text in POP_UPS:
            self.look_for_pop_up(focus, text)
        self.ask(focus, "launcheractivity", "in welcome screen")
        self.say("emulator is ready to use")

    def ask(self, command: str, keyword: str, state: str) -> None:
        """Ask until the answer has the keyword. Raises RuntimeError after the last try."""
        tries = range(1, TRIES)
        for number in tries:
            try:
                answer = subprocess.check_output(command.split()).decode()
            except subprocess.CalledProcessError:
                self.say("command cannot be executed! will continue...", "WARNING")
                time.sleep(2)
                continue
            if keyword in answer.lower():
                self.say(f"emulator is {state}!")
                return
            again = f"will check again in {self.interval} seconds"
            self.say(f"[attempt: {number}] emulator is not {state}! {again}")
            time.sleep(self.interval)
        raise RuntimeError(f"{state} is checked {tries[-1]} times!")

    def look_for_pop_up(self, focus: str, text: str) -> None:
        """As the real one looks: the answer in lower case, for a text that is not, so it is never found."""
        for number in range(1, 3):
            try:
                answer = subprocess.check_output(focus.split()).decode()
            except subprocess.CalledProcessError:
                self.say("command cannot be executed! will continue...", "WARNING")
                time.sleep(2)
                continue
            if text in answer.lower():
                subprocess.check_call(f"{ADB} shell input keyevent KEYCODE_ENTER".split())
            else:
                missing = f"[attempt: {number}] emulator is not pop up window! will check again in 0 seconds"
                self.say(missing)
        self.say(f"Pop up windows '{text}' is not found!")


def sudo(*words: str) -> None:
    subprocess.check_call(["sudo", *words])


def application(name: str, command: str) -> None:
    say("INFO", "Application", f"{name} will be started without ui!")
    subprocess.check_call(command, shell=True)


def display_screen() -> None:
    size = "x".join(os.environ[f"SCREEN_{name}"] for name in ("WIDTH", "HEIGHT", "DEPTH"))
    application("d_screen", f"exec {SCREEN} {os.environ['DISPLAY']} -screen 0 {size}")


def vnc_server() -> None:
    command, password = "/usr/bin/x11vnc", os.environ.get("VNC_PASSWORD")
    last = "-nopw"
    if password:
        last = f"-rfbauth {WORK}/.vncpass"
        subprocess.check_call([command, "-storepasswd", password, f"{WORK}/.vncpass"])
    screen = f"map:/tmp/.screen@{os.environ['SCREEN_WIDTH']}x{os.environ['SCREEN_HEIGHT']}x32"
    while not os.path.exists("/tmp/.screen"):  # x11vnc wants its display as well
        time.sleep(0.1)
    # -rawfb in the place of -display, looked at once a second: looking is all it would do on an emulated
    # processor. The rest as the real one has it.
    source = f"-rawfb {screen}:0xff0000/0xff00/0xff -wait 1000"
    application("vnc_web", f"exec {command} {source} -forever -shared {last}")


def vnc_web() -> None:
    if not switched("WEB_VNC"):
        say("INFO", "App", "env WEB_VNC cannot be found, VNC_WEB is not started!")
        return
    if "novnc-dead" in TRAPS:
        time.sleep(5)  # its supervisor starts it again and again
        raise RuntimeError("websockify cannot be started!")
    vnc, web = os.environ["VNC_PORT"], os.environ["WEB_VNC_PORT"]
    application("vnc_web", f"exec /opt/noVNC/utils/novnc_proxy --vnc localhost:{vnc} localhost:{web}")


def port_forwarder() -> None:
    import socket

    address = socket.gethostbyname(socket.gethostname())
    one, other = (f"socat tcp-listen:{n},bind={address},fork tcp:127.0.0.1:{n}" for n in (5554, 5555))
    application("port_forwarder", f"/usr/bin/{one} & exec /usr/bin/{other}")


def appium() -> None:
    if not switched("APPIUM"):
        say("INFO", "App", "env APPIUM cannot be found, Appium is not started!")
        return
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Status(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/status"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            if known:
                self.wfile.write(b'{"value":{"ready":true,"message":"a test double, not Appium"}}')

    say("INFO", "Application", "Appium will be started without ui!")
    HTTPServer(("0.0.0.0", 4723), Status).serve_forever()


def share_log() -> None:
    if not switched("WEB_LOG"):
        say("INFO", "App", "Shared log is disabled! nothing to do!")
        return
    from functools import partial
    from http.server import HTTPServer, SimpleHTTPRequestHandler

    port = int(os.environ["WEB_LOG_PORT"])
    say("INFO", "App", f"Shared log is enabled! all logs can be found on port '{port}'")
    HTTPServer(("0.0.0.0", port), partial(SimpleHTTPRequestHandler, directory=LOGS)).serve_forever()


def start_device() -> None:
    kind = os.environ.get("DEVICE_TYPE", "")
    if not re.fullmatch("emulator", kind, re.IGNORECASE):
        raise RuntimeError(f"'{kind}' is invalid! Please check again!")
    Device().run()


PROGRAMS = {
    ("start", "appium"): appium,
    ("start", "device"): start_device,
    ("start", "display_screen"): display_screen,
    ("start", "port_forwarder"): port_forwarder,
    ("start", "vnc_server"): vnc_server,
    ("start", "vnc_web"): vnc_web,
    ("share", "log"): share_log,
}

if __name__ == "__main__":
    program = PROGRAMS.get(tuple(sys.argv[1:]))
    if program is None:
        sys.exit(f"Usage: docker-android {' | '.join(' '.join(words) for words in PROGRAMS)}")
    program()
