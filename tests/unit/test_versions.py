import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.versions import in_range, numbers

PARTS = st.lists(st.integers(0, 999), min_size=1, max_size=4)


def dotted(parts):
    return ".".join(map(str, parts))


def padded(parts):
    return tuple([*parts, 0, 0, 0, 0][:4])


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("7.2.22_Debianr175245", (7, 2, 22)),
        ("7.1.12r169651", (7, 1, 12)),
        ("7.0.0", (7,)),
        ("15", (15,)),
        ("", ()),
        ("unknown", ()),
    ],
)
def test_numbers(version, expected):
    assert numbers(version) == expected


@given(PARTS, PARTS, PARTS)
def test_ranges_compare_number_by_number(version, since, below):
    inside = padded(since) <= padded(version) < padded(below)
    assert in_range(dotted(version) + "_Debianr1", dotted(since), dotted(below)) == (inside and any(version))


@given(st.text(), PARTS)
def test_an_unknown_version_is_in_no_range_with_a_bound(text, bound):
    assert in_range(text, "", "")
    if not numbers(text):
        assert not in_range(text, dotted(bound), "") and not in_range(text, "", dotted(bound))
