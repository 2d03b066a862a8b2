"""What a session reaches the world by: each a callable, so that a test gives its own and patches nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import emulators, engines
from lab.config import Settings
from lab.core import files
from lab.emulators import Place
from lab.emulators.kind import EmulatorKind
from lab.emulators.protocol import Emulator
from lab.engines.options import Options
from lab.engines.protocol import Engine
from lab.guest.ssh import Guest
from lab.guest.waiting import wait_for_ssh
from lab.host import facts, install, packages
from lab.host.facts import HostFacts
from lab.host.packages import Purpose, Requirement

if TYPE_CHECKING:
    from lab.core.deadline import Deadline
    from lab.host.kvm import KvmAnswer
    from lab.images.published import PublishedImage
    from lab.records.record import Record
    from lab.workflow.session import Session

# What takes long to import is imported by the factory that needs it: `lab.status` needs none of it.


def _kvm(cache_dir: Path, fresh: bool, kernel: Path | None, qemu: str) -> KvmAnswer:
    from lab.host.kvm import functional_probe

    return functional_probe(cache_dir, fresh=fresh, kernel=kernel, qemu=qemu)


def _published(name: str, engine: str) -> PublishedImage:
    from lab.workflow.guest_image import published

    return published(name, engine)


def _arm_canary(place: Place) -> Emulator:
    from lab.emulators.canary import Canary
    from lab.images.canary_recipe import EMULATED_ARM

    return Canary(place, EMULATED_ARM)


def _guest_image(session: Session, record: Record) -> tuple[str, str]:
    from lab.workflow.guest_image import guest_image

    return guest_image(session, record)


@dataclass(frozen=True)
class Factories:
    """The world as the tasks and what they share reach it; the defaults are the real one."""

    engine: Callable[[str, Options], Engine] = engines.engine
    """The engine of a name. Raises UsageError for an unknown one."""
    emulator: Callable[[str, Place], Emulator] = emulators.emulator
    """The emulator of a kind at a place. Raises UsageError for an unknown kind."""
    arm_canary: Callable[[Place], Emulator] = _arm_canary
    """The canary whose L2 is an ARM machine, emulated: for lab.compare, which times its boots."""
    emulator_kind: Callable[[str, Settings], EmulatorKind] = emulators.kind
    """What a kind of emulator says of itself. Raises UsageError for an unknown one."""
    guest: Callable[..., Guest] = Guest
    """L1 over SSH, by port, key and known_hosts; not connected yet."""
    log_in: Callable[[Callable[[], Guest], Deadline, Callable[[], str | None]], Guest] = wait_for_ssh
    """Log in to an L1 that may still boot (lab.guest.waiting.wait_for_ssh)."""
    host: Callable[[], HostFacts] = facts.read
    """What this machine is."""
    kvm: Callable[[Path, bool, Path | None, str], KvmAnswer] = _kvm
    """Whether this host's KVM works: by cache folder, whether to ask anew, a kernel to boot, QEMU's name."""
    install: Callable[..., object] = install.ensure
    """Have system packages (lab.host.install.ensure)."""
    impossible: Callable[[Collection[Purpose]], list[Requirement]] = packages.impossible
    """What is absent of all that the purposes need, and cannot be had on this system."""
    require_space: Callable[[Path, int, str], None] = files.require_space
    """Raise BlockedError unless the folder's file system has so many bytes free for a purpose."""
    published: Callable[[str, str], PublishedImage] = _published
    """The published guest image of a name, for an engine. Raises UsageError."""
    guest_image: Callable[[Session, Record], tuple[str, str]] = _guest_image
    """(image id, why) of the image a lab is to stand on (lab.workflow.guest_image.guest_image)."""


REAL = Factories()
