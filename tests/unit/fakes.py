"""Stand-ins for the hypervisor, L1 and L2, all looking at one `World`.

They keep the protocols' promises and no more. tests/integration and tests/e2e try the real ones.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, LabError, UsageError
from lab.core.journal import Journal
from lab.core.steps import Step
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.protocol import (
    BootStage,
    Check,
    ContainerState,
    Health,
    NestedFailedError,
    NestedProof,
    Reach,
    Speed,
    Tell,
)
from lab.engines.protocol import (
    Availability,
    EngineFacts,
    EngineFinding,
    Forward,
    MachineSpec,
    Snapshot,
    State,
)
from lab.guest.ssh import Result
from lab.guest.terms import OWN
from lab.images.canary_recipe import EMULATED_ARM
from tests.unit.probed import cpu_facts, kvm_probe, word_in

KVM, TCG = "KVMKVMKVM", "TCGTCGTCGTCG"
USABLE = Availability(True, "fake")
FACTS = EngineFacts("qemu", "7.2", "kvm", "hardware", "fake: KVM works here")


HEALTHY = Health(
    True,
    True,
    (Check("adb", True, "online"), Check("launcher", True, "in focus")),
    (BootStage("adb-online", 20.0), BootStage("boot-completed", 61.5)),
    (),
    {"release": "14"},
)
PNG = b"\x89PNG\r\n\x1a\n"
VNC_PASSWORD = "pass-of-vnc"


@dataclass
class L2:
    """A running container's guest."""

    nonce: str
    boot_id: str
    hypervisor: str = KVM


@dataclass
class World:
    """All there is below lab. Tests change it as the world would; `calls` is what lab did to it."""

    facts: EngineFacts = FACTS
    available: Availability = USABLE
    caution: str = ""
    state: State = State.ABSENT
    forwards: list[Forward] = field(default_factory=list)
    snapshots: dict[str, State] = field(default_factory=dict)
    remembered: dict[str, L2 | None] = field(default_factory=dict)
    """The L2 in each snapshot's memory."""
    l1_boots: int = 0
    l1_ahead: float = 0.0
    """How far L1's clock is from the host's, in seconds."""
    l2_boots: int = 0
    l2: L2 | None = None
    others: dict[str, L2] = field(default_factory=dict)
    """The L2s of the emulators beside the main one."""
    ended: set[str] = field(default_factory=set)
    """The emulators whose container ended, and was not removed."""
    impostor: bool = False
    """What runs as the main emulator's container is nothing that lab launched."""
    l2_next: str = KVM
    """What runs the L2 launched next."""
    boot_states: list[str] = field(default_factory=list)
    """What systemctl says while L1 boots; running when they are used up."""
    boot_jobs: str = ""
    """What systemctl shows of the units that have a job then."""
    kvm_ok: bool = True
    probe: dict[str, Any] | None = None
    """What the KVM probe prints; None where it is as `kvm_ok` has it."""
    l1_facts: dict[str, Any] = field(default_factory=dict)
    """What L1 says of itself, where that is not as usual."""
    accepted: dict[str, str] = field(default_factory=dict)
    """The settings that the engine took otherwise than they were asked for."""
    started: Callable[[MachineSpec], None] = lambda _: None
    """Told of each VM once it runs."""
    boots: Callable[[FakeEmulator, str, Deadline], float] | None = None
    """How long an L2 takes to boot by itself, by its acceleration; it may raise."""
    docker: str = "26.1"
    """The version of L1's Docker; empty where none answers."""
    to_be_fetched: bool = False
    """The emulator's image is gigabytes, and not here."""
    l1_machine: str = "x86_64"
    """What `uname -m` says in L1."""
    l1_memory_mib: int = 8000
    """What is available of L1's memory."""
    failures: list[str | LabError] = field(default_factory=list)
    """What the next launches of L2 end with."""
    log_lines: list[tuple[str, str]] = field(default_factory=list)
    """(log, line): what following the logs of any emulator tells."""
    android: bool = False
    health: Health = HEALTHY
    """How every Android looks, once its container runs."""
    broken: dict[str, BaseException] = field(default_factory=dict)
    """Errors by the name of the call that raises them."""
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    """What happens just before the call of that name."""
    calls: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def l1_boot_id(self) -> str:
        return f"boot-of-l1-{self.l1_boots}"

    def happen(self, call: str) -> None:
        if call in self.before:
            self.before[call]()

    def did(self, call: str) -> None:
        self.happen(call)
        with self.lock:
            self.calls.append(call)
        if call in self.broken:
            raise self.broken[call]


@dataclass
class FakeMachine:
    world: World
    spec: MachineSpec

    def create(self) -> None:
        self.world.did("create")
        self.spec.folder.mkdir(parents=True, exist_ok=True)
        self.console().write_text("console of L1\n")
        self.world.state = State.STOPPED

    def start(self, forwards: Sequence[Forward]) -> None:
        self.world.did("start")
        if self.world.state is not State.RUNNING:
            self.world.l1_boots += 1
            self.world.l2, self.world.others = None, {}
        self._run(forwards)
        self.world.started(self.spec)

    def _run(self, forwards: Sequence[Forward]) -> None:
        self.world.state, self.world.forwards = State.RUNNING, list(forwards)

    def stop(self, deadline: Deadline) -> Literal["graceful", "forced", "already"]:
        self.world.did("stop")
        was, self.world.state, self.world.l2 = self.world.state, State.STOPPED, None
        return "graceful" if was is State.RUNNING else "already"

    def suspend(self) -> None:
        self.world.did("suspend")
        self.world.state = State.SUSPENDED

    def resume(self, forwards: Sequence[Forward]) -> None:
        self.world.did("resume")
        self._run(forwards)

    def snapshot(self, name: str) -> None:
        self.world.did("snapshot")
        if name in self.world.snapshots:
            raise UsageError(f"there is a snapshot {name} already")
        self.world.snapshots[name] = self.world.state
        self.world.remembered[name] = self.world.l2

    def restore(self, name: str, forwards: Sequence[Forward]) -> None:
        self.world.did("restore")
        if name not in self.world.snapshots:
            raise UsageError(f"there is no snapshot {name}")
        if self.world.snapshots[name] is State.RUNNING:
            self.world.l2 = self.world.remembered[name]
            self._run(forwards)
        else:
            self.world.state = State.STOPPED

    def snapshots(self) -> list[Snapshot]:
        at = datetime(2026, 1, 2, tzinfo=UTC)
        return [Snapshot(name, at, state is State.RUNNING) for name, state in self.world.snapshots.items()]

    def destroy(self) -> None:
        self.world.did("destroy")
        self.world.state, self.world.l2 = State.ABSENT, None

    def status(self) -> State:
        if "status" in self.world.broken:
            raise self.world.broken["status"]
        return self.world.state

    def forwards(self) -> list[Forward]:
        return self.world.forwards if self.world.state is State.RUNNING else []

    def add_forward(self, forward: Forward) -> None:
        self.world.did("add_forward")
        if self.world.state is not State.RUNNING:
            raise UsageError("it does not run")
        self.remove_forward(forward.name)
        self.world.forwards.append(forward)

    def remove_forward(self, name: str) -> None:
        self.world.did("remove_forward")
        self.world.forwards = [item for item in self.world.forwards if item.name != name]

    def settings(self) -> dict[str, str]:
        return {
            "cpus": str(self.spec.cpus),
            "memory_mib": str(self.spec.memory_mib),
            "nested": "on" if self.spec.nested else "off",
            "paravirt": self.spec.paravirt,
            "acceleration": self.world.facts.acceleration,
        } | self.world.accepted

    def console(self) -> Path:
        self.world.happen("console")
        return self.spec.folder / "console.log"

    def screenshot(self, target: Path) -> None:
        target.write_bytes(b"\x89PNG")

    def logs(self) -> list[Path]:
        return []


@dataclass
class FakeEngine:
    world: World
    name: str = "qemu"

    def availability(self) -> Availability:
        return self.world.available

    def facts(self) -> EngineFacts:
        return self.world.facts

    def findings(self, _folders: Sequence[Path]) -> list[EngineFinding]:
        return []

    def caution(self) -> str:
        return self.world.caution

    def machine(self, spec: MachineSpec, journal: Journal) -> FakeMachine:
        return FakeMachine(self.world, spec)


@dataclass
class FakeGuest:
    """L1 over SSH: answers what the rungs and the evidence ask of it."""

    terms = OWN

    world: World
    port: int = 10022
    host: str = "127.0.0.1"
    user: str = "lab"
    key: Path = Path("/lab/key")
    known_hosts: Path = Path("/lab/known_hosts")
    word: str = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def open(self, deadline: Deadline | None = None, banner: Any = None) -> None: ...

    def close(self) -> None: ...

    def reconnect(self, deadline: Deadline | None = None) -> None: ...

    def read(self, remote: str, *, sudo: bool = False) -> str:
        return {
            "/proc/sys/kernel/random/boot_id": self.world.l1_boot_id + "\n",
            "/proc/uptime": "5.1 9\n",
            "/proc/meminfo": f"MemTotal: 9999999 kB\nMemAvailable: {self.world.l1_memory_mib << 10} kB\n",
        }[remote]

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "", **_: Any) -> Result:
        if self.world.state is not State.RUNNING:
            raise DeadlineError("no login over SSH: the VM does not run")
        if argv[0] == "date":
            self.world.did("date")
        return Result(list(argv), self._answer(list(argv), stdin), "", 0, 0.0)

    def _probe(self) -> str:
        return json.dumps(self.world.probe or kvm_probe(self.world.kvm_ok))

    def _answer(self, argv: list[str], stdin: str | bytes) -> str:
        if "is-system-running" in "".join(argv):
            state = self.world.boot_states.pop(0) if self.world.boot_states else "running"
            return f"{state}\n{self.world.boot_jobs}"
        if argv[0] == "uname":
            return f"{self.world.l1_machine}\n"
        if argv[0] == "cat":
            btime = int(time.time() + self.world.l1_ahead) - 5
            return f"{self.world.l1_boot_id}\n5.1 9\nLinux\n6.12\ncpu 1 2\nbtime {btime}\n"
        if argv[:2] == ["docker", "load"]:
            self.word = word_in(stdin)  # type: ignore[arg-type]
        if argv[:2] == ["docker", "run"]:
            probed = self._probe() if "--device" in argv else ""
            return f"{self.word}\n{probed}"
        if argv[0] == "python3" and "--seconds" in argv:
            return self._probe()
        if argv[0] == "python3":
            return json.dumps(cpu_facts(**self.world.l1_facts))
        if argv[:2] == ["docker", "version"]:
            return self.world.docker
        if argv[:2] == ["docker", "info"]:
            return json.dumps({"ServerVersion": self.world.docker, "Driver": "overlay2"})
        if argv[:2] == ["sh", "-c"] and argv[3:4] == ["look"]:  # lab.guest.docker.ensure
            self.world.did("docker")
            return self.world.docker
        if argv[:2] == ["sh", "-c"]:  # many commands in one (lab.guest.gather)
            mark = "".join(re.findall(r"mark=(\w+); mark=\$\{mark\}(\w+)", argv[2])[0])
            return f"{mark}\nsaid\n" * argv[2].count("\necho $mark; cat")
        return {"uname": "Linux 6.12", "stat": "104"}.get(argv[0], "")


@dataclass
class FakeEmulator:
    world: World
    name: str = "canary"
    instance: str = "main"
    index: int = 0
    double = False
    options: AndroidOptions = field(default_factory=AndroidOptions)
    own_clock = True
    memory_mib = 0
    services: ClassVar[dict[str, int]] = {"adb": 5555}

    @property
    def ports(self) -> dict[str, int]:
        return {service: port + 100 * self.index for service, port in self.services.items()}

    @property
    def android(self) -> bool:
        return self.world.android

    @property
    def _l2(self) -> L2 | None:
        return self.world.l2 if self.instance == "main" else self.world.others.get(self.instance)

    @_l2.setter
    def _l2(self, l2: L2 | None) -> None:
        if self.instance == "main":
            self.world.l2 = l2
        elif l2 is None:
            self.world.others.pop(self.instance, None)
        else:
            self.world.others[self.instance] = l2

    def boot_seconds(self, speed: Speed) -> float:
        return self.options.boot_seconds[speed] if self.android else 0

    def image_id(self) -> str:
        return "sha256:fake"

    def to_be_fetched(self) -> bool:
        return self.world.to_be_fetched

    def prepare(self, step: Step) -> None:
        self.world.did("prepare")

    def upload(self, guest: Any, step: Step) -> None:
        self.world.did("upload")

    def load(self, guest: Any, step: Step) -> None:
        self.world.did("load")

    def start(self, guest: Any, step: Step, *, nonce: str) -> None:
        self.world.did("launch")
        self.world.ended.discard(self.instance)
        self.world.impostor = False
        self.world.l2_boots += 1
        self._l2 = L2(nonce, f"boot-of-l2-{self.world.l2_boots}", self.world.l2_next)

    def runs_with(self, state: ContainerState, nonce: str) -> bool:
        return state.running and state.facts["nonce"] == nonce and not self.world.impostor

    def booted(self, guest: Any, deadline: Deadline) -> NestedProof:
        self.world.did("booted")
        if self.world.failures:
            failure = self.world.failures.pop(0)
            if isinstance(failure, LabError):
                raise failure
            raise NestedFailedError(failure, tail="kvm: entry failed")
        return self._proof(6.0)

    def prove(self, adb_address: str, adb_folder: Path, deadline: Deadline) -> NestedProof:
        self.world.did("prove")
        return self._proof(None)

    def _proof(self, seconds: float | None) -> NestedProof:
        l2 = self._l2
        if l2 is None or self.world.state is not State.RUNNING:
            raise DeadlineError("L2 was not heard")
        clock = "kvm-clock" if l2.hypervisor == KVM else "tsc"
        return NestedProof(l2.nonce, l2.hypervisor, clock, l2.boot_id, True, "6.12", seconds=seconds)

    def time_boot(self, guest: Any, acceleration: str, deadline: Deadline) -> float:
        self.world.did("compare")
        if self.world.boots is not None:
            return self.world.boots(self, acceleration, deadline)
        if self.name == EMULATED_ARM.name:
            return 90.0
        return {"kvm": 6.0, "tcg": 60.0}[acceleration]

    def state(self, guest: Any) -> ContainerState:
        l2 = self._l2
        if self.instance in self.world.ended:
            return ContainerState(True, False, "", 255)
        if l2 is None:
            return ContainerState(False, False)
        return ContainerState(True, True, "healthy", None, "sha256:fake", {"nonce": l2.nonce})

    def logs(self, guest: Any) -> dict[str, str]:
        return {"container.log": f"log of the container {self.instance}\n"}

    def follow(self, guest: Any, tell: Tell) -> None:
        for line in self.world.log_lines:
            tell(*line)

    def stop(self, guest: Any) -> None:
        self.world.did("end")
        self.world.ended.discard(self.instance)
        self._l2 = None


@dataclass
class FakeAndroid(FakeEmulator):
    """An AndroidEmulator (lab.emulators.protocol) that looks as the world says."""

    name: str = "docker-android"
    own_clock = False
    services: ClassVar[dict[str, int]] = {"adb": 5555, "console": 5554, "novnc": 6080}
    android = True

    @property
    def memory_mib(self) -> int:  # type: ignore[override]
        return self.options.memory_mib

    def health(self, reach: Reach) -> Health:
        self.world.did("health")
        assert reach.addresses.keys() == self.services.keys()
        return self.world.health

    def wait(self, reach: Reach, stage: str, step: Step, deadline: Deadline) -> Health:
        self.world.did(f"wait {stage}")
        return self.health(reach)

    def screenshot(self, reach: Reach) -> bytes:
        return PNG

    def install(self, reach: Reach, apk: Path, step: Step, deadline: Deadline) -> str:
        if not apk.read_bytes().startswith(b"PK"):
            raise LabError("INSTALL_PARSE_FAILED_NOT_APK")
        return f"org.example.{apk.stem}"

    def browser_url(self, reach: Reach) -> str:
        return (
            f"http://{reach.addresses['novnc']}/vnc.html?autoconnect=1&resize=scale#password={VNC_PASSWORD}"
        )
