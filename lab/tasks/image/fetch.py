"""image.fetch: a published guest image, or docker-android's."""

from __future__ import annotations

import time

from lab.core.deadline import Deadline
from lab.core.errors import UsageError
from lab.documents.images import ImageResult
from lab.emulators.docker_android.options import AndroidOptions
from lab.images import cache, registry
from lab.images.registry import Reference
from lab.tasks.image.result import replied, result
from lab.workflow import selection
from lab.workflow.session import Reply, Session


def fetch(session: Session, image: str, update: bool = False) -> Reply:
    """Download, verify and cache a published image, or docker-android's.

    `update` takes what docker-android's tag stands for now; without it what is pinned stays.
    """
    started = time.monotonic()
    if image == selection.ANDROID:
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
            f"the image of {selection.ANDROID} is taken from {wanted.archive}: there is nothing to fetch",
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
