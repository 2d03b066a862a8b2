"""What emulators have in common: containers of one image, which is copied into L1 and loaded there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lab.core.steps import Step
from lab.emulators import container
from lab.emulators.container import Container
from lab.emulators.options import Place
from lab.emulators.protocol import ContainerState, Speed, Tell
from lab.emulators.transfer import Transfer
from lab.guest.ssh import Guest


class ContainerEmulator(ABC):
    """A part of lab.emulators.protocol.Emulator, which says what each method promises."""

    name: str
    android = False
    own_clock = False
    memory_mib = 0

    def __init__(self, place: Place, services: Mapping[str, int]) -> None:
        """`services` are ports of the container by name; `adb` is one of them."""
        self._place = place
        self.ports: Mapping[str, int] = place.ports(services)
        self._container = Container(place.container(self.name), place.lab_uuid)
        self._compared = Container(f"{place.container(self.name)}-compared", place.lab_uuid)
        """For boots that are timed."""

    @property
    def double(self) -> bool:
        return False

    @property
    @abstractmethod
    def _transfer(self) -> Transfer:
        """The image's way into L1; always the same object. Raises BlockedError while it is not here."""

    def _parse(self, inspected: Mapping[str, Any] | None) -> ContainerState:
        """What Docker's description of the container says."""
        return container.parse(inspected)

    def boot_seconds(self, speed: Speed) -> float:  # noqa: ARG002
        return 0

    def to_be_fetched(self) -> bool:
        return False

    def upload(self, guest: Guest, step: Step) -> None:
        self._transfer.upload(guest, step)

    def load(self, guest: Guest, step: Step) -> None:
        self._transfer.load(guest, step)

    def state(self, guest: Guest) -> ContainerState:
        return self._parse(self._container.inspect(guest))

    def logs(self, guest: Guest) -> dict[str, str]:
        return self._container.evidence(guest)

    def follow(self, guest: Guest, tell: Tell) -> None:
        self._container.watch(guest, (), tell)

    def stop(self, guest: Guest) -> None:
        for each in (self._container, self._compared):
            each.remove(guest)
