"""Words for hints."""

from __future__ import annotations

from lab.core.similar import choices, nearest


def test_the_nearest_is_one_word_or_none() -> None:
    assert nearest("defualt", ["default", "other"]) == "default"
    assert nearest("xyz", ["default", "other"]) == "" and nearest("x", []) == ""


def test_choices_are_three_at_most_the_best_first_and_all_where_none_is_alike() -> None:
    assert choices("live", ["dead", "live-2", "live-", "live-23", "live-234"]) == "live-, live-2, live-23"
    assert choices("zzz", ["one", "two"]) == "one, two" and choices("zzz", []) == ""
