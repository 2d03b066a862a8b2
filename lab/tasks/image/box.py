"""image.box: the cached image as a Vagrant box."""

from __future__ import annotations

import time

from lab import emulators
from lab.core.errors import BlockedError, UsageError
from lab.documents.images import ImageAction, ImageResult
from lab.engines.vagrant import PROVIDERS, Provider, engine_of
from lab.engines.vagrant import box as boxes
from lab.engines.vagrant.box import VagrantBox
from lab.images import cache
from lab.records.record import Record, new_record
from lab.workflow.session import Reply, Session


def check_provider(name: str) -> Provider:
    """A provider lab knows. Raises UsageError."""
    if name in PROVIDERS:
        return name
    raise UsageError(f"lab knows no Vagrant provider {name!r}", hint=f"one of {', '.join(PROVIDERS)}")


def make(session: Session, provider: Provider, record: Record) -> VagrantBox:
    """The box of the image that `record` stands on, or would stand on."""
    image_id, _ = session.factories.guest_image(session, record)
    image = cache.find(session.images, image_id)
    if image is None:
        raise BlockedError(f"the image {image_id} is gone from the cache", hint="`invoke image.build`")
    session.need({"convert-disk"})
    with session.steps.step("image.box", f"{image_id} for {provider}") as step:
        made = boxes.ensure(session.settings.cache_dir, image, provider, record.disk_gib, step)
        step.result = f"{made.path} ({'made' if made.made else 'cached'})"
    return made


def box(session: Session, provider: str) -> Reply:
    """Make the box of the image that `vagrant up` starts, unless it is there, and hash it."""
    started = time.monotonic()
    known = check_provider(provider)
    made = make(session, known, blank(session, known))
    with session.steps.step("image.verify", made.path.name):
        boxes.verify(made)
    row = ImageResult(
        id=made.path.name,
        kind="box",
        name=made.name,
        result="built" if made.made else "cached",
        bytes=made.bytes,
        sha256=made.sha256,
        why=str(made.path),
    )
    done = ImageAction(
        action="box",
        results=[row],
        seconds=round(time.monotonic() - started, 3),
        notes=[f"`vagrant box add {made.name} {made.path}` is what `vagrant up` does with it"],
    )

    return Reply.of(done, f"{row.result:<9} {made.name}: {made.path}")


def blank(session: Session, provider: Provider) -> Record:
    """A record of no lab: what the settings say of the image."""
    settings = session.settings
    return new_record(
        "box",
        engine=engine_of(provider),
        emulator=emulators.NONE,
        cpus=settings.vm.cpus,
        memory_mib=settings.vm.memory_mib,
        disk_gib=settings.vm.disk_gib,
        paravirt=settings.vm.paravirt,
        nested=settings.vm.nested,
    )
