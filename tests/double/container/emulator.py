#!/usr/bin/python3
"""The emulator's command line and console, in front of a real QEMU with a real L2.

It stays as the parent of /opt/android/emulator/qemu/linux-x86_64/qemu-system-x86_64, which has /dev/kvm open;
the real emulator is one process. Its messages are the real one's where there is one for the case.
"""

# Pathlib is slow to load on an emulated processor.
# ruff: noqa: PTH110, PTH123

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

HERE = "/opt/android/emulator"
QEMU = f"{HERE}/qemu/linux-x86_64/qemu-system-x86_64"
KVM = "/dev/kvm"
HOME = os.environ.get("HOME", "/home/androidusr")
TOKEN = f"{HOME}/.emulator_console_auth_token"
TRAPS = frozenset(filter(None, os.environ.get("DOUBLE_TRAP", "").split(",")))
ADB_SERVER = ("127.0.0.1", 5037)
SECONDS_FOR_ADB = 120
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
MOST_MEMORY = 1 << 40
"""What is more is no limit."""
MEMORY_MIB = 256
SECONDS_LATE = {"late-boot": "60", "boot-loop": "8"}
"""From adbd to the end of the boot, where nothing else is asked for: long enough to be looked at."""
BANNER = (
    "Android Console: Authentication required",
    "Android Console: type 'auth <auth_token>' to authenticate",
    "Android Console: you can find your <auth_token> in ",
    f"'{TOKEN}'",
    "OK",
)

WELCOME = "Android Console: type 'help' for a list of commands\nOK"
STRANGER = "KO: authentication token does not match ~/.emulator_console_auth_token"


def say(level: str, text: str) -> None:
    with contextlib.suppress(OSError):  # the reader of our output may be gone; the emulator goes on
        print(f"{level:<12} | {text}", flush=True)


def accelerated(arguments: list[str]) -> bool:
    """Whether KVM is asked for: the last -accel counts."""
    wanted = "on"
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "-accel":
            wanted = following
        elif word == "-no-accel":
            wanted = "off"
    return wanted != "off" and os.environ.get("DOUBLE_ACCEL", "kvm") != "tcg"


def require_kvm() -> None:
    status = ""
    if not os.path.exists(KVM):
        status = f"{KVM} is not found: VT disabled in BIOS or KVM kernel module not loaded"
    elif not os.access(KVM, os.R_OK | os.W_OK):
        with open("/etc/group") as file:
            line = next((line for line in file if line.startswith("kvm:")), "").strip()
        status = f"This user doesn't have permissions to use KVM ({KVM}).\n"
        status += f"The KVM line in /etc/group is: [{line}]"
    if status:
        say("ERROR", "x86_64 emulation currently requires hardware acceleration!")
        print("Please ensure KVM is properly installed and usable.")
        print(f"CPU acceleration status: {status}", flush=True)
        sys.exit(1)


def memory_limit() -> int | None:
    """The container's, in bytes."""
    for path in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            if (limit := int(file.read())) < MOST_MEMORY:
                return limit
    return None


def command(kvm: bool) -> list[str]:
    memory: list[str] = ["-m", str(MEMORY_MIB)]
    limit = memory_limit() if "out-of-memory" in TRAPS else None
    if limit:
        # More than the container may have, all of it touched at once: the kernel ends QEMU.
        memory = ["-m", str(limit * 2 >> 20), "-mem-prealloc"]
    waits = [seconds for trap, seconds in SECONDS_LATE.items() if trap in TRAPS]
    late = os.environ.get("DOUBLE_LATE") or [*waits, "2"][0]
    told = f"double.trap={','.join(sorted(TRAPS))} double.late={late}"
    told += f" double.offline={os.environ.get('DOUBLE_OFFLINE', '20')}"
    network = "user,id=net,net=192.168.76.0/24,restrict=on"
    return [
        *(QEMU, "-name", "double", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-L", "/usr/share/qemu", "-machine", "q35", "-smp", "1", *memory),
        *(("-accel", "kvm", "-cpu", "host") if kvm else ("-accel", "tcg", "-cpu", "max")),
        *("-kernel", f"{HERE}/vmlinuz", "-initrd", f"{HERE}/initramfs", "-append"),
        f"console=ttyS0 quiet loglevel=4 panic=-1 audit=0 mitigations=off {told}",
        *("-netdev", f"{network},hostfwd=tcp:127.0.0.1:5555-192.168.76.15:5555"),
        *("-device", "virtio-net-pci,netdev=net,romfile=", "-device", "bochs-display,romfile="),
        *("-qmp", "unix:/tmp/emulator.qmp,server=on,wait=off", "-serial", "stdio"),
        *(() if "boot-loop" in TRAPS else ("-no-reboot",)),
    ]


def main() -> None:
    arguments = sys.argv[1:]
    kvm = accelerated(arguments)
    say("INFO", "Android emulator version 0.0 (a test double, not Android)")
    if kvm:
        require_kvm()
    else:
        say("WARNING", "x86_64 emulation may not work without hardware acceleration!")
        say("WARNING", "double: L2 is emulated, which proves nothing about KVM")
    began = time.monotonic()
    qemu = subprocess.Popen(
        command(kvm),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: qemu.terminate())
    threading.Thread(target=console, args=(arguments, qemu), daemon=True).start()
    if "out-of-memory" in TRAPS and memory_limit() is None:
        say("WARNING", "double: the container has no memory limit, so QEMU is killed as if it had")
        threading.Timer(5, qemu.kill).start()
    if qemu.stdout is None:
        sys.exit(1)
    for line in qemu.stdout:
        follow(line.strip(), qemu, began)
    ended(qemu.wait())


def follow(line: str, qemu: "subprocess.Popen[str]", began: float) -> None:
    """Act on one line of L2's console, or of QEMU's own words."""
    if line:
        say("VERBOSE", line)
    if "double: l2 adb" in line or "double: l2 mute" in line:
        threading.Thread(target=announce, daemon=True).start()
    if "double: l2 init" in line and "emulator-crash" in TRAPS:
        qemu.send_signal(signal.SIGSEGV)
    if "double: l2 boot_completed" in line:
        say("INFO", f"Boot completed in {round((time.monotonic() - began) * 1000)} ms")
    # QEMU stays there, paused for ever, when KVM gives up on its guest.
    if "KVM: entry failed" in line or "KVM internal error" in line:
        qemu.kill()


def announce() -> None:
    """Tell adb's server that there is an emulator, as the real one does; it does not look by itself."""
    for _ in range(SECONDS_FOR_ADB):
        with contextlib.suppress(OSError), socket.create_connection(ADB_SERVER, timeout=5) as connection:
            connection.sendall(b"0012host:emulator:5555")
            return
        time.sleep(1)


def ended(status: int) -> None:
    if status < 0:
        name = signal.strsignal(-status)
        say("FATAL", f"qemu-system-x86_64 was ended by signal {-status} ({name})")
        sys.exit(128 - status)
    say("ERROR", f"qemu-system-x86_64 ended with status {status}")
    sys.exit(status)


def console(arguments: list[str], qemu: "subprocess.Popen[str]") -> None:
    """The emulator's console on port 5554, as far as its greeting, `auth` and a few commands."""
    token = os.urandom(9).hex()
    with open(TOKEN, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(token)
    name = next((word[1:] for word in arguments if word.startswith("@")), "double")
    listener = socket.create_server(("127.0.0.1", 5554))
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=converse, args=(connection, token, name, qemu), daemon=True).start()


def converse(connection: socket.socket, token: str, name: str, qemu: "subprocess.Popen[str]") -> None:
    allowed = False
    with (
        contextlib.suppress(OSError),
        connection,
        connection.makefile("r") as asked,
        connection.makefile("w", newline="\r\n") as stream,
    ):
        stream.write("".join(f"{line}\n" for line in BANNER))
        stream.flush()
        for line in asked:
            words = line.split() or [""]
            answer = "KO: unknown command, try 'help'"
            if words[0] in ("quit", "exit"):
                return
            if words[0] == "auth":
                allowed = words[1:] == [token]
                answer = WELCOME if allowed else STRANGER
            elif words[0] == "help":
                answer = "Android console command help:\n    help|auth|avd name|kill|quit\nOK"
            elif words == ["avd", "name"] and allowed:
                answer = f"{name}\nOK"
            elif words[0] == "kill" and allowed:
                qemu.terminate()
                answer = "OK: killing emulator, bye bye"
            stream.write(f"{answer}\n")
            stream.flush()


if __name__ == "__main__":
    main()
