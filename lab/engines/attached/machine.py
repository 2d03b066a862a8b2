"""One machine that is somebody's: lab looks at it, and neither starts nor ends it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, InconclusiveError, UsageError
from lab.engines.attached import link as links
from lab.engines.attached import way, words
from lab.engines.attached.forwarding import Forwards
from lab.engines.attached.link import AttachedLink
from lab.engines.protocol import Forward, MachineSpec, Snapshot, State

_ANSWER_SECONDS = 15.0


class AttachedMachine:
    """lab.engines.protocol.Machine of a machine that lab did not make.

    What is done to a machine as a whole (stop, suspend, snapshot, destroy) raises UsageError.
    """

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec

    # What lab does not do to somebody's machine

    def create(self) -> None:
        """Nothing: it is there."""

    def start(self, forwards: Sequence[Forward]) -> None:
        """Nothing but the forwards: it runs, or nobody but its owner can start it."""
        for forward in forwards:
            self.add_forward(forward)

    def stop(self, deadline: Deadline) -> Literal["graceful", "forced", "already"]:  # noqa: ARG002
        self._refuse("powers it off", "`invoke emulator.down` ends the emulator")

    def suspend(self) -> None:
        self._refuse("suspends it", "`invoke emulator.down` ends the emulator")

    def resume(self, forwards: Sequence[Forward]) -> None:  # noqa: ARG002
        self._refuse("resumes it", "`invoke lab.up` starts the emulator")

    def snapshot(self, name: str) -> None:  # noqa: ARG002
        self._refuse("takes snapshots of it", "its hypervisor may, if it has one")

    def restore(self, name: str, forwards: Sequence[Forward]) -> None:  # noqa: ARG002
        self._refuse("restores it", "its hypervisor may, if it has one")

    def snapshots(self) -> list[Snapshot]:
        self._refuse("takes snapshots of it", "its hypervisor may, if it has one")

    def destroy(self) -> None:
        self._refuse("destroys it", f"`invoke lab.detach --name {self.spec.name}` takes away what lab made")

    def console(self) -> Path:
        self._refuse("sees its console", f"`invoke lab.exec --name {self.spec.name} -- journalctl --boot`")

    def screenshot(self, target: Path) -> None:  # noqa: ARG002
        self._refuse("sees its screen", "`invoke lab.open` shows the emulator's")

    # What is

    def status(self) -> State:
        """Running, when its SSH server answers. Raises InconclusiveError when it does not."""
        link = links.read(self.spec.folder)
        if link is None:
            return State.ABSENT
        if link.way is not None:
            try:
                way.greets(link.way, self._config, Deadline.after(_ANSWER_SECONDS))
            except (OSError, DeadlineError) as error:
                raise InconclusiveError(
                    f"{link.way} does not answer: {_why(error)}",
                    hint=f"is it on, and in reach? `ssh {link.destination}` says more",
                ) from error
        return State.RUNNING

    def forwards(self) -> list[Forward]:
        """Those that are open; the machine that lab runs on needs none."""
        return [] if self._link.here else self._forwards.all()

    def add_forward(self, forward: Forward) -> None:
        if not self._link.here:
            self._forwards.open(forward)

    def remove_forward(self, name: str) -> None:
        if not self._link.here:
            self._forwards.close(name)

    def settings(self) -> dict[str, str]:
        """What the machine is: nothing of it is lab's doing."""
        about = self._link.about
        if about is None:
            return {}
        facts = about.facts
        return {
            "cpus": str(facts.cpus),
            "memory_mib": str(facts.memory_total >> 20),
            "nested": "on" if facts.cpu.extensions else "off",
            "paravirt": self.spec.paravirt,
            "acceleration": words.acceleration(about),
            "machine": words.described(about),
        }

    def logs(self) -> list[Path]:
        return sorted(self.spec.folder.glob("forward-*.log"))

    @property
    def _config(self) -> Path:
        return self.spec.folder / links.SSH_CONFIG

    @property
    def _forwards(self) -> Forwards:
        return Forwards(self.spec.folder, self._config, self.spec.uuid)

    @property
    def _link(self) -> AttachedLink:
        link = links.read(self.spec.folder)
        if link is None:
            raise UsageError(
                f"lab {self.spec.name} does not say which machine it is",
                hint=f"`invoke lab.attach --ssh DESTINATION --name {self.spec.name}` tells it",
            )
        return link

    def _refuse(self, deed: str, hint: str) -> NoReturn:
        raise UsageError(f"lab {self.spec.name} is somebody's machine, and lab never {deed}", hint=hint)


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
