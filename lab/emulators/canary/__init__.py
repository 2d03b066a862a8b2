"""The canary: a container whose payload is a real L2 answering ADB. It is not Android."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lab.adb import AdbServer
from lab.core.deadline import Deadline, cleaning_up
from lab.core.errors import BlockedError, InconclusiveError
from lab.core.steps import Step
from lab.emulators.base import ContainerEmulator
from lab.emulators.canary import console
from lab.emulators.canary.container import DEVICE, ENTRYPOINT, launch, parse, until_told
from lab.emulators.container import ending, killed_for_memory
from lab.emulators.options import Place
from lab.emulators.protocol import ContainerState, NestedProof
from lab.emulators.transfer import ImageArchive, Transfer
from lab.guest.ssh import Guest
from lab.images import canary as recipe
from lab.images.cache import CachedImage, check
from lab.images.canary_recipe import ARM, MACHINES, X86, CanaryBuild

__all__ = ["Canary"]


class Canary(ContainerEmulator):
    """The canary of one lab: its machine's own, unless another is named.

    See lab.emulators.protocol.Emulator for what each method promises.
    """

    name = "canary"
    own_clock = True

    def __init__(self, place: Place, build: CanaryBuild | None = None) -> None:
        super().__init__(place, {"adb": recipe.ADB_PORT})
        self._build = build or (ARM if place.arm64 else X86)
        self._image: CachedImage | None = None

    def image_id(self) -> str:
        image = self._found()
        name = self._build.name
        return f"{name}@{recipe.facts(image)['image_id']}" if image else f"{name} (not built)"

    def prepare(self, step: Step) -> None:
        image = self._found()
        if image is None:
            mirror = self._place.debian_mirror()
            image = self._image = recipe.build(self._place.cache, step, mirror, self._build)
        check(image)
        step.result = f"{image.id}, {image.manifest.bytes / 1e6:.0f} MB"

    def start(self, guest: Guest, step: Step, *, nonce: str) -> None:
        launch(self._container, guest, self._reference(), nonce=nonce, publish=self.ports["adb"])
        step.result = self._container.name

    def runs_with(self, state: ContainerState, nonce: str) -> bool:
        if not state.running or state.facts.get("nonce") != nonce or _changed(state):
            return False
        # By its content: anything may have been given the image's name since.
        return self._found() is not None and self._transfer.named(state.image)

    def booted(self, guest: Guest, deadline: Deadline) -> NestedProof:
        self._must_be_labs(guest)
        log, state = until_told(self._container, guest, deadline)
        proof = console.proof(log, out_of_memory=killed_for_memory(state))
        if not state.running:  # its log still says that L2 was ready once, and then why it ended
            console.proof(
                self._container.follow(guest, (console.FAILED,), deadline)[0],
                out_of_memory=killed_for_memory(state),
            )
            raise InconclusiveError(
                f"the container {self._container.name} ended after L2 had been ready ({ending(state)})",
                hint="`invoke lab.up` starts it again",
            )
        return proof

    def time_boot(self, guest: Guest, acceleration: Literal["kvm", "tcg"], deadline: Deadline) -> float:
        try:
            launch(self._compared, guest, self._reference(), nonce="compare", accel=acceleration)
            log, state = until_told(self._compared, guest, deadline)
            lost = killed_for_memory(state)
            return console.seconds(log, acceleration, machine=MACHINES[self._build.l2], out_of_memory=lost)
        finally:
            with cleaning_up():
                self._compared.remove(guest)

    def logs(self, guest: Guest) -> dict[str, str]:
        logs = super().logs(guest)
        return logs | {"l2-console.log": console.of_l2(logs["container.log"])}

    def prove(self, adb_address: str, adb_folder: Path, deadline: Deadline) -> NestedProof:
        # What answers is not waited for to say something else: an L2 tells in its log, last of all, that
        # its boot is over, and that was read before.
        server = AdbServer(adb_folder, self._place.journal)
        return console.properties(server.shell(adb_address, "getprop", deadline=deadline))

    def _must_be_labs(self, guest: Guest) -> None:
        """Raise InconclusiveError for another container than lab starts: whatever that says shows nothing."""
        state = self.state(guest)
        if not state.exists:
            return  # its log is not there either: that is told with the rest
        other = _changed(state)
        if not other and not self._transfer.is_image(guest, state.image):
            other = f"its image is not lab's canary of today ({state.image[:19]})"
        if other:
            raise InconclusiveError(
                f"what runs as {self._container.name} is not what lab starts: {other}",
                hint="`invoke lab.up` starts it anew",
            )

    def _found(self) -> CachedImage | None:
        if self._image is None:
            self._image = recipe.find(self._place.cache, self._build)
        return self._image

    def _need_image(self) -> CachedImage:
        image = self._found()
        if image is None:
            raise BlockedError("the canary's image is not built", hint="`invoke image.build` builds it")
        return image

    def _parse(self, inspected: Mapping[str, Any] | None) -> ContainerState:
        return parse(inspected)

    @cached_property
    def _transfer(self) -> Transfer:
        image = self._need_image()
        facts, manifest = recipe.facts(image), image.manifest
        return Transfer(
            ImageArchive(
                image.path, manifest.sha256, facts["reference"], facts["image_id"], (facts["layer"],)
            ),
            self._place.journal,
        )

    def _reference(self) -> str:
        return recipe.facts(self._need_image())["reference"]


def _changed(state: ContainerState) -> str:
    """How the container was started otherwise than lab starts one with KVM; empty when it was not."""
    if (command := state.facts["command"]) != ENTRYPOINT:
        return f"it runs `{command}`"
    if DEVICE not in state.facts["devices"].split():
        return f"it was not given {DEVICE}"
    if state.running and state.facts["restarted"]:
        return "somebody started it again, and its log tells of the start before"
    return ""
