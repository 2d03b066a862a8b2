"""What lab does in the container by Docker's hand: start it, wait for its adb, ask its L2."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import dataclass

from lab.core.deadline import Deadline, cleaning_up
from lab.core.steps import Step
from lab.emulators.container import Container
from lab.emulators.docker_android import contract, reading, sighting
from lab.emulators.docker_android.contract import SERIAL
from lab.emulators.docker_android.image import AndroidImage
from lab.emulators.docker_android.looking import BASICS, KERNEL
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.docker_android.sighting import Android
from lab.emulators.protocol import NestedProof
from lab.formats import program
from lab.guest.ssh import Guest

_FOLDER = "/data/local/tmp"
"""Where ADB's own user may put programs, and run them."""
PROGRAMS = {"lab-cpuid": program.hypervisor_signature(), "lab-cpuid-32": program.hypervisor_signature_32()}
QUESTION = reading.question(
    **BASICS,
    **KERNEL,
    hypervisor=f"{_FOLDER}/lab-cpuid 2>/dev/null || {_FOLDER}/lab-cpuid-32",
)
"""What L2 is asked for its proof. An L2 of 32 bits does not run the first program."""
PUSHED = f"{_FOLDER}/"

_BOOT = reading.question(**{name: BASICS[name] for name in ("boot_id", "uptime", "completed")})
"""Asked first: an L2 that restarts before it has answered all of the above was heard all the same."""

_FILES = 65536
_LOOKS = 10
_LOOK_SECONDS = 90.0
_ASK_SECONDS = 180.0
_STEP_SECONDS = 30
"""One step of the asking, of three: adb does not notice by itself that its L2 has restarted."""
_AGAIN_SECONDS = 60
"""While it was online in vain it is waited for anew, so long in all: its next boot is not to be missed."""

# Within the container, since asking from outside costs an emulated processor a second each time.
_AWAIT = """
n=0
while [ $n -lt "$2" ]; do
    [ "$(adb -s "$1" get-state 2>/dev/null)" = device ] && date +%s.%N && exit 0
    n=$((n+1)); sleep 1
done
exit 1
"""
# At once when it is online, since it may not be for long: to adb one that has restarted is online until it
# is asked, and then takes seconds to be there again. By the uptime, which nobody sets.
_ASK = """
serial=$1 seconds=$2 step=$3 again=$4 size=$5 first=$6 question=$7
up() { read -r now _ </proc/uptime; echo "${now%.*}"; }
folder=$(mktemp -d) && cd "$folder" || exit
dd bs=1 "count=$size" of=lab-cpuid 2>/dev/null && cat >lab-cpuid-32 && chmod 755 lab-cpuid*
until=$(($(up) + seconds)) end=$(($(up) + again))
while :; do
    if [ "$(adb -s "$serial" get-state 2>/dev/null)" = device ]; then
        echo; echo lab-part at; date +%s.%N; echo; echo lab-part online; cat /proc/uptime
        timeout "$step" adb -s "$serial" shell "$first" </dev/null &&
            timeout "$step" adb -s "$serial" push lab-cpuid lab-cpuid-32 /data/local/tmp/ >/dev/null &&
            timeout "$step" adb -s "$serial" shell "$question" </dev/null && break
        until=$(($(up) + seconds)) && [ "$until" -le "$end" ] || until=$end
    fi
    [ "$(up)" -lt "$until" ] || break
    sleep 1
done
cd / && rm -rf "$folder"
echo; echo lab-part over; cat /proc/uptime
"""
_ENV = 'umask 077; cat >"$1"'


@dataclass(frozen=True)
class AndroidLaunch:
    """How a container is started, beside its image."""

    options: AndroidOptions
    password: str
    nonce: str
    publish: dict[int, int]
    """Port in the container to port of L1."""
    arguments: str = ""
    """Further words for the emulator."""

    @property
    def fingerprint(self) -> str:
        """Of all that is set, and no more: the same settings are the same emulator (hex)."""
        given = {
            name: getattr(self.options, name) for name in ("device", "memory_mib", "cpus", "appium", "env")
        }
        document = given | {"arguments": self.arguments, "publish": sorted(self.publish.items())}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Heard:
    """What the container's own adb let be heard of L2; each is None when it was not."""

    at: float | None
    """When adb had it online, by L1's wall clock; not every image's `date` has fractions of a second."""
    ago: float | None
    """How long before the end of the asking that was, seconds."""
    android: Android | None
    """Its boot: of the last one, where it restarted meanwhile."""
    proof: NestedProof | None
    """All that was asked."""


def start(
    guest: Guest, container: Container, image: AndroidImage, launch: AndroidLaunch, step: Step | None
) -> None:
    """Start the container in place of an old one. Raises as Container.run does.

    Its variables go into a file that only root may read, and that is gone when it runs: a command
    line ends in the VM's journal, and the journal in the evidence.
    """
    options, promised = launch.options, contract.of(image.archive.reference)
    variables, notes = contract.environment(
        promised,
        device=options.device,
        password=launch.password,
        appium=options.appium,
        further=options.env,
        arguments=launch.arguments,
    )
    if step is not None:
        for note in notes:
            step.note(note)
    path = f"{guest.terms.folder or '/run'}/{container.name}.env"
    words = ["--label", f"{sighting.NONCE_LABEL}={launch.nonce}"]
    words += ["--label", f"{sighting.IMAGE_LABEL}={image.identity}"]
    words += ["--label", f"{sighting.LAUNCH_LABEL}={launch.fingerprint}"]
    # As much swap as memory would be as good as no limit, and far too slow for Android.
    words += ["--memory", f"{options.memory_mib}m", "--memory-swap", f"{options.memory_mib}m"]
    # The VNC server tries every descriptor it might have, one by one, at each new client (LibVNCServer's
    # rfbNewConnection), and Docker's default may be a thousand million of them.
    words += ["--ulimit", f"nofile={_FILES}:{_FILES}"]
    words += ["--cpus", str(options.cpus), "--env-file", path]
    guest.run(["sh", "-c", _ENV, "env", path], sudo=True, stdin=contract.env_file(variables))
    try:
        container.run(guest, image.archive.reference, words, kvm=True, publish=launch.publish)
    finally:
        with cleaning_up():
            guest.run(["rm", "-f", path], sudo=True, check=False)


def await_adb(guest: Guest, container: Container, deadline: Deadline) -> float | None:
    """Give the container's adb some time to see its emulator online.

    When it did, by L1's wall clock; None when it did not, or that is not told.
    """
    looks = str(max(1, min(_LOOKS, int(deadline.left))))
    argv = ["sh", "-c", _AWAIT, "await", SERIAL, looks]
    printed = container.exec(guest, argv, check=False, deadline=Deadline.after(_LOOK_SECONDS))
    match = re.fullmatch(r"\d+\.\d+", printed.strip())
    return float(match[0]) if match else None


def give_nonce(guest: Guest, container: Container, nonce: str) -> None:
    """Tell L2 the nonce, through the container and no other way."""
    argv = ["adb", "-s", SERIAL, "shell", "setprop", sighting.NONCE_PROPERTY, nonce]
    container.exec(guest, argv, check=False, deadline=Deadline.after(_ASK_SECONDS))


def ask(guest: Guest, container: Container, nonce: str, deadline: Deadline) -> Heard:
    """Give the container's adb some time to have L2 online; then give L2 the nonce, and ask it what it is."""
    first, second = PROGRAMS.values()
    seconds, again = (max(0, min(most, int(deadline.left))) for most in (_LOOKS, _AGAIN_SECONDS))
    given = f"setprop {sighting.NONCE_PROPERTY} {shlex.quote(nonce)}; {_BOOT}"
    words = [SERIAL, *map(str, (seconds, _STEP_SECONDS, again, len(first))), given, QUESTION]
    argv = ["docker", "exec", "--interactive", container.name, "sh", "-c", _ASK, "ask", *words]
    limit = Deadline.after(_ASK_SECONDS)
    done = guest.run(argv, sudo=True, stdin=first + second, check=False, deadline=limit)
    return heard(done.out)


def heard(printed: str) -> Heard:
    """What `ask` printed. Pure."""
    answers = reading.answers(printed)
    at, up = re.fullmatch(r"\d+\.\d+", answers.get("at", "")), reading.uptime(answers.get("uptime", ""))
    android = None
    if up is not None:
        completed = answers.get("completed") == "1"
        android = Android("device", boot_id=answers.get("boot_id", ""), uptime=up, completed=completed)
    online, over = (reading.uptime(answers.get(name, "")) for name in ("online", "over"))
    ago = max(0.0, over - online) if online is not None and over is not None else None
    last = printed.rpartition("lab-part at\n")[2]  # no proof is put together from two boots
    return Heard(float(at[0]) if at else None, ago, android, proof(last))


def proof(printed: str) -> NestedProof | None:
    """L2's answers to QUESTION as a proof; None when its CPUID program did not run, or it has no uptime."""
    answers = reading.answers(printed)
    hypervisor = reading.signature(answers.get("hypervisor", ""))
    if hypervisor is None or reading.uptime(answers.get("uptime", "")) is None:
        return None
    return NestedProof(
        nonce=answers.get("nonce", ""),
        hypervisor=hypervisor,
        clocksource=answers.get("clocksource", ""),
        boot_id=answers.get("boot_id", ""),
        boot_completed=answers.get("completed") == "1",
        kernel=answers.get("kernel", ""),
    )
