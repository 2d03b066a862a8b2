"""image.build: the images that lab makes itself."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from functools import partial

from lab.core.errors import BlockedError, UsageError
from lab.core.steps import Step
from lab.images import cache, canary, debian
from lab.images.canary_recipe import ARM, EMULATED_ARM, X86, CanaryBuild
from lab.rehearsal import image as rehearsal
from lab.tasks.image.result import replied, result
from lab.workflow import guest_image, mirror
from lab.workflow.session import Reply, Session

REHEARSAL = "rehearsal"


def _canary(build: CanaryBuild, session: Session, step: Step) -> str:
    return canary.build(session.images, step, mirror.debian(session), build).id


_BUILDS: dict[str, Callable[[Session, Step], str]] = {
    X86.name: partial(_canary, X86),
    guest_image.DEBIAN: lambda session, step: debian.build(session.images, step).name,
    REHEARSAL: lambda session, step: rehearsal.build(session.images, step).id,
    EMULATED_ARM.name: partial(_canary, EMULATED_ARM),
    ARM.name: partial(_canary, ARM),
}
"""The canary first: it can be built on every system."""
_ON_LINUX = (guest_image.DEBIAN, REHEARSAL)
_WHEN_NAMED = (REHEARSAL, EMULATED_ARM.name, ARM.name)
"""Built only where it is asked for: no lab that is made here stands on it."""


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
