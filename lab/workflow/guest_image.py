"""The guest image of a lab: which one, and having it in the cache."""

from __future__ import annotations

from lab import engines
from lab.config.model import GUEST_IMAGES, PUBLISHED
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError
from lab.host.packages import Purpose
from lab.images import cache, debian
from lab.images.published import PublishedImage
from lab.records.record import Record
from lab.workflow.session import Session

UBUNTU = "ubuntu-24.04"
DEBIAN = "debian-13"
ASKED_FOR = "asked for"
_REACH_SECONDS = 3.0


def guest_image(session: Session, record: Record) -> tuple[str, str]:
    """(image id, why) of the guest image, fetched or built when it is not cached.

    `auto` means Ubuntu if it is cached or can be reached, else Debian.
    Raises UsageError (a wrong manifest), and BlockedError among what a fetch and a build raise.
    """
    if record.image:
        if entry := cache.find(session.images, record.image):
            cache.check(entry)
            return record.image, record.image_why
        raise BlockedError(
            f"the image {record.image} that lab {record.name} stands on is gone from the cache",
            hint=f"`invoke lab.up --name {record.name} --fresh` makes the lab anew",
        )
    kind, why = image_kind(session, record.engine)
    if kind != DEBIAN:
        known = session.factories.published(kind, record.engine).find(session.images)
        return (known.name if known else published_image(session, kind, record.engine)), why
    if why != ASKED_FOR:
        session.steps.note(f"image: {DEBIAN}, because {why}")
    return debian_image(session), why


def image_kind(session: Session, engine: str) -> tuple[str, str]:
    """Which guest image a new lab is given, and why; nothing is fetched or built.

    Raises BlockedError when it cannot be had.
    """
    wanted = session.settings.image
    if wanted == DEBIAN:
        return DEBIAN, ASKED_FOR
    name = UBUNTU if wanted == "auto" else wanted
    image = session.factories.published(name, engine)
    if image.find(session.images):
        return name, ASKED_FOR if wanted == name else "cached"
    unreachable = image.reachable(_REACH_SECONDS)
    if unreachable is None:
        return name, ASKED_FOR if wanted == name else "its server can be reached"
    foreign = bool(session.factories.impossible({"build-image"}))
    if wanted == name or (foreign and debian.find(session.images) is None):
        other = ", or use `--image debian-13`, built from this machine's apt sources"
        raise BlockedError(
            f"the image {name} is not cached, and its server cannot be reached: {unreachable}",
            hint="check the network" + ("" if foreign else other),
        )
    return DEBIAN, f"{name} is not cached and cannot be reached ({unreachable})"


def must_hold_image(session: Session, engine: str, disk_gib: int) -> None:
    """Raise UsageError for a disk that is smaller than the image it begins with."""
    least = debian.recipe().disk.size_gib  # what is published is smaller than any disk that can be set
    if disk_gib < least and image_kind(session, engine)[0] == DEBIAN:
        raise UsageError(
            f"a disk of {disk_gib} GiB is smaller than the image {DEBIAN} ({least} GiB)",
            hint=f"set vm.disk_gib = {least} or more",
        )


def purposes(session: Session, engine: str, image: str = "") -> frozenset[Purpose]:
    """All that a lab on this engine needs of the host, so that it is asked for at once.

    `image` is the one it stands on, empty while it has none. Raises BlockedError where none can be had.
    """
    wanted = engines.kind(engine).purposes
    return wanted | {"build-image"} if not image and _to_be_built(session, engine) else wanted


def _to_be_built(session: Session, engine: str) -> bool:
    """Whether guest_image() would build the image here."""
    if session.settings.image not in ("auto", DEBIAN) or debian.find(session.images) is not None:
        return False
    return image_kind(session, engine)[0] == DEBIAN


def published(name: str, engine: str) -> PublishedImage:
    """The image whose manifest is `name`.toml, in the format the engine reads: VirtualBox a VMDK, every other
    a qcow2. Raises UsageError.
    """
    if name not in PUBLISHED:
        raise UsageError(f"{name} is not a published image", hint=f"there are: {', '.join(PUBLISHED)}")
    manifest = GUEST_IMAGES / f"{name}.toml"
    image = PublishedImage(manifest, engines.kind(engine).disk_format)
    if image.name != name:
        raise UsageError(f"{manifest} is of an image named {image.name}", hint=f"name it {image.name}.toml")
    return image


def published_image(session: Session, name: str, engine: str) -> str:
    with session.steps.step("image.fetch", name) as step:
        deadline = Deadline.after(session.settings.deadlines.download)
        return session.factories.published(name, engine).fetch(session.images, step, deadline).name


def is_own(image_id: str) -> bool:
    """Whether the guest image is lab's recipe, and ready at the first login; another one sets itself up."""
    return cache.name_of(image_id) == DEBIAN


def debian_image(session: Session) -> str:
    """The cached Debian image of today's recipe, or a new one."""
    image = debian.find(session.images)
    if image is None:
        session.need({"build-image"})  # asked for already, unless Ubuntu's server went away meanwhile
        with session.steps.step("image.build", DEBIAN) as step:
            image = debian.build(session.images, step)
    return image.name
