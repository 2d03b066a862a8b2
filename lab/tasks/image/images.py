"""image.*: the cache of guest and canary images."""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lab import emulators, engines
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, ExitCode, LabError, UsageError
from lab.core.steps import Step
from lab.documents.images import ImageEntry, ImageList, ImageResult
from lab.emulators.docker_android.options import AndroidOptions
from lab.images import cache, canary, debian, registry, uses
from lab.images.registry import Reference
from lab.rehearsal import image as rehearsal
from lab.tasks.image.result import replied, result
from lab.workflow import guest_image, mirror, selection
from lab.workflow.session import Reply, Session

CANARY = "canary"
REHEARSAL = "rehearsal"
ANDROID = "docker-android"
_BUILDS: dict[str, Callable[[Session, Step], str]] = {
    CANARY: lambda session, step: canary.build(session.images, step, mirror.debian(session)).id,
    guest_image.DEBIAN: lambda session, step: debian.build(session.images, step).name,
    REHEARSAL: lambda session, step: rehearsal.build(session.images, step).id,
}
"""The canary first: it can be built on every system."""
_ON_LINUX = (guest_image.DEBIAN, REHEARSAL)
_WHEN_NAMED = (REHEARSAL,)
"""Built only where it is asked for: no lab stands on it."""


def list_images(session: Session) -> Reply:
    used = _in_use(session)
    rows = [
        ImageEntry(
            id=entry.id,
            kind=entry.manifest.kind,
            name=entry.manifest.name,
            bytes=entry.manifest.bytes,
            created=entry.manifest.created.isoformat(),
            sha256=entry.manifest.sha256,
            in_use_by=used.get(entry.id, ()),
        )
        for entry in cache.entries(session.images)
    ]

    def tell(console: Console) -> None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("id", "kind", "MiB", "created", "used by"):
            table.add_column(column, overflow="fold")
        for row in rows:
            size = f"{row.bytes / 2**20:.0f}"
            table.add_row(row.id, row.kind, size, row.created[:19], ", ".join(row.in_use_by) or "-")
        console.print(table if rows else "no images are cached: `bin/invoke image.build` builds them")

    return Reply(ImageList(cache=str(session.images), images=rows).as_json(), tell)


def fetch(session: Session, image: str, update: bool = False) -> Reply:
    """Download, verify and cache a published image, or docker-android's.

    `update` takes what docker-android's tag stands for now; without it what is pinned stays.
    """
    started = time.monotonic()
    if image == ANDROID:
        return replied("fetch", [_fetch_android(session, update)], started)
    published = session.factories.published(image, selection.engine_name(session))
    before = published.find(session.images)
    with session.steps.step("image.fetch", image) as step:
        path = published.fetch(session.images, step, Deadline.after(session.settings.deadlines.download))
    row = result(session, path.name, "cached" if before and before.name == path.name else "fetched")
    return replied("fetch", [row], started)


def _fetch_android(session: Session, update: bool) -> ImageResult:
    wanted = AndroidOptions.of(session.settings)
    if wanted.archive is not None:
        raise UsageError(
            f"the image of {ANDROID} is taken from {wanted.archive}: there is nothing to fetch",
            hint='emulator.archive = "" takes it from a registry',
        )
    known = {entry.id for entry in cache.entries(session.images)}
    with session.steps.step("image.fetch", wanted.image) as step:
        obtained = registry.obtain(
            session.images,
            Reference.parse(wanted.image),
            state=session.settings.state_dir,
            mirror=wanted.registry,
            digest=wanted.digest,
            update=update,
            step=step,
            deadline=Deadline.after(wanted.download_seconds),
        )
    moved = f"its tag has moved: {obtained.change}; `--update` takes the new one" if obtained.change else ""
    outcome = "cached" if obtained.image.id in known else "fetched"
    return result(session, obtained.image.id, outcome, moved)


def _in_use(session: Session) -> dict[str, list[str]]:
    """Image id to the labs that stand on it, or run it as their emulator."""
    used = session.store.images_in_use()
    for image_id in uses.marked(session.images):
        for use in uses.of(session.images, image_id):
            own = use.folder.parent == session.store.labs_folder.absolute()
            name = use.lab if own else str(use.folder)
            if name not in (known := used.setdefault(image_id, [])):
                known.append(name)
    used.pop("unknown", None)
    used = {image_id: names for image_id, names in used.items() if names}
    if unknown := _of_unknown_image(session, used):
        for image_id in (item.id for item in cache.entries(session.images) if item.manifest.kind == "guest"):
            used.setdefault(image_id, []).extend(unknown)

    @functools.cache
    def cached(kind: str) -> str:
        with contextlib.suppress(LabError):  # one whose package is gone, or whose image cannot be told
            return emulators.kind(kind, session.settings).cached()
        return ""

    for lab in session.store.labs():
        with contextlib.suppress(LabError):
            record = lab.read()
            kinds = {known.kind for known in record.instances.values()} if record else set()
            for image_id in filter(None, map(cached, sorted(kinds))):
                used.setdefault(image_id, []).append(lab.name)
    return used


def _of_unknown_image(session: Session, used: dict[str, list[str]]) -> list[str]:
    """The labs that stand on an image and do not say on which: their record is lost or cannot be read."""
    known = {name for names in used.values() for name in names}
    unknown = []
    for lab in session.store.labs():
        try:
            record = lab.read()
        except (LabError, OSError):
            record = None
        says = record is not None and record.image != "unknown"  # which is what a rebuilt record says
        if not says and lab.name not in known and _has_vm(lab.vm_folder):
            unknown.append(f"{lab.name} (perhaps: its record cannot be read)")
    return unknown


def _has_vm(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def build(session: Session, image: str) -> Reply:
    """Build the local images whose recipe or package versions changed."""
    if image and image not in _BUILDS:
        raise UsageError(f"{image} is not a local image", hint=f"one of {', '.join(_BUILDS)}")
    here = [name for name in _BUILDS if name not in _ON_LINUX or platform.system() == "Linux"]
    usual = [name for name in _BUILDS if name not in _WHEN_NAMED]
    if image and image not in here:
        raise BlockedError(
            f"{image} is built on Linux only",
            hint="a lab stands on ubuntu-24.04 here, which is downloaded: `invoke image.fetch`"
            if image == guest_image.DEBIAN
            else "theory.rehearse, which it is for, runs on Linux only",
        )
    started = time.monotonic()
    names = [image] if image else [name for name in usual if name in here]
    left_out = [] if image else [f"{name} is built on Linux only" for name in usual if name not in here]
    rows = []
    for name in names:
        if name in _ON_LINUX:
            session.need({"build-image"})
        known = {entry.id for entry in cache.entries(session.images)}
        with session.steps.step("image.build", name) as step:
            made = _BUILDS[name](session, step)
        rows.append(result(session, made, "cached" if made in known else "built"))
    return replied("build", rows, started, notes=left_out)


def verify(session: Session) -> Reply:
    """Rehash every cached image: 1 when one of them is not what it was."""
    started = time.monotonic()
    rows = []
    for entry in cache.entries(session.images):
        with session.steps.step("image.verify", entry.id):
            try:
                cache.verify(entry)
                rows.append(result(session, entry.id, "verified"))
            except LabError as error:
                rows.append(result(session, entry.id, "bad", error.what))
    bad = any(row.result == "bad" for row in rows)
    return replied("verify", rows, started, ExitCode.INTERNAL if bad else ExitCode.DONE)


def prune(session: Session) -> Reply:
    """Remove what no lab stands on."""
    started = time.monotonic()
    used = _in_use(session)
    whole = {entry.folder: entry.manifest for entry in cache.entries(session.images)}
    rows = []
    for item in cache.prune(session.images, set(used)):
        manifest = whole.get(item.path)  # what a killed build or download left has none
        rows.append(
            ImageResult(
                id=item.path.name,
                kind=manifest.kind if manifest else "leftover",
                name=manifest.name if manifest else item.path.name,
                result="removed",
                bytes=item.bytes,
                sha256=manifest.sha256 if manifest else None,
                why="no lab uses it" if manifest else "its making was cut short",
            )
        )
    left = {entry.id for entry in cache.entries(session.images)} | set(used)
    derived = [] if _of_unknown_image(session, used) else engines.prune(session.settings.cache_dir, left)
    for path, size in derived:
        rows.append(
            ImageResult(
                id=path.name,
                kind="leftover",
                name=path.name,
                result="removed",
                bytes=size,
                sha256=None,
                why="the image it was converted from is gone",
            )
        )
    kept = [
        result(session, entry.id, "kept", f"used by {', '.join(used.get(entry.id, []))}")
        for entry in cache.entries(session.images)
    ]
    return replied("prune", rows + kept, started)
