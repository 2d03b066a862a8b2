"""Version numbers compared number by number, whatever letters follow them."""

from __future__ import annotations

import re

BOUND = r"^([0-9]{1,9}(\.[0-9]{1,9})*)?$"
"""Pattern of a version bound; empty means no bound."""

_NUMBERS = re.compile(r"^[0-9]{1,9}(?:\.[0-9]{1,9})*")


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison: 7.2.22_Debianr175245 gives (7, 2, 22).

    Trailing zeros are dropped, so that 7.2 and 7.2.0 are one; empty when it starts with no number.
    """
    match = _NUMBERS.match(version)
    values = [int(part) for part in match[0].split(".")] if match else []
    while values and values[-1] == 0:
        values.pop()
    return tuple(values)


def in_range(version: str, since: str, below: str) -> bool:
    """Whether since <= version < below, numerically; an empty bound is open.

    An unknown version is in no range that has a bound.
    """
    if not since and not below:
        return True
    have = numbers(version)
    if not have:
        return False
    return (not since or numbers(since) <= have) and (not below or have < numbers(below))
