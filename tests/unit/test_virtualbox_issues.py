from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lab.core.versions import in_range, numbers
from lab.engines.virtualbox.host import HostVirtualBox
from lab.engines.virtualbox.issues import IssueTable, matching, table

LINUX = HostVirtualBox(
    "linux", "AMD EPYC 9115", ("svm",), bare_metal=True, driver_device=True, driver_usable=True
)
MAC = HostVirtualBox("macos", "Intel Core i9", ("vmx", "hv_support"), bare_metal=True)
M3 = HostVirtualBox("macos", "Apple M3", ("hv_support",), silicon=True)


def ids(host, version):
    return {issue.id for issue in matching(host, version)}


def test_the_table_is_sound():
    names = [issue.id for issue in table()]
    assert len(names) == len(set(names))
    for issue in table():
        assert not (issue.since and issue.below) or numbers(issue.since) < numbers(issue.below), issue.id


@pytest.mark.parametrize(
    "wrong",
    [
        {"surprise": 1},
        {"when": ["full_moon"]},
        {"systems": ["solaris"]},
        {"from": "7.x"},
        {"below": "7."},
        {"what": ""},
        {"id": "Not An Id"},
    ],
)
def test_a_wrong_table_is_refused(wrong):
    sound = {"id": "a", "source": "measured", "what": "it breaks"}
    IssueTable.model_validate({"issue": [sound]})
    with pytest.raises(ValidationError):
        IssueTable.model_validate({"issue": [sound | wrong]})


def test_an_issue_is_frozen():
    with pytest.raises(ValidationError):
        table()[0].what = "nothing"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("7.2.22_Debianr175245", (7, 2, 22)),
        ("7.1.12r169651", (7, 1, 12)),
        ("7.0.0", (7,)),
        ("6.1.50_Ubuntu", (6, 1, 50)),
        ("", ()),
        ("unknown", ()),
    ],
)
def test_numbers(version, expected):
    assert numbers(version) == expected


def test_macos():
    assert "macos-hypervisor-framework" in ids(MAC, "7.2.22")
    assert "macos-hypervisor-framework" not in ids(MAC, "6.1.50")
    assert "macos-kvm-guest-6.1" not in ids(MAC, "7.2.22")
    assert {"macos-kvm-guest-6.1", "no-nested-paging-6.1"} <= ids(MAC, "6.1.50")
    assert ids(M3, "7.2.22") == {"apple-silicon"}


@pytest.mark.parametrize(
    ("release", "version", "known"),
    [
        ("13.6.7", "6.1.50", True),
        ("26.1", "6.1.40", True),
        ("12.7.4", "6.1.50", False),
        ("10.15.7", "6.1.50", False),
        ("13.6.7", "7.0.26", False),
        ("", "6.1.50", False),
    ],
)
def test_what_macos_13_does_to_the_kernel_extension(release, version, known):
    assert ("macos-13-kernel-extension-6.1" in ids(replace(MAC, macos_version=release), version)) is known
    assert "macos-13-kernel-extension-6.1" not in ids(replace(LINUX, macos_version=release), version)


def test_linux():
    early = HostVirtualBox(
        "linux", extensions=("svm",), bare_metal=True, driver_device=True, kvm_modules=("kvm", "kvm_amd")
    )
    loaded = replace(early, kvm_at_load=True)
    assert "host-hard-lock" in ids(LINUX, "7.1.10")
    assert "host-hard-lock" not in ids(LINUX, "7.1.8")
    assert not {"host-panic-kvm-loaded", "kvm-beside-virtualbox", "kvm-holds-the-cpu"} & ids(LINUX, "7.2.10")
    assert {"host-panic-kvm-loaded", "kvm-beside-virtualbox"} <= ids(loaded, "7.2.10")
    assert "host-panic-kvm-loaded" not in ids(loaded, "7.2.22")
    assert "kvm-holds-the-cpu" in ids(loaded, "7.1.12")
    not_at_load = replace(early, kvm_at_load=False)
    assert "kvm-holds-the-cpu" not in ids(not_at_load, "7.1.12")
    assert "kvm-beside-virtualbox" in ids(not_at_load, "7.2.22")
    for version in ("7.1.12", "7.2.22"):
        before_6_12 = ids(early, version)
        assert not {"kvm-holds-the-cpu", "kvm-beside-virtualbox"} & before_6_12
    assert "host-panic-kvm-loaded" in ids(early, "7.2.10")
    assert "kvm-backend" not in ids(loaded, "7.2.22")
    assert "kvm-backend" in ids(HostVirtualBox("linux", kvm_modules=("kvm", "kvm_intel")), "7.2.22")
    assert "five-level-paging" in ids(HostVirtualBox("linux", five_level_paging=True), "")


def test_an_unknown_version_matches_only_what_needs_none():
    for host in (LINUX, MAC, M3):
        assert all(not issue.since and not issue.below for issue in matching(host, ""))


PARTS = st.lists(st.integers(0, 999), min_size=1, max_size=4)


def dotted(parts):
    return ".".join(map(str, parts))


def padded(parts):
    return tuple([*parts, 0, 0, 0, 0][:4])


@given(PARTS, PARTS, PARTS)
def test_ranges_compare_number_by_number(version, since, below):
    inside = padded(since) <= padded(version) < padded(below)
    assert in_range(dotted(version) + "_Debianr1", dotted(since), dotted(below)) == (inside and any(version))


@given(st.text(), st.sampled_from([LINUX, MAC, M3]))
def test_any_version_is_looked_up(version, host):
    assert {issue.id for issue in matching(host, version)} <= {issue.id for issue in table()}
