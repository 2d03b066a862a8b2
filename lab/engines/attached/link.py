"""What the engine keeps in a lab's folder: which machine the lab is, and what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lab.core import files, system
from lab.core.errors import LabError
from lab.engines.attached.way import SshWay
from lab.host.facts import HostFacts

FILE = "attached.json"
SSH_CONFIG = "ssh_config"
"""lab's own configuration of the way to the machine."""


class Docker(BaseModel):
    """The Docker in the machine, as its user reaches it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Docker", "rootless Docker", "Podman"]
    version: str
    host: str = ""
    """DOCKER_HOST, where the client does not find it by itself."""
    by_sudo: bool = False
    """Only root reaches it, and the user may be root without a password."""

    def __str__(self) -> str:
        return f"{self.kind} {self.version}" + (" by sudo" if self.by_sudo else "")


class MachineFacts(BaseModel):
    """What the machine is, as it was looked at last."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    host: dict[str, object]
    """lab.host.facts.HostFacts of it, as JSON."""
    virtualization: str = ""
    """systemd-detect-virt's word, `none` on real hardware; empty where it is not there to be asked."""
    under: str = ""
    """What it is a VM of, such as KVM or Hyper-V; empty on real hardware, `?` where not known."""
    wsl: bool = False
    nested: str = ""
    """The parameter `nested` of its own KVM module."""
    python: str = ""

    @property
    def facts(self) -> HostFacts:
        return TypeAdapter(HostFacts).validate_python(self.host)


class AttachedLink(BaseModel):
    """`way` is None for the machine that lab itself runs on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    destination: str
    """As the user named it; empty for this very machine."""
    way: SshWay | None = None
    key: Path | None = None
    """What opens it: a private key, or the public half of one that the agent has."""
    ports_from: int = 0
    """Added to the ports of the emulators' services: what is published there must be free there."""
    docker: Docker | None = None
    about: MachineFacts | None = None
    python: tuple[str, ...] = ()
    """What starts the Python that lab brought there; empty: the machine's own will do."""
    installs_docker: bool = False
    """lab was asked to install Docker there, and began to."""
    kvm_by_sudo: bool = False
    """Only root may use /dev/kvm there, and the user may be root without a password."""

    @property
    def here(self) -> bool:
        return self.way is None

    @property
    def whose(self) -> str:
        """What makes it this machine and no other."""
        return f"{self.way.machine.host}:{self.way.machine.port}" if self.way else "this machine"

    def __str__(self) -> str:
        return str(self.way) if self.way else "this machine"


def read(folder: Path) -> AttachedLink | None:
    """The link in an engine's folder of a lab, or None. Raises LabError for one that is damaged."""
    try:
        with system.explained(folder):
            raw = files.read_json(folder / FILE)
        return None if raw is None else AttachedLink.model_validate(raw)
    except (ValidationError, ValueError) as error:
        raise LabError(
            f"{folder / FILE} cannot be read",
            tail=str(error),
            hint="`invoke lab.attach` with the same machine writes it anew",
        ) from error


def write(folder: Path, link: AttachedLink) -> None:
    """Write the link. Written before anything is made in the machine: `lab.detach` goes by it."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / FILE, link.model_dump(mode="json"))
