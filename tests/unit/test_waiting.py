"""How often a VM that boots is asked whether it lives."""

from __future__ import annotations

import pytest

from lab.guest.waiting import sparing


@pytest.mark.parametrize(("takes", "asked"), [(0.0, 40), (0.01, 40), (2.0, 2)])
def test_asking_takes_no_more_than_a_tenth_of_the_time(takes: float, asked: int) -> None:
    """Twice a second it is offered, for twenty seconds; what is dear is asked seldom."""
    clock, count = 0.0, 0

    def ask() -> str | None:
        nonlocal clock, count
        clock += takes
        count += 1
        return "it is off" if clock > 40 else None

    alive = sparing(ask, lambda: clock)
    answers = []
    for _ in range(40):
        answers.append(alive())
        clock += 0.5
    assert count == asked
    clock = 50.0
    assert answers == [None] * 40 and alive() == "it is off"
