"""What the engine keeps in a lab's folder: which of Vagrant's machines the lab is."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.core import files, system
from lab.core.errors import LabError
from lab.engines.protocol import Forward
from lab.engines.vagrant import Provider

FILE = "vagrant.json"


class VagrantLink(BaseModel):
    """`made` says whether the machine is of lab's own Vagrantfile, and lab's to destroy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path
    """The Vagrantfile's folder."""
    machine: str
    provider: Provider
    made: bool
    forwards: dict[str, tuple[int, int]] = {}
    """The forwards it has: name to host port and guest port."""

    @property
    def whose(self) -> tuple[Path, str, Provider]:
        """What makes it this machine and no other."""
        return self.root, self.machine, self.provider

    @property
    def built_in(self) -> list[Forward]:
        return [Forward(name, *ports) for name, ports in self.forwards.items()]


def read(folder: Path) -> VagrantLink | None:
    """The link in an engine's folder of a lab, or None. Raises LabError for one that is damaged."""
    try:
        with system.explained(folder):
            raw = files.read_json(folder / FILE)
        return None if raw is None else VagrantLink.model_validate(raw)
    except (ValidationError, ValueError) as error:
        raise LabError(
            f"{folder / FILE} cannot be read",
            tail=str(error),
            hint="`invoke lab.attach --vagrant NAME` writes it anew",
        ) from error


def write(folder: Path, link: VagrantLink) -> None:
    files.write_json(folder / FILE, link.model_dump(mode="json"))
