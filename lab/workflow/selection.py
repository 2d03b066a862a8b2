"""Choices `auto` leaves to lab: said out loud, and kept in the lab's record."""

from __future__ import annotations

import contextlib
import sys

from lab import engines
from lab.config import Settings
from lab.config.model import GUEST_IMAGES, PUBLISHED, leaves
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, LabError, UsageError
from lab.emulators import NONE, AndroidOptions
from lab.emulators.docker_android import image, room
from lab.host.packages import Purpose
from lab.images import cache, debian
from lab.images.published import PublishedImage
from lab.images.registry import Reference
from lab.records.labs import Lab, Record, new_record
from lab.workflow import consent
from lab.workflow.session import Session

UBUNTU = "ubuntu-24.04"
DEBIAN = "debian-13"
ASKED_FOR = "asked for"
ANDROID = "docker-android"
_REACH_SECONDS = 3.0
_DEFAULTS = ("default", "lab.toml")
"""Origins of values that nobody need have chosen."""


def record_for(session: Session, lab: Lab, plan: Record | None = None) -> Record:
    """The lab's record: `plan`, or one made from the settings, for a new lab; an old one's is checked
    against them. Raises UsageError."""
    if (known := lab.read()) is not None:
        _must_agree(session.settings, known)
        check_emulator(session, known.emulator)
        return known
    record = plan or planned(session, lab.name)
    lab.create(record)
    return record


def planned(session: Session, name: str) -> Record:
    """The record of a new lab, from the settings; nothing is made. Raises UsageError for what cannot be."""
    settings = session.settings
    engine = engine_name(session)
    emulator, why = emulator_kind(session, engine)
    check_emulator(session, emulator)
    memory_mib, disk_gib = _vm_size(session, emulator)
    must_hold_image(session, engine, disk_gib)
    return new_record(
        name,
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


def check_emulator(session: Session, kind: str) -> None:
    """Raise UsageError for settings that an emulator of this kind cannot be started with."""
    if kind == ANDROID:
        image.check(session.android_options())


def engine_name(session: Session) -> str:
    """The engine asked for, or for `auto` the first that can start a 64-bit VM here, and why.

    The last one is for where none can yet: what it lacks, lab can install. On a Mac with VirtualBox, which
    the theory is about, it is not taken in its place. Raises BlockedError there, with VirtualBox's reason.
    """
    if session.settings.engine != "auto":
        return session.settings.engine
    *preferred, last = engines.automatic()
    refusals = []
    for name in preferred:
        engine = session.engine(name)
        found = engine.availability()
        if found.broken and sys.platform == "darwin":
            raise BlockedError(
                f"{name} is installed here and cannot be used: {found.why}",
                hint=f"{found.hint}; another engine, which is not what the theory is about: "
                f"`--engine {last}`".removeprefix("; "),
            )
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
    """The kind of emulator asked for, or what `auto` stands for here; and why.

    `auto` asks the engine, and has it installed for that. Raises BlockedError where a person refused.
    """
    wanted = session.settings.emulator.kind
    if wanted != "auto":
        return wanted, ASKED_FOR
    why_not = _not_installed(session, engine) or _no_android(session, engine)
    kind = "canary" if why_not else ANDROID
    why = f"{why_not}: the canary is taken" if why_not else "its image is here, or can be fetched"
    session.steps.note(f"emulator: {kind} ({why})")
    return kind, why


def _not_installed(session: Session, engine: str) -> str:
    """Have the engine installed: one that is still to be says nothing of itself. Why it cannot be, if so."""
    with contextlib.suppress(LabError):
        if session.engine(engine).availability().usable:
            return ""
    try:
        session.need(purposes(session, engine))
    except BlockedError as error:  # the rung host.engine ends in it, with the command to type
        if session.interactive:
            raise  # a person was asked, and is not asked the same again
        return f"{engine} cannot be asked whether it nests ({error.what})"
    return ""


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
    if emulator != ANDROID:
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
        memory = max(memory, min(room.memory_mib(android), session.factories.host().memory_total >> 20))
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
        reference, ask = Reference.parse(android.image), session.factories.registry_unreachable
        unreachable = ask(reference, android.registry, _REACH_SECONDS)
    except UsageError as error:
        unreachable = error.what
    return f"{android.image} is not here, and cannot be fetched ({unreachable})" if unreachable else ""


def _no_hardware_nesting(session: Session, engine: str) -> str:
    if not session.settings.vm.nested:
        return "nesting is switched off"
    try:
        nesting = session.engine(engine).facts().nesting
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
    found = debian.find(session.images)
    if found is None:
        session.need({"build-image"})  # asked for already, unless Ubuntu's server went away meanwhile
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
