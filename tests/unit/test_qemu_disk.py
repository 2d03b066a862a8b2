"""Names of snapshots, and reading them back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.engines.qemu.disk import SUSPENDED, parse_saved, snapshots_of, tag_of


def _image(*tags: str) -> dict[str, object]:
    return {
        "snapshots": [
            {"id": str(at), "name": tag, "vm-state-size": at % 2, "date-sec": 1000 + at, "date-nsec": 500000}
            for at, tag in enumerate(tags)
        ]
    }


@given(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12))
def test_any_name_comes_back(name: str) -> None:
    tag = tag_of(name)
    assert tag.isascii() and tag.isprintable() and not tag.isdigit() and tag != SUSPENDED
    assert [item.name for item in snapshots_of(parse_saved(_image(SUSPENDED, "1", tag)))] == [name]


def test_time_and_memory() -> None:
    first, second = snapshots_of(parse_saved(_image(tag_of("b"), tag_of("a"))))
    assert (first.name, first.live, second.name, second.live) == ("b", False, "a", True)
    assert first.created == datetime(1970, 1, 1, 0, 16, 40, 500, tzinfo=UTC)


def test_no_snapshots() -> None:
    assert parse_saved({"filename": "disk.qcow2"}) == []


@pytest.mark.parametrize("name", ["", "x" * 300])
def test_names_no_tag_can_hold(name: str) -> None:
    with pytest.raises(UsageError):
        tag_of(name)
