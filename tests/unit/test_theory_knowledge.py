"""known.toml: every fact matches the right host and not the next one, and none contradicts another."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from lab.ladder.rungs import LADDER
from lab.ladder.verdict import judge
from lab.model.domain import Cell, Claim, Host, Nesting, Outcome, Status, Verdict
from lab.theory.knowledge import (
    Fact,
    KnowledgeTable,
    Outlook,
    most_specific,
    predict,
    table,
    ways,
)
from lab.theory.observed import Agreement, compare
from lab.theory.situation import ENGINES, Situation, parse_engine, parse_host
from tests.unit.conflicts import conflicts
from tests.unit.test_theory_match import situations

FACTS = {fact.id: fact for fact in table().fact}

# Each fact: (host, engine) where it decides, and one that differs in what the fact turns on.
HOSTS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "virtualbox-6.1-intel-mac": (
        ("macos-intel:12", "virtualbox:6.1.50"),
        ("macos-intel:12", "virtualbox:7.0"),
    ),
    "virtualbox-7-intel-mac": (
        ("macos-intel:13", "virtualbox:7.1.18"),
        ("macos-intel:13", "virtualbox:6.1.50"),
    ),
    "virtualbox-7.2-intel-mac": (
        ("macos-intel:15", "virtualbox:7.2.22"),
        ("macos-intel:15", "virtualbox:7.1.99"),
    ),
    "virtualbox-apple-silicon": (("macos-m3:15", "virtualbox:7.2"), ("macos-intel:15", "virtualbox:7.2")),
    "virtualbox-windows-hyperv": (
        ("windows-intel:11,hyperv", "virtualbox:7.1"),
        ("windows-intel:11,no-hyperv", "virtualbox:7.1"),
    ),
    "virtualbox-windows": (
        ("windows-amd:10,no-hyperv", "virtualbox:7.1"),
        ("windows-amd:10,no-hyperv", "virtualbox:7.2"),
    ),
    "virtualbox-7.2-windows": (
        ("windows-intel:11,no-hyperv", "virtualbox:7.2.4"),
        ("windows-intel:11", "virtualbox:7.2.4"),
    ),
    "virtualbox-linux-intel": (("linux-intel8", "virtualbox:7.1.8"), ("linux-intel8", "virtualbox:7.1.10")),
    "virtualbox-linux-old-intel": (("linux-intel4", "virtualbox:6.1"), ("linux-intel5", "virtualbox:6.1")),
    "virtualbox-linux-amd": (("linux-amd", "virtualbox:7.0"), ("linux-amd,la57", "virtualbox:7.0")),
    "virtualbox-7.1.10-linux": (
        ("linux-amd", "virtualbox:7.2.22"),
        ("linux-amd,emulated", "virtualbox:7.2.22"),
    ),
    "virtualbox-linux-emulated-amd": (
        ("linux-amd,vm,emulated", "virtualbox:7.2.22"),
        ("linux-amd,vm", "virtualbox:7.2.22"),
    ),
    "virtualbox-linux-emulated-intel": (
        ("linux-intel,vm,emulated", "virtualbox:7.2.22"),
        ("linux-intel,vm", "virtualbox:7.2.22"),
    ),
    "virtualbox-linux-in-vm": (("linux-intel,vm", "virtualbox:7.1"), ("linux-intel", "virtualbox:7.1")),
    "virtualbox-linux-la57": (("linux-amd,la57", "virtualbox:7.2"), ("linux-amd", "virtualbox:7.2")),
    "virtualbox-linux-no-extensions": (
        ("linux-amd,vm,no-extensions", "virtualbox"),
        ("linux-amd,vm", "virtualbox"),
    ),
    "qemu-kvm": (("linux-intel", "qemu"), ("linux-intel,vm", "qemu")),
    "qemu-kvm-in-vm": (("linux-intel,vm", "qemu"), ("linux-intel,vm,no-kvm", "qemu")),
    "qemu-kvm-not-nested": (("linux-amd,no-nested", "qemu"), ("linux-amd", "qemu")),
    "qemu-emulation": (("linux-amd,no-kvm", "qemu:7.2"), ("linux-amd", "qemu:7.2")),
    "qemu-emulation-mac": (("macos-intel:13", "qemu"), ("windows-intel:11", "qemu")),
    "docker-linux": (("linux-amd,no-nested", "docker"), ("linux-amd,no-kvm", "docker")),
    "docker-linux-no-kvm": (("linux-intel,no-extensions", "docker"), ("linux-intel", "docker")),
    "docker-desktop-windows": (("windows-amd:11", "docker-desktop"), ("windows-amd:10", "docker-desktop")),
    "docker-desktop-windows-10": (
        ("windows-intel:10", "docker-desktop"),
        ("windows-arm:10", "docker-desktop"),
    ),
    "hyper-v-intel": (("windows-intel:10", "hyper-v"), ("windows-amd:10", "hyper-v")),
    "hyper-v-amd": (("windows-amd:11", "hyper-v"), ("windows-amd:10", "hyper-v")),
    "hyper-v-amd-windows-10": (("windows-amd:10", "hyper-v"), ("windows-intel:10", "hyper-v")),
    "hyperkit": (("macos-intel:11", "hyperkit"), ("macos-m1:11", "hyperkit")),
    "hyperkit-apple-silicon": (("macos-m1:11", "hyperkit"), ("macos-intel:11", "hyperkit")),
    "docker-desktop-intel-mac": (("macos-intel:15", "docker-desktop"), ("macos-m4:15", "docker-desktop")),
    "docker-desktop-apple-silicon": (("macos-m4:26", "docker-desktop"), ("macos-m4:26", "lima")),
    "lima-intel-mac": (("macos-intel:15", "lima"), ("macos-m3:15", "lima")),
    "lima-m1-m2": (("macos-m2:15", "lima"), ("macos-m3:15", "lima")),
    "lima-m3-old-macos": (("macos-m3:14.7", "lima"), ("macos-m3:15", "lima")),
    "lima-m3": (("macos-m4:15.0", "lima"), ("macos-m4:14.9", "lima")),
    "arm-emulator-x86": (("linux-amd,no-kvm", "arm-emulator"), ("macos-m2:14", "arm-emulator")),
    "arm-emulator-apple-silicon": (("macos-m2:14", "arm-emulator"), ("macos-intel:14", "arm-emulator")),
}


def place(host: str, engine: str) -> Situation:
    return parse_host(host).on(*parse_engine(engine))


def test_every_fact_has_its_hosts() -> None:
    assert list(HOSTS) == list(FACTS)


@pytest.mark.parametrize("name", HOSTS)
def test_a_fact_decides_on_its_host_and_not_on_the_next(name: str) -> None:
    right, near = HOSTS[name]
    found = predict(place(*right))
    assert found.fact is FACTS[name]
    assert found.claims[Claim.NESTING] is FACTS[name].nesting
    missed = predict(place(*near)).fact
    assert missed is not FACTS[name] and FACTS[name].match.holds(place(*near)) is not True


def test_nothing_in_the_table_contradicts_anything_else() -> None:
    names = [fact.id for fact in table().fact] + [way.id for way in table().way]
    assert len(names) == len(set(names))
    assert conflicts(table().fact) == []


@given(situations())
def test_where_several_facts_hold_one_decides_whatever_their_order(situation: Situation) -> None:
    facts = table().fact
    holding = [fact for fact in facts if fact.match.holds(situation)]
    found = predict(situation).fact
    assert (found is None) == (not holding)
    other = predict(situation, facts[::-1]).fact
    assert (found and (found.nesting, found.android)) == (other and (other.nesting, other.android))
    assert not any(
        fact.match.implies(found.match) and not found.match.implies(fact.match) for fact in holding if found
    )


@pytest.mark.parametrize("fact", FACTS.values(), ids=FACTS)
def test_a_prediction_is_one_that_the_rules_can_give(fact: Fact) -> None:
    if fact.nesting is Outlook.REFUTED:
        assert fact.rung in LADDER.decisive and fact.rung in LADDER.required(Claim.NESTING)
    if fact.nesting is Outlook.BLOCKED:
        assert fact.rung not in LADDER.decisive or fact.match.nested is False
    assert fact.rung or fact.nesting is Outlook.CONFIRMED
    if Claim.THEORY in fact.claims(True):
        assert fact.claims(False)[Claim.THEORY] is Outlook.NOT_APPLICABLE


def climbed(rung: str) -> list[Outcome]:
    """Everything passed that can without this rung, which was seen to fail."""

    def outcome(name: str) -> Outcome:
        if name == rung:
            return Outcome(name, Status.FAILED, "that", "not that")
        if rung in LADDER.prerequisites(name):
            return Outcome(name, Status.BLOCKED, blocked_by=rung)
        return Outcome(name, Status.PASSED, "that", "that")

    return [outcome(name) for name in LADDER.names]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, fact in FACTS.items()
        if fact.match.engine in ("virtualbox", "qemu") and fact.nesting in (Outlook.REFUTED, Outlook.BLOCKED)
    ],
)
def test_a_climb_that_ends_as_predicted_agrees(name: str) -> None:
    fact, situation = FACTS[name], place(*HOSTS[name][0])
    emulated = bool(situation.emulated)
    cell = Cell(
        Host(situation.system, "an OS", "a kernel", "a CPU"),
        situation.engine,
        situation.engine_version,
        "hwvirt",
        Nesting.NONE if fact.match.nested is False else Nesting.HARDWARE,
        emulated,
        "kvm",
        "an image",
        "redroid",
        "sha256:1",
        True,
    )
    verdicts = judge(climbed(fact.rung), cell)
    expected = predict(situation).claims
    for claim, found in verdicts.items():
        seen = compare(expected[claim], found.verdict)
        assert seen is Agreement.AGREES or expected[claim] is Outlook.NOT_APPLICABLE, (claim, found)


def test_emulation_predicts_nothing_of_android_or_of_the_theory() -> None:
    for fact in FACTS.values():
        if fact.match.emulated or fact.id.startswith("qemu-emulation"):
            assert fact.android is Outlook.BLOCKED
        if fact.match.engine == "virtualbox" and "macos" in fact.match.system:
            assert fact.match.theory, "the theory's ground is no one else's"


def test_the_theory_is_predicted_on_its_own_ground_and_nowhere_else() -> None:
    for host, engine, theory in (
        ("macos-intel:13", "virtualbox:7.1", "refuted"),
        ("macos-intel:12", "virtualbox:6.1.50", "unknown"),
        ("macos-m3:15", "virtualbox:7.2", "blocked"),
        ("macos-intel:13", "qemu", "not applicable"),
        ("linux-intel", "virtualbox:7.1", "not applicable"),
        ("macos-intel:13", "virtualbox:5.2", "unknown"),
    ):
        assert predict(place(host, engine)).claims[Claim.THEORY].value == theory


def test_what_is_not_known_is_told_as_open() -> None:
    found = predict(place("macos-intel:13", "virtualbox"))
    assert found.fact is None and set(found.claims.values()) == {Outlook.UNKNOWN}
    assert [fact.id for fact in found.open] == [
        "virtualbox-6.1-intel-mac",
        "virtualbox-7-intel-mac",
        "virtualbox-7.2-intel-mac",
    ]
    windows = predict(place("windows-intel:11", "virtualbox:7.1"))
    assert [fact.id for fact in windows.open] == ["virtualbox-windows-hyperv", "virtualbox-windows"]
    # A winner stays one; only what could be more specific is open beside it.
    xeon = predict(place("linux-intel", "virtualbox:7.1"))
    assert xeon.fact and xeon.fact.id == "virtualbox-linux-intel"
    assert [fact.id for fact in xeon.open] == ["virtualbox-linux-old-intel"]


@given(situations(known=True))
def test_nothing_is_open_where_all_is_known(situation: Situation) -> None:
    assert predict(situation).open == ()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("linux-intel", {"linux-docker", "emulation"}),
        ("linux-amd,vm,no-extensions", {"cloud-nesting", "emulation"}),
        ("linux-amd,no-extensions", {"linux-firmware", "emulation"}),
        ("linux-amd,no-kvm", {"linux-kvm-off", "emulation"}),
        ("linux-arm", {"emulation"}),
        ("windows-intel:11,no-hyperv", {"windows-11-wsl2", "windows-hyper-v"}),
        ("windows-amd:10,hyperv", {"windows-10", "windows-hyper-v-off"}),
        (
            "macos-intel:10.15",
            {"intel-mac-native", "intel-mac-linux", "intel-mac-fusion", "intel-mac-utm", "emulation"},
        ),
        ("macos-intel:13", {"intel-mac-native", "intel-mac-linux", "intel-mac-utm", "emulation"}),
        ("macos-m2:15", {"apple-silicon-native", "apple-silicon-elsewhere", "emulation"}),
        (
            "macos-m3:15",
            {"apple-silicon-native", "apple-silicon-cuttlefish", "apple-silicon-elsewhere", "emulation"},
        ),
    ],
)
def test_the_ways_that_would_work(host: str, expected: set[str]) -> None:
    assert {way.id for way in ways(parse_host(host))} == expected


def test_every_way_is_one_for_some_host() -> None:
    hosts = [
        parse_host(case) for case in ("linux-intel", "linux-amd,vm,no-extensions", "linux-amd,no-extensions")
    ]
    hosts += [
        parse_host(case) for case in ("linux-amd,no-kvm", "windows-intel:11,hyperv", "windows-intel:10")
    ]
    hosts += [parse_host(case) for case in ("macos-intel:10.15", "macos-m3:15")]
    assert {way.id for host in hosts for way in ways(host)} == {way.id for way in table().way}


def test_sources_say_who_and_dates_are_not_to_come() -> None:
    shape = re.compile(
        r"^([\w.-]+/[\w.-]+(#[0-9]+|@[0-9a-f]{7,}|: \S+)|[\w.]+\.(org|com|io): \S+|measured |[\w-]+/[\w.-]+$)"
    )
    for entry in itertools.chain(table().fact, table().way):
        assert entry.date <= datetime.date.today()
        for source in entry.sources:
            assert shape.match(source) or "docs/" in source, source


def test_every_engine_is_known_somewhere() -> None:
    assert {fact.match.engine for fact in FACTS.values()} == set(ENGINES)


SOUND: dict[str, Any] = {
    "id": "a",
    "match": {"engine": "qemu"},
    "nesting": "refuted",
    "rung": "guest.cpu",
    "why": "because",
    "grade": "measured",
    "date": datetime.date(2026, 1, 2),
    "sources": ["measured"],
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"surprise": 1},
        {"match": {"engine": "bochs"}},
        {"match": {"engine": "qemu", "moon": True}},
        {"nesting": "not applicable"},
        {"nesting": "perhaps"},
        {"android": "confirmed"},
        {"rung": ""},
        {"rung": "guest.gpu"},
        {"grade": "hearsay"},
        {"sources": []},
        {"why": ""},
        {"date": "soon"},
    ],
)
def test_a_wrong_table_is_refused(wrong: dict[str, Any]) -> None:
    KnowledgeTable.model_validate({"fact": [SOUND]})
    with pytest.raises(ValidationError):
        KnowledgeTable.model_validate({"fact": [SOUND | wrong]})


def fact(name: str, nesting: str, **match: Any) -> Fact:
    more: dict[str, Any] = {"id": name, "nesting": nesting, "match": {"engine": "qemu"} | match}
    return Fact.model_validate(SOUND | more)


def test_a_conflict_is_found_and_a_third_fact_settles_it() -> None:
    linux, intel = fact("linux", "refuted", system=["linux"]), fact("intel", "unknown", cpu=["intel"])
    both = fact("both", "unknown", system=["linux"], cpu=["intel"])
    assert conflicts((linux, intel)) == [("linux", "intel")]
    assert conflicts((linux, intel, both)) == []
    assert conflicts((linux, fact("again", "unknown", system=["linux"]))) == [("linux", "again")]
    assert conflicts((linux, fact("same", "refuted", cpu=["intel"]))) == []
    assert conflicts((linux, fact("mac", "unknown", system=["macos"]))) == []
    here = Situation("linux", "intel", engine="qemu")
    for order in itertools.permutations((linux, intel, both)):
        assert predict(here, order).fact is both
    assert most_specific([]) is None


def test_android_follows_where_nothing_works_and_is_open_where_nesting_does() -> None:
    assert fact("a", "refuted").android is Outlook.REFUTED
    assert fact("a", "blocked").android is Outlook.BLOCKED
    assert fact("a", "confirmed").android is Outlook.UNKNOWN
    assert dataclasses.is_dataclass(predict(Situation("linux")))
    assert compare(Outlook.UNKNOWN, Verdict.BLOCKED) is Agreement.NOT_TESTED
