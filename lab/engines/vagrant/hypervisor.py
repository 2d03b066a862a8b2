"""What the providers' hypervisors have in common, as far as lab asks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lab.engines.protocol import Forward, State


class Hypervisor(Protocol):
    """One machine at its hypervisor, known by the id Vagrant keeps. Methods raise LabError."""

    def state(self) -> State: ...

    def settings(self) -> dict[str, str]:
        """As lab.engines.protocol.Machine has it; the machine runs."""

    def forwards(self, names: Mapping[tuple[int, int], str]) -> list[Forward]:
        """The loopback's forwards of the running machine; `names` by (host port, guest port)."""

    def why_no_forwards(self) -> str:
        """Why the running machine can be given no forward; empty when it can."""

    def add_forward(self, forward: Forward) -> str:
        """Ask for one more on the running machine; what it said. It lasts until the machine ends.

        An answer that is not about the host's port is an error.
        """

    def remove_forward(self, forward: Forward) -> None: ...

    def screenshot(self, target: Path) -> None: ...

    def logs(self) -> Sequence[Path]: ...
