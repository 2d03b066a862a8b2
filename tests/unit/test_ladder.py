"""The ladder as one list: what is said of it elsewhere, and a rung that is added to it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.core.steps import Steps
from lab.ladder.climb import climb
from lab.ladder.facts import (
    AndroidBoot,
    AndroidUse,
    ComparedBoots,
    Facts,
    L1Boot,
    L2Adb,
    L2Boot,
    Launches,
    Looked,
    Recognised,
    StageFact,
)
from lab.ladder.report import document
from lab.ladder.rung import Ladder, Layer, Rung
from lab.ladder.rungs import LADDER, guest
from lab.ladder.site import Site
from lab.ladder.verdict import judge
from lab.model.domain import Claim, Observation, Status, Verdict
from lab.probes.kvm import KvmFacts, Probe
from lab.reports import ReportInput, reporters
from lab.reports.model import ReportedRun
from tests.unit.bed import host
from tests.unit.probed import cpu_facts, kvm_probe
from tests.unit.reports import AT, CANARY, MAC

DOCS = Path(__file__).parents[2] / "docs"
GOOD = Observation(True, "that", "this")


def _section(title: str, page: str = "ladder.md") -> str:
    text = (DOCS / page).read_text()
    return text[text.index(f"\n## {title}\n") :].split("\n## ")[1]


def _codes(text: str) -> list[str]:
    return re.findall(r"`([a-z]+\.[a-z]+)`", text)


def test_the_page_has_every_rung_with_its_needs_in_order() -> None:
    rows = [line.split("|")[1:-1] for line in _section("Rungs").splitlines() if line.startswith("| `")]
    documented = [(_codes(row[0])[0], _codes(row[-1])) for row in rows]
    assert documented == [(rung.name, [need.name for need in rung.needs]) for rung in LADDER]


def test_the_page_says_which_rungs_decide_and_which_inform() -> None:
    decide = re.search(r"failed, and one of (.*?): \*\*refuted", _section("Verdicts"), re.DOTALL)
    assert decide and set(_codes(decide[1])) == LADDER.decisive
    inform = re.search(r"Two rungs inform and block nothing\.(.*?)\n\n", _section("Rungs"), re.DOTALL)
    assert inform and tuple(re.findall(r"`([a-z.]+)`:", inform[1])) == LADDER.informative(Claim.ANDROID)


def test_what_each_claim_needs() -> None:
    """As docs/ladder.md has it in words."""
    nesting, android = LADDER.required(Claim.NESTING), LADDER.required(Claim.ANDROID)
    assert (nesting[0], nesting[-1]) == ("host.engine", "nested.adb") and "guest.paravirt" not in nesting
    assert android == (*nesting, "android.boot", "android.usable")
    assert LADDER.required(Claim.THEORY) == ("host.cpu", *android)
    assert [LADDER.observed(claim) for claim in Claim] == [(), (), ("guest.paravirt",)]


def test_a_ladder_that_cannot_be_climbed_cannot_be_made() -> None:
    rungs = tuple(LADDER)
    with pytest.raises(ValueError, match=r"two rungs are called host\.cpu"):
        Ladder((*rungs, rungs[0]))
    with pytest.raises(ValueError, match=r"vm\.settings needs what does not stand below it: host\.engine"):
        Ladder(rungs[2:])


def test_a_rung_is_asked_for_with_all_it_needs() -> None:
    wanted = LADDER.up_to(guest.paravirt, guest.kvm)
    assert wanted == ("host.engine", "vm.settings", "vm.boot", "guest.paravirt", "guest.cpu", "guest.kvm")
    with pytest.raises(KeyError):
        LADDER["vm.tea"]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rung]:
    """The rung that docs/extending.md adds, where it says."""
    example = re.search(r"```python\n(.*?)```", _section("Add a rung", "extending.md"), re.DOTALL)
    assert example
    module: dict[str, Any] = {"__name__": "example"}
    exec(textwrap.dedent(example[1]), module)  # noqa: S102
    added = module["memory"]
    rungs = tuple(LADDER)
    place = rungs.index(guest.paravirt) + 1
    monkeypatch.setattr(LADDER, "rungs", Ladder((*rungs[:place], added, *rungs[place:])).rungs)
    yield added


def _site(meminfo: str) -> Site:
    tools: Any = SimpleNamespace(
        guest=SimpleNamespace(read=lambda path: {"/proc/meminfo": meminfo}[path]),
        machine=SimpleNamespace(spec=SimpleNamespace(memory_mib=4096)),
    )
    return Site(host(), tools, None, Path("/nowhere"), 1.0, 1.0)


@pytest.mark.parametrize(
    ("meminfo", "status", "observed"),
    [
        ("MemTotal:  4000000 kB\nMemFree: 1 kB\n", Status.PASSED, "3906 MiB"),
        ("MemTotal:  1000000 kB\n", Status.FAILED, "976 MiB"),
        ("", Status.INCONCLUSIVE, "L1 does not say how much memory it has"),
    ],
)
def test_a_rung_that_is_added_is_climbed_judged_and_reported(
    memory: Rung, meminfo: str, status: Status, observed: str, tmp_path: Path
) -> None:
    site = _site(meminfo)
    checks = dict.fromkeys(LADDER.names, lambda: GOOD) | {memory.name: LADDER.checks(site)[memory.name]}
    climbed = climb(checks, steps=Steps(), informative=LADDER.informative(Claim.NESTING))
    outcome = next(each for each in climbed.outcomes if each.rung == "guest.memory")
    assert (outcome.status, outcome.observed) == (status, observed)
    claims = judge(climbed.outcomes, CANARY, "canary")
    assert claims[Claim.NESTING].verdict is Verdict.CONFIRMED, "it only informs"
    run = ReportedRun(
        document(
            lab_name="default",
            lab_uuid="0b0e7a52-7a2c-4f0c-9f2e-0f6e0a3f8f11",
            cell=CANARY,
            climbed=climbed,
            claims=claims,
            claim=Claim.NESTING,
            started=AT,
            ended=AT,
        )
    )
    for reporter in reporters():
        page = reporter.render(ReportInput((run,)), tmp_path)
        assert "guest.memory" in page, reporter.format
        assert observed in page or (reporter.format == "junit" and status is Status.PASSED)


def test_a_rung_that_decides_refutes_the_claims_that_require_it(memory: Rung) -> None:
    decisive = replace(memory, required_by=frozenset({Claim.ANDROID}), decisive=True)
    LADDER.rungs = tuple(decisive if rung is memory else rung for rung in LADDER)
    checks = dict.fromkeys(LADDER.names, lambda: GOOD) | {
        memory.name: partial(decisive, _site("MemTotal: 1 kB"))
    }
    verdicts = judge(climb(checks, steps=Steps()).outcomes, MAC)
    assert verdicts[Claim.NESTING].verdict is Verdict.CONFIRMED
    assert verdicts[Claim.ANDROID].verdict is Verdict.REFUTED
    assert verdicts[Claim.ANDROID].reason == "guest.memory failed: 0 MiB"


def test_rungs_stand_in_the_order_of_their_layers() -> None:
    layers = list(Layer)
    places = [layers.index(rung.layer) for rung in LADDER]
    assert places == sorted(places)


def _facts() -> Facts:
    probe = Probe.model_validate(kvm_probe())
    return Facts(
        vm_settings={"cpus": "2"},
        vm_boot=L1Boot(boot_id="a", uptime_seconds=1.5, kernel="Linux 6.12"),
        guest=KvmFacts.model_validate({"probe": kvm_probe(), "facts": cpu_facts()}),
        docker={"version": "26.1", "security": ["name=apparmor"]},
        container_kvm=probe,
        nested_launches=Launches(failed=[]),
        nested_boot=L2Boot(seconds=7.5, acceleration="kvm"),
        nested_adb=L2Adb(address="127.0.0.1:15555", boot_id="b"),
        android_boot=AndroidBoot.model_validate(
            {"release": "14", "double": False, "timeline": [StageFact(name="kvm-open", seconds=None)]}
        ),
        android_usable=AndroidUse(
            checks=[Looked(name="novnc", ok=None, observed="no answer yet")],
            timeline=[],
            diagnoses=[Recognised(name="boot-loop", what="it", lines=["a"], final=True, refutes=False)],
            double=False,
        ),
        nested_compare=ComparedBoots(
            with_kvm_seconds=None, without_kvm_seconds=8.0, ratio=None, n=0, why="lost"
        ),
    )


def test_facts_are_named_by_rung_and_say_only_what_was_measured() -> None:
    found = _facts().document()
    assert found["vm.boot"] == {"boot_id": "a", "uptime_seconds": 1.5, "kernel": "Linux 6.12"}
    assert found["android.boot"] == {
        "release": "14",
        "double": False,
        "timeline": [{"name": "kvm-open", "seconds": None}],
    }
    assert found["nested.launches"] == {"failed": []}
    assert found["nested.compare"]["with_kvm_seconds"] is None
    assert found["guest"]["probe"] == found["container.kvm"]
    assert Facts().document() == {}


def test_facts_are_read_as_they_were_written() -> None:
    facts = _facts()
    assert all(getattr(facts, name) is not None for name in Facts.model_fields), "all members are tried"
    assert Facts.read(json.loads(json.dumps(facts.document()))).document() == facts.document()


@pytest.mark.parametrize("name", sorted(_facts().document()))
def test_what_does_not_fit_was_not_measured_and_hides_nothing_else(name: str) -> None:
    found = _facts().document()
    for misfit in ("a word", 7, ["a"], {"seconds": "soon", "kernel": [], "failed": 1, "probe": 0}):
        if name in ("docker", "android.boot") and isinstance(misfit, dict):
            continue  # they hold any names
        facts = Facts.read(found | {name: misfit, "vm.tea": {"cups": 2}}).document()
        assert facts.pop(name, {}) == {}
        assert facts == {key: value for key, value in found.items() if key != name}
