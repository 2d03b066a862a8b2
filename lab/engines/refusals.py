"""What every engine refuses, in the same words: errors to raise, each with a hint that helps."""

from __future__ import annotations

from collections.abc import Iterable

from lab.core.errors import UsageError
from lab.core.similar import choices


def not_created(machine: str) -> UsageError:
    return UsageError(f"the machine {machine} is not created yet", hint="run `invoke lab.up`")


def not_running(machine: str, so: str) -> UsageError:
    """`so` is what follows of it, such as `it has no screen`."""
    return UsageError(f"the machine {machine} does not run, so {so}")


def not_suspended(machine: str) -> UsageError:
    return UsageError(f"the machine {machine} is not suspended", hint="start it with `invoke lab.up`")


def suspended(snapshot: str) -> UsageError:
    """No snapshot is taken of a machine that is suspended."""
    return UsageError(
        f"a suspended machine's memory cannot go into the snapshot `{snapshot}`",
        hint="resume it first (`invoke lab.resume`)",
    )


def snapshot_exists(snapshot: str) -> UsageError:
    return UsageError(f"there is a snapshot `{snapshot}` already", hint="choose another name")


def no_snapshot(snapshot: str, known: Iterable[str]) -> UsageError:
    """`known` are the machine's snapshots: the nearest are named."""
    near = choices(snapshot, known)
    return UsageError(
        f"there is no snapshot `{snapshot}`",
        hint=f"there is: {near}" if near else "`invoke lab.snapshot NAME` takes one",
    )
