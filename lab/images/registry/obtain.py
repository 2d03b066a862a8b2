"""The image the settings ask for: the digest that was pinned or learned, and a moved tag told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError
from lab.core.steps import Step
from lab.core.web import Patience
from lab.images.cache import CachedImage
from lab.images.errors import NotFoundError
from lab.images.registry.client import Registry
from lab.images.registry.learned import Change, Learned
from lab.images.registry.pull import facts, find, pull
from lab.images.registry.reference import Reference, check_digest

_ASK_SECONDS = 5.0
_ONCE = Patience(connect=3.0, read=_ASK_SECONDS, attempts=1)


@dataclass(frozen=True)
class Obtained:
    """The image in the cache; `change` when its tag stands for another one by now."""

    image: CachedImage
    change: Change | None = None

    @property
    def facts(self) -> dict[str, str]:
        """The image in Docker's words, for a cell, a report or an inspection."""
        pulled = facts(self.image)
        document = {"reference": pulled.reference, "digest": pulled.digest, "image_id": pulled.image_id}
        return document | ({"tag_moved": str(self.change)} if self.change else {})


def obtain(
    cache: Path,
    reference: Reference,
    *,
    state: Path,
    mirror: str = "",
    digest: str = "",
    update: bool = False,
    step: Step,
    deadline: Deadline,
    patience: Patience | None = None,
    fits: Callable[[int], None] | None = None,
) -> Obtained:
    """The image, pulled unless the cache has it.

    `digest`, or one in the name, decides; nothing else is then looked at, and a cached image needs
    no network. Else the digest the tag stood for when it was first pulled (kept in the folder
    `state`) decides. When the registry now names another one, that is noted, and the old one stays
    in use until `update`. Raises what `pull` raises, and hands it `fits`.
    """
    fetch = functools.partial(
        pull, cache, reference, mirror=mirror, step=step, deadline=deadline, patience=patience, fits=fits
    )
    pinned = check_digest(digest) or reference.digest
    if pinned:
        return Obtained(find(cache, pinned) or fetch(digest=pinned))
    learned = Learned(state)
    earlier = learned.get(reference)
    if earlier is None or update:
        entry = fetch()
        now = learned.learn(reference, facts(entry).digest).digest
        if earlier and earlier.digest != now:
            step.note(f"{reference} is {now} from now on; it was {earlier.digest}")
        return Obtained(entry)
    change = _moved(learned, reference, mirror, step)
    cached = find(cache, earlier.digest)
    if cached:
        return Obtained(cached, change)
    try:
        entry = fetch(digest=earlier.digest)
    except NotFoundError as error:
        raise NotFoundError(
            f"{error.what}: the registry no longer has {earlier.digest}, "
            f"which {reference} was on {earlier.learned:%Y-%m-%d}",
            hint=f"the tag is {change.new} now: take it with an update" if change else error.hint,
        ) from error
    return Obtained(entry, change)


def _moved(learned: Learned, reference: Reference, mirror: str, step: Step) -> Change | None:
    """Ask the registry shortly what the tag is now; without an answer, what was seen last."""
    earlier = learned.get(reference)
    before = earlier.change if earlier else None
    try:
        with Registry(reference, mirror, Deadline.after(_ASK_SECONDS), _ONCE) as registry:
            now = registry.current()
    except (BlockedError, DeadlineError) as error:
        step.note(f"whether {reference} has moved is not known: {error.what}")
        return before
    change = learned.observe(reference, now) if now else before
    if change:
        step.note(f"the tag {reference} has moved: {change}")
    return change
