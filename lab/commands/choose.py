"""Choices `auto` leaves to lab: said out loud, and kept in the lab's record."""

from __future__ import annotations

from lab import engines
from lab.commands import consent
from lab.commands.session import Session
from lab.config import Settings
from lab.config.model import GUEST_IMAGES, PUBLISHED, leaves
from lab.deadline import Deadline
from lab.emulators import NONE, AndroidOptions
from lab.emulators.docker_android import image, room
from lab.errors import BlockedError, LabError, UsageError
from lab.host import facts
from lab.images import cache, debian, registry
from lab.images.published import PublishedImage
from lab.images.registry import Reference
from lab.store import Lab, Record, new_record

UBUNTU = "ubuntu-24.04"
DEBIAN = "debian-13"
ASKED_FOR = "asked for"
_REACH_SECONDS = 3.0
_DEFAULTS = ("default", "lab.toml")
"""Origins of values that nobody need have chosen."""


def record_for(session: Session, lab: Lab) -> Record:
    """The lab's record: made from the settings for a new lab, checked against them for an old one."""
    settings = session.settings
    found = lab.read()
    if found is not None:
        _must_agree(settings, found)
        return found
    engine = engine_name(session)
    emulator, why = emulator_kind(session, engine)
    memory_mib, disk_gib = _vm_size(session, emulator)
    record = new_record(
        lab.name,
        engine=engine,
        acceleration=settings.qemu.acceleration,
        emulator=emulator,
        emulator_why=why,
        cpus=settings.vm.cpus,
        memory_mib=memory_mib,
        disk_gib=disk_gib,
        paravirt=settings.vm.paravirt,
        nested=settings.vm.nested,
        docker_package=settings.docker.package,
    )
    lab.create(record)
    return record


def engine_name(session: Session) -> str:
    """The engine asked for, or for `auto` the first that can start a 64-bit VM here, and why.

    The last one is for where none can yet: what it lacks, lab can install.
    """
    if session.settings.engine != "auto":
        return session.settings.engine
    *preferred, last = engines.NAMES
    refusals = []
    for name in preferred:
        engine = engines.engine(name, session.engine_options())
        found = engine.availability()
        if not found.usable:
            refusals.append(f"{name}: {found.why}")
        elif session.settings.vm.nested and not session.interactive and not consent.given(session, engine):
            refusals.append(f"{name}: nobody can be asked whether a nested start may go ahead here")
        else:
            session.steps.note(f"engine: {name} ({found.why})")
            return name
    session.steps.note(f"engine: {last}, because {'; '.join(refusals)}")
    return last


def emulator_kind(session: Session, engine: str) -> tuple[str, str]:
    """The kind of emulator asked for, or what `auto` stands for here; and why."""
    wanted = session.settings.emulator.kind
    if wanted != "auto":
        return wanted, ASKED_FOR
    why_not = _no_android(session, engine)
    kind = "canary" if why_not else "docker-android"
    why = f"{why_not}: the canary is taken" if why_not else "its image is here, or can be fetched"
    session.steps.note(f"emulator: {kind} ({why})")
    return kind, why


def _no_android(session: Session, engine: str) -> str:
    """Why a new lab does not run Android unless that is asked for; empty when it does."""
    android, reasons = session.android_options(), []
    if nesting := _no_hardware_nesting(session, engine):
        reasons.append(nesting)
    if unavailable := _no_image(session, android):
        reasons.append(unavailable)
    else:
        memory, disk, size = _android_size(session)
        reasons += room.lacking(android, size, memory, disk)
    return ", and ".join(reasons)


def _vm_size(session: Session, emulator: str) -> tuple[int, int]:
    """(MiB of memory, GiB of disk) of a new lab's VM: what Android needs, where nothing else was set.

    Raises UsageError for settings that cannot hold it.
    """
    vm, android = session.settings.vm, session.android_options()
    if emulator != "docker-android":
        return vm.memory_mib, vm.disk_gib
    memory, disk, size = _android_size(session)
    if lacking := room.lacking(android, size, memory, disk):
        raise UsageError("; ".join(lacking), hint=room.hint(android, size))
    if (memory, disk) != (vm.memory_mib, vm.disk_gib):
        session.steps.note(f"VM: {memory} MiB of memory and a disk of {disk} GiB, for Android")
    return memory, disk


def _android_size(session: Session) -> tuple[int, int, int | None]:
    """(MiB, GiB, the image's bytes) of a VM for Android; the last is None while the image is not here."""
    settings, android = session.settings, session.android_options()
    found = image.find(android, session.images, settings.state_dir)
    size = found.bytes if found else None
    memory, disk = settings.vm.memory_mib, settings.vm.disk_gib
    if not _is_set(settings, "vm.memory_mib"):
        memory = max(memory, min(room.memory_mib(android), facts.read().memory_total >> 20))
    if not _is_set(settings, "vm.disk_gib"):
        disk = max(disk, room.disk_gib(size))
    return memory, disk, size


def _is_set(settings: Settings, key: str) -> bool:
    """Whether somebody chose the value: lab.toml as it comes says what the defaults are."""
    return settings.origins[key] not in _DEFAULTS or settings.value(key) != leaves()[key].default


def _no_image(session: Session, android: AndroidOptions) -> str:
    try:
        if image.find(android, session.images, session.settings.state_dir) is not None:
            return ""
    except LabError as error:  # what is known of images is damaged, or the name is none
        return f"whether {android.image} is here cannot be told ({error.what})"
    try:
        unreachable = registry.reachable(Reference.parse(android.image), android.registry, _REACH_SECONDS)
    except UsageError as error:
        unreachable = error.what
    return f"{android.image} is not here, and cannot be fetched ({unreachable})" if unreachable else ""


def _no_hardware_nesting(session: Session, engine: str) -> str:
    if not session.settings.vm.nested:
        return "nesting is switched off"
    try:
        nesting = engines.engine(engine, session.engine_options()).facts().nesting
    except LabError as error:  # its rung will say so, too
        return f"{engine} does not say whether it nests ({error.what})"
    if nesting == "hardware":
        return ""
    return f"nesting is {nesting} here: Android would take hours, if it boots at all"


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
    wanted = session.settings.image
    if wanted == DEBIAN:
        return debian_image(session), "asked for"
    name = UBUNTU if wanted == "auto" else wanted
    image = published(name)
    cached = image.find(session.images)
    if cached:
        return cached.name, "asked for" if wanted == name else "cached"
    unreachable = image.reachable(_REACH_SECONDS)
    if unreachable is None:
        return published_image(session, name), "asked for" if wanted == name else "its server can be reached"
    if wanted == name:
        raise BlockedError(
            f"the image {name} is not cached, and its server cannot be reached: {unreachable}",
            hint="check the network, or use `--image debian-13`, built from this machine's apt sources",
        )
    why = f"{UBUNTU} is not cached and cannot be reached ({unreachable})"
    session.steps.note(f"image: {DEBIAN}, because {why}")
    return debian_image(session), why


def to_be_built(session: Session, record: Record) -> bool:
    """Whether guest_image() may build the image here. Asks nobody: `auto` without a cached Ubuntu may."""
    wanted = session.settings.image
    if record.image or wanted not in ("auto", DEBIAN):
        return False
    if wanted == "auto" and published(UBUNTU).find(session.images):
        return False
    return debian.find(session.images) is None


def published(name: str) -> PublishedImage:
    """The image whose manifest is `name`.toml. Raises UsageError."""
    if name not in PUBLISHED:
        raise UsageError(f"{name} is not a published image", hint=f"there are: {', '.join(PUBLISHED)}")
    manifest = GUEST_IMAGES / f"{name}.toml"
    image = PublishedImage(manifest)
    if image.name != name:
        raise UsageError(f"{manifest} is of an image named {image.name}", hint=f"name it {image.name}.toml")
    return image


def published_image(session: Session, name: str) -> str:
    with session.steps.step("image.fetch", name) as step:
        deadline = Deadline.after(session.settings.deadlines.download)
        return published(name).fetch(session.images, step, deadline).name


def is_own(image_id: str) -> bool:
    """Whether the guest image is lab's recipe, and ready at the first login; another one sets itself up."""
    return cache.name_of(image_id) == DEBIAN


def debian_image(session: Session) -> str:
    """The cached Debian image of today's recipe, or a new one."""
    found = debian.find(session.images)
    if found is None:
        with session.steps.step("image.build", DEBIAN) as step:
            found = debian.build(session.images, step)
    return found.name


def _must_agree(settings: Settings, record: Record) -> None:
    """What a flag asks for must be what the lab is; what files say is only for new labs."""
    wanted = {
        "engine": (settings.engine, record.engine),
        "emulator.kind": (settings.emulator.kind, record.emulator),
        "image": (settings.image, cache.name_of(record.image)),
    }
    for key, (value, actual) in wanted.items():
        flagged = settings.origins[key].startswith("flag")
        if flagged and value != "auto" and actual and actual != value:
            raise UsageError(
                f"lab {record.name} has {key.partition('.')[0]} {actual}, not {value}",
                hint="`--fresh` destroys it and makes a new one, or choose another --name",
            )


__all__ = [
    "DEBIAN",
    "NONE",
    "UBUNTU",
    "debian_image",
    "emulator_kind",
    "engine_name",
    "guest_image",
    "is_own",
    "record_for",
]
