"""docker-android: the x86 Android emulator in a container (docs/android.md)."""

from __future__ import annotations

import tempfile
import urllib.parse
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lab.adb import AdbServer
from lab.core import proc
from lab.core.deadline import Deadline, NotYet, poll
from lab.core.errors import BlockedError, LabError
from lab.core.steps import Step
from lab.emulators.base import ContainerEmulator
from lab.emulators.docker_android import apk as apps
from lab.emulators.docker_android import (
    contract,
    evidence,
    health,
    image,
    looking,
    measure,
    password,
    reading,
    room,
    waiting,
    within,
)
from lab.emulators.docker_android.looking import Watch
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.options import Place
from lab.emulators.protocol import ContainerState, Health, NestedProof, Reach, Speed, Tell
from lab.emulators.transfer import Transfer
from lab.guest.ssh import Guest

__all__ = ["DockerAndroid"]


class DockerAndroid(ContainerEmulator):
    """docker-android in one lab. See lab.emulators.protocol.AndroidEmulator for what each method promises."""

    name = "docker-android"
    android = True

    def __init__(self, place: Place, options: AndroidOptions) -> None:
        if 0 < place.vm_cpus < options.cpus:  # Docker refuses a limit that is more than there is
            options = replace(options, cpus=float(place.vm_cpus))
        self._options = options
        self._services = {**contract.SERVICES, **(contract.APPIUM if options.appium else {})}
        self.memory_mib = options.memory_mib
        super().__init__(place, self._services)
        self._image: image.AndroidImage | None = None
        self._outdated = ""
        """Why the container that was looked at last is not what the settings ask for."""
        password.known(place.secrets)  # so that it is masked, whatever this object is used for

    @property
    def double(self) -> bool:
        return any(look.inside.double or (look.android and look.android.double) for look in self._watch.seen)

    def boot_seconds(self, speed: Speed) -> float:
        return self._options.boot_seconds[speed]

    def image_id(self) -> str:
        image = self._found()
        return f"{self.name}@{image.identity}" if image else f"{self.name} (not fetched)"

    def to_be_fetched(self) -> bool:
        return self._options.archive is None and self._found() is None

    def prepare(self, step: Step) -> None:
        if self._place.arm64:
            raise BlockedError(
                "docker-android's image is for x86-64 processors, and the machine's is arm64",
                hint="`invoke lab.detach`, then attach it without LAB_EMULATOR__KIND: the canary runs there",
            )
        self._require_room(None)
        place = self._place
        self._image = image.prepare(self._options, place.cache, place.state, step, self._require_room)
        self._forget()
        archive = self._image.archive
        step.result = f"{archive.reference}, {self._image.bytes / 1e6:.0f} MB, {self._image.identity}"

    def start(self, guest: Guest, step: Step, *, nonce: str) -> None:
        if self._outdated:
            step.note(f"launched anew: {self._outdated}")
            self._outdated = ""
        launch = self._launch(password.ensure(self._place.secrets), nonce)
        within.start(guest, self._container, self._need_image(), launch, step)
        step.result = self._container.name

    def runs_with(self, state: ContainerState, nonce: str) -> bool:
        self._outdated = ""
        if not state.running or not nonce or state.facts.get("nonce") != nonce:
            return False
        image = self._found()
        if image is None or state.facts.get("image") != image.identity:
            self._outdated = "the one that runs is of another image"
        elif state.facts.get("launch") != self._launch("", nonce).fingerprint:
            self._outdated = "the one that runs was launched with other settings"
        return not self._outdated

    def booted(self, guest: Guest, deadline: Deadline) -> NestedProof:
        """Waits for L2's ADB daemon only: the end of Android's boot is another rung's.

        Raises BlockedError for an emulator that a setting has run without KVM.
        """
        return waiting.for_proof(guest, self._container, self._watch, deadline)

    def time_boot(self, guest: Guest, acceleration: Literal["kvm", "tcg"], deadline: Deadline) -> float:
        launch = within.AndroidLaunch(self._options, password.ensure(self._place.secrets), "compare", {})
        return measure.time_boot(
            guest, self._compared, self._need_image(), launch, acceleration, deadline, self._place.journal
        )

    def logs(self, guest: Guest) -> dict[str, str]:
        return evidence.gather(guest, self._container, self._contract)

    def follow(self, guest: Guest, tell: Tell) -> None:
        promised = self._contract
        self._container.watch(guest, [promised.log(name) for name in promised.device_logs], tell)

    def prove(self, adb_address: str, adb_folder: Path, deadline: Deadline) -> NestedProof:
        server = AdbServer(adb_folder, self._place.journal)

        def answer() -> NestedProof:
            with tempfile.TemporaryDirectory(prefix="lab-cpuid-") as folder:
                programs = []
                for name, content in within.PROGRAMS.items():
                    programs.append(Path(folder) / name)
                    programs[-1].write_bytes(content)
                    programs[-1].chmod(0o755)
                words = ["push", *map(str, programs), within.PUSHED]
                proc.run(
                    server.command(adb_address, *words, deadline=deadline), deadline=deadline, check=False
                )
            proof = within.proof(server.shell(adb_address, "sh", "-c", within.QUESTION, deadline=deadline))
            if proof is None:
                raise NotYet("it does not run the program that reads CPUID")
            return proof

        return poll(answer, deadline, f"L2's answer at {adb_address}")

    def health(self, reach: Reach) -> Health:
        self._watch.everything(reach)
        return self._judged(reach)

    def wait(
        self, reach: Reach, stage: Literal["booted", "usable"], step: Step | None, deadline: Deadline
    ) -> Health:
        def judge(late: bool) -> Health:
            return self._judged(reach, late=late)

        return waiting.until(stage, reach, self._container, self._watch, judge, step, deadline)

    def screenshot(self, reach: Reach) -> bytes:
        picture = looking.screenshot(self._server(reach), reach.addresses["adb"], Deadline.after(60))
        try:
            reading.screen(picture)
        except ValueError as error:
            raise LabError(str(error), tail=picture[:500].decode(errors="replace")) from error
        return picture

    def install(self, reach: Reach, apk: Path, step: Step, deadline: Deadline) -> str:
        return apps.install(self._server(reach), reach.addresses["adb"], apk, step, deadline)

    def browser_url(self, reach: Reach) -> str:
        # Behind the #: a browser keeps that to itself, and the page's server never logs it.
        page = f"http://{reach.addresses['novnc']}/vnc.html?autoconnect=true&resize=scale"
        secret = password.known(self._place.secrets) if self._contract.has_password else ""
        return f"{page}#password={urllib.parse.quote(secret)}" if secret else page

    def _require_room(self, image_bytes: int | None) -> None:
        room.require(self._options, image_bytes, self._place.vm_memory_mib, self._place.vm_disk_gib)

    def _launch(self, secret: str, nonce: str) -> within.AndroidLaunch:
        publish = {self._services[name]: port for name, port in self.ports.items()}
        return within.AndroidLaunch(self._options, secret, nonce, publish)

    def _judged(self, reach: Reach, *, late: bool = False) -> Health:
        image = self._found()
        return health.health(
            list(self._watch.seen),
            self._watch.stages,
            nonce=reach.nonce,
            image=self.image_id(),
            version=contract.version(image.archive.reference if image else self._options.image),
            late=late,
            telemetry_off=not contract.reports(self._contract, self._options.env),
        )

    def _server(self, reach: Reach) -> AdbServer:
        return AdbServer(reach.adb_folder, self._place.journal)

    def _found(self) -> image.AndroidImage | None:
        if self._image is None:
            self._image = image.find(self._options, self._place.cache, self._place.state)
        return self._image

    def _need_image(self) -> image.AndroidImage:
        if self._image is None:
            self._image = image.need(self._options, self._place.cache, self._place.state)
        return self._image

    def _forget(self) -> None:
        """Another image may have another contract."""
        for name in ("_transfer", "_contract", "_watch"):
            self.__dict__.pop(name, None)

    @cached_property
    def _contract(self) -> contract.Contract:
        image = self._found()
        return contract.of(image.archive.reference if image else self._options.image)

    @cached_property
    def _watch(self) -> Watch:
        return Watch(self._container.name, self._contract, self._place.journal)

    def _parse(self, inspected: Mapping[str, Any] | None) -> ContainerState:
        return reading.state(inspected)

    @cached_property
    def _transfer(self) -> Transfer:
        return Transfer(self._need_image().archive, self._place.journal)
