"""What every command is given: settings, steps, the store; and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rich.console import Console, RenderableType

from lab.config import Settings
from lab.core.deadline import Deadline
from lab.core.errors import ExitCode
from lab.core.showing import show
from lab.core.steps import Steps
from lab.engines.options import QEMU, Acceleration, Options, QemuOptions, VirtualBoxOptions
from lab.engines.protocol import Engine
from lab.host.facts import HostFacts
from lab.host.identity import host_id
from lab.host.packages import Purpose
from lab.model.document import JsonDocument
from lab.records.labs import Store
from lab.workflow.factories import REAL, Factories

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder: lab.toml, images/, docs/schemas/."""


@dataclass
class Session:
    """What a task is given: settings, a way to tell of its steps, a person to ask, the world outside."""

    settings: Settings
    steps: Steps
    interactive: bool
    """True when a person at a terminal can be asked."""
    ask: Callable[[str], bool] = lambda _question: False
    """Ask a person something that is answered by yes or no."""
    ask_for: Callable[[str], str] = lambda _question: ""
    """Ask a person for a line of text; empty when none is given."""
    factories: Factories = REAL
    evidence: Path | None = None
    """The evidence folder of the run at work, once there is one: errors name it."""
    again: str = "run the same command again: it goes on where this one stopped"
    """What is said when it is interrupted. Commands that measure or look say something else."""

    @property
    def store(self) -> Store:
        return Store(self.settings.state_dir)

    def need(self, purposes: Collection[Purpose]) -> None:
        """Have the system packages for `purposes`, installing what is missing where that is allowed.

        Raises BlockedError with the exact command where it is not.
        """
        self.factories.install(
            purposes,
            policy=self.settings.install,
            steps=self.steps,
            deadline=Deadline.after(self.settings.deadlines.docker),
            interactive=self.interactive,
            ask=self.ask,
            cache_dir=self.settings.cache_dir,
            instead={QEMU: self.settings.qemu.binary, "bochs": self.settings.rehearsal.bochs},
        )

    @property
    def kernel(self) -> Path | None:
        """A kernel of an image lab built, for the probe of the host's KVM."""
        from lab.images import debian  # no other task needs what it takes to build one

        return debian.kernel(self.images)

    def engine(self, name: str, acceleration: Acceleration | None = None) -> Engine:
        """The engine of that name; `acceleration` is a lab's own. Raises UsageError for an unknown name."""
        return self.factories.engine(name, self.engine_options(acceleration))

    def engine_options(self, acceleration: Acceleration | None = None) -> Options:
        """What engines are made with; `acceleration` is a lab's own, kept from when it was made."""
        qemu, virtualbox = self.settings.qemu, self.settings.virtualbox
        return Options(
            self.settings.cache_dir,
            QemuOptions(acceleration or qemu.acceleration, qemu.binary, self.kernel),
            VirtualBoxOptions(
                virtualbox.home,
                virtualbox.python,
                virtualbox.execution_engine,
                virtualbox.extra_data,
                virtualbox.transport,
            ),
        )

    def host(self, facts: HostFacts | None = None) -> dict[str, str]:
        """This host as a measurement names it, or the one that `facts` are of."""
        host, pc = facts or self.factories.host(), self.settings.rehearsal.pc
        named = {"os": f"{host.os} {host.os_version}".strip(), "cpu": host.cpu.model, "arch": host.arch}
        return named | ({"pc": pc} if pc else {})

    @property
    def host_id(self) -> str:
        """By which this host is told from others, made once. Raises DamagedFileError, OSError."""
        return host_id(self.settings.state_dir)

    @property
    def history_file(self) -> Path:
        """The database of every night (lab.history); there is none before the first one."""
        return self.settings.state_dir / "history.db"

    @property
    def images(self) -> Path:
        """The image cache."""
        return self.settings.cache_dir / "images"


@dataclass
class Reply:
    """A command's answer: `document` for --json, `show` for a person, `code` for the shell."""

    document: dict[str, Any] = field(default_factory=dict)
    show: Callable[[Console], None] | None = None
    code: int = ExitCode.DONE

    @classmethod
    def of(cls, document: JsonDocument, *shown: RenderableType, code: int = ExitCode.DONE) -> Self:
        """An answer of which a person is shown `shown`: lines, tables."""
        return cls(document.as_json(), lambda console: show(console, *shown), code)
