"""The canary: a container whose payload is a real L2 answering ADB. It is not Android."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lab.adb import AdbServer
from lab.deadline import Deadline, NotYet, poll
from lab.emulators.canary import console
from lab.emulators.canary.container import Container
from lab.emulators.canary.transfer import Transfer
from lab.emulators.protocol import ContainerState, NestedProof
from lab.errors import BlockedError, InconclusiveError
from lab.guest.ssh import Guest
from lab.images import canary as recipe
from lab.images.cache import CachedImage, check
from lab.journal import Journal
from lab.steps import Step

CONTAINER = "lab-canary"
COMPARED = "lab-canary-compared"
_ASK = ("sh", "-c", "getprop; cat /proc/uptime")

__all__ = ["Canary", "CONTAINER", "COMPARED"]


class Canary:
    """The canary of one lab. See lab.emulators.protocol.Emulator for what each method promises."""

    name = "canary"
    android = False
    adb_port = recipe.ADB_PORT

    def __init__(self, *, lab_uuid: str, cache: Path, journal: Journal) -> None:
        self._uuid = lab_uuid
        self._cache = cache
        self._journal = journal
        self._image: CachedImage | None = None

    def image_id(self) -> str:
        image = self._found()
        return f"{self.name}@{recipe.facts(image)['image_id']}" if image else f"{self.name} (not built)"

    def prepare(self, step: Step) -> None:
        image = self._found()
        if image is None:
            image = self._image = recipe.build(self._cache, step)
        check(image)
        step.result = f"{image.id}, {image.manifest.bytes / 1e6:.0f} MB"

    def upload(self, guest: Guest, step: Step) -> None:
        Transfer(self._need_image()).upload(guest, step)

    def load(self, guest: Guest, step: Step) -> None:
        Transfer(self._need_image()).load(guest, step)

    def start(self, guest: Guest, step: Step, *, nonce: str) -> None:
        container = Container(CONTAINER, self._uuid)
        container.remove(guest)
        container.run(guest, self._reference(), nonce=nonce, publish=self.adb_port)
        step.result = CONTAINER

    def runs_with(self, state: ContainerState, nonce: str) -> bool:
        if not state.running or state.facts.get("nonce") != nonce:
            return False
        image = self._found()
        return image is not None and state.facts.get("reference") == recipe.facts(image)["reference"]

    def booted(self, guest: Guest, deadline: Deadline) -> NestedProof:
        container = Container(CONTAINER, self._uuid)
        proof = console.proof(container.follow(guest, deadline))
        state = container.state(guest)
        if not state.running:  # its log still says that L2 was ready once
            raise InconclusiveError(
                f"the container {CONTAINER} ended after L2 had been ready (exit code {state.exit_code})",
                hint="`invoke lab.up` starts it again",
            )
        return proof

    def time_boot(self, guest: Guest, acceleration: Literal["kvm", "tcg"], deadline: Deadline) -> float:
        container = Container(COMPARED, self._uuid)
        container.remove(guest)
        try:
            container.run(guest, self._reference(), nonce="compare", accel=acceleration)
            return console.seconds(container.follow(guest, deadline), acceleration)
        finally:
            container.remove(guest)

    def state(self, guest: Guest) -> ContainerState:
        return Container(CONTAINER, self._uuid).state(guest)

    def logs(self, guest: Guest) -> dict[str, str]:
        container = Container(CONTAINER, self._uuid)
        text = container.log(guest)
        return {
            "container.log": text,
            "container-inspect.json": container.inspect_text(guest),
            "l2-console.log": console.of_l2(text),
        }

    def stop(self, guest: Guest) -> None:
        for name in (CONTAINER, COMPARED):
            Container(name, self._uuid).remove(guest)

    def prove(self, adb_address: str, adb_folder: Path, deadline: Deadline) -> NestedProof:
        server = AdbServer(adb_folder, self._journal)

        def answer() -> NestedProof:
            told = server.shell(adb_address, *_ASK, deadline=deadline)
            proof, is_canary = console.properties(told)
            # Another adbd will not become this L2 by waiting: let the ladder see what it said.
            if is_canary and not proof.boot_completed:
                raise NotYet("sys.boot_completed is not 1 yet")
            return proof

        return poll(answer, deadline, f"the end of L2's boot at {adb_address}")

    def _found(self) -> CachedImage | None:
        if self._image is None:
            self._image = recipe.find(self._cache)
        return self._image

    def _need_image(self) -> CachedImage:
        image = self._found()
        if image is None:
            raise BlockedError("the canary's image is not built", hint="`invoke image.build` builds it")
        return image

    def _reference(self) -> str:
        return recipe.facts(self._need_image())["reference"]
