"""Somebody's machine from within: what it is, its Docker as it is there, and who may use them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, LabError
from lab.core.steps import Step
from lab.guest import docker, kvm, python
from lab.guest.gather import gather
from lab.guest.ssh import Guest
from lab.host.cpu import EL2, parse_cpuinfo
from lab.host.facts import HostFacts, Kvm, parse_os_release

_SECONDS = 120.0
_LOOK = {
    "os": ["cat", "/etc/os-release"],
    "cpuinfo": ["cat", "/proc/cpuinfo"],
    "memory": ["cat", "/proc/meminfo"],
    "cpus": ["getconf", "_NPROCESSORS_ONLN"],
    "boot": ["cat", "/proc/sys/kernel/random/boot_id"],
    "kernel": ["uname", "-r"],
    "arch": ["uname", "-m"],
    "virt": ["systemd-detect-virt", "--vm"],
    "board": ["sh", "-c", "cd /sys/class/dmi/id && cat sys_vendor product_name bios_vendor"],
    "nested": ["sh", "-c", "cat /sys/module/kvm_*/parameters/nested"],
}
_WORDS = re.compile(r"^[a-z0-9-]+$")

_SOCKETS = """
for socket in "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/docker.sock" \
    "${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/podman/podman.sock" /run/podman/podman.sock; do
    [ -S "$socket" ] && [ -w "$socket" ] && printf '%s\\n' "$socket"
done
true
"""
_FREE_PORTS = """
import socket, sys
for start in range(10000, 20000, 1000):
    held = []
    try:
        for port in map(int, sys.argv[1:]):
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", port + start))
        print(start)
        break
    except OSError:
        pass
    finally:
        for item in held:
            item.close()
"""


@dataclass(frozen=True)
class Look:
    """What a machine is: its facts as of a host, and what says whether it is a virtual machine."""

    host: HostFacts
    virtualization: str
    """systemd-detect-virt's word, `none` on real hardware; empty where it is not there to be asked."""
    wsl: bool
    nested: str
    """The parameter `nested` of its KVM module; empty where none is loaded."""
    python: str


@dataclass(frozen=True)
class DockerService:
    """A Docker that answers: which one, by which socket, and whether only root reaches it."""

    kind: Literal["Docker", "rootless Docker", "Podman"]
    version: str
    host: str = ""
    by_sudo: bool = False


def look(guest: Guest) -> Look:
    """What the machine is. Raises UsageError where there is no Python for lab's scripts, LabError."""
    version = python.require(guest)
    text = gather(guest, _LOOK, Deadline.after(_SECONDS))
    facts = kvm.facts(guest, Deadline.after(_SECONDS))
    name, release = parse_os_release(text["os"])
    memory = re.search(r"^MemTotal:\s+(\d+)", text["memory"], re.MULTILINE)
    available = re.search(r"^MemAvailable:\s+(\d+)", text["memory"], re.MULTILINE)
    word = text["virt"].strip()
    kernel = text["kernel"].strip()
    cpu = parse_cpuinfo(text["cpuinfo"])
    if facts.cpu.el2:
        cpu = replace(cpu, extensions=(EL2,))
    board = ", ".join(line for line in text["board"].splitlines() if not line.startswith(("cat:", "sh:")))
    nested = text["nested"].strip()
    host = HostFacts(
        os=name,
        os_version=release,
        kernel=kernel,
        arch=text["arch"].strip(),
        cpu=replace(cpu, signature=facts.cpu.hypervisor, board=board),
        cpus=int(text["cpus"].strip() or 1),
        memory_total=int(memory[1]) << 10 if memory else 0,
        memory_available=int(available[1]) << 10 if available else 0,
        boot_id=text["boot"].strip(),
        kvm=Kvm(modules=tuple(facts.modules)),
    )
    return Look(
        host=host,
        virtualization=word if _WORDS.match(word) else "",
        wsl="microsoft" in kernel.lower(),
        nested=nested if nested in ("Y", "N", "0", "1") else "",
        python=version,
    )


def find_docker(guest: Guest) -> DockerService | None:
    """The Docker that the machine's user reaches, by root where only root does; None when there is none."""
    sockets = guest.run(["sh", "-c", _SOCKETS], check=False).out.split()
    ways: list[tuple[str, bool]] = [("", False), *((f"unix://{path}", False) for path in sockets)]
    if may_sudo(guest):
        ways.append(("", True))
    for host, by_sudo in ways:
        words = ["sudo", "-n", "--"] if by_sudo else []
        words += ["env", f"DOCKER_HOST={host}"] if host else []
        words += [
            "docker",
            "info",
            "--format",
            "{{.ServerVersion}} {{.OperatingSystem}} {{.SecurityOptions}}",
        ]
        done = guest.run(words, check=False, deadline=Deadline.after(_SECONDS))
        version, *_ = done.out.split(maxsplit=1) or [""]
        if done.status == 0 and version[:1].isdecimal():
            return DockerService(_kind(guest, words, done.out), version, host, by_sudo)
    return None


def _kind(guest: Guest, words: list[str], info: str) -> Literal["Docker", "rootless Docker", "Podman"]:
    ask = [*words[: words.index("docker") + 1], "version", "--format", "{{json .Server}}"]
    server = guest.run(ask, check=False, deadline=Deadline.after(_SECONDS)).out
    if "podman" in server.lower() or "podman" in info.lower():
        return "Podman"
    return "rootless Docker" if "name=rootless" in info else "Docker"


def why_no_docker(guest: Guest) -> LabError:
    """Why the user reaches none, as an error with the way out of it."""
    done = guest.run(["docker", "version"], check=False, deadline=Deadline.after(_SECONDS))
    text = done.out + done.err
    if done.status in (126, 127) and "docker" in text:
        return BlockedError(
            "the machine has no Docker, and lab installs none without being asked to",
            hint="`invoke lab.attach` with --install-docker installs the distribution's; or install one",
        )
    if "permission denied" in text.lower():
        return BlockedError(
            f"Docker is there, and {guest.user} may not use it",
            hint=f"`sudo usermod --append --groups docker {guest.user}` there lets the user in, from the "
            "next login on",
            tail=text.strip(),
        )
    if "daemon" in text:
        return BlockedError(
            "Docker's client is there, and its engine does not answer",
            hint="lab starts no service in somebody's machine: `sudo systemctl start docker` there does",
            tail=text.strip(),
        )
    return docker.explained(CommandError(["docker", "version"], done.status, tail=text.strip()))


def may_sudo(guest: Guest) -> bool:
    """Whether the user may be root without a password."""
    return guest.run(["sudo", "-n", "--", "true"], check=False).status == 0


def install_docker(guest: Guest, step: Step, deadline: Deadline) -> None:
    """Install the distribution's Docker, start it, and let the user in: what was asked for, and nothing else.

    Raises BlockedError where lab cannot, LabError.
    """
    if not may_sudo(guest):
        raise BlockedError(
            f"installing Docker takes root, and {guest.user} may not use sudo without a password",
            hint="install Docker there by hand; lab uses it as it is",
        )
    if guest.run(["sh", "-c", "command -v apt-get"], check=False).status != 0:
        raise BlockedError(
            "lab installs Docker with apt alone, and the machine has none",
            hint="install Docker there by hand; lab uses it as it is",
        )
    docker.install(guest, "docker.io", step, deadline)
    step.result = f"Docker {docker.start(guest, deadline, groups=('docker',))}"


def kvm_by_sudo(guest: Guest) -> bool:
    """Whether only root may use /dev/kvm, and the user may be root; False where there is none, too."""
    there = guest.run(
        ["sh", "-c", "[ -e /dev/kvm ] && ! { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }"], check=False
    )
    return there.status == 0 and may_sudo(guest)


def free_ports(guest: Guest, ports: list[int]) -> int:
    """What is to be added to all these ports so that each is free on the machine's loopback.

    Raises LabError when no such number is found.
    """
    done = guest.run(["python3", "-c", _FREE_PORTS, *map(str, ports)], check=False)
    if not done.out.strip().isdecimal():
        raise LabError("no free ports were found on the machine's loopback", tail=done.err)
    return int(done.out)
