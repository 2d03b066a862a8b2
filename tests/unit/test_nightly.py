"""nightly.run and nightly.history on the fakes: nights that end as they should, and what is kept of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.core import deadline
from lab.core.errors import UsageError
from lab.core.tell import Terminal
from lab.engines.protocol import State
from lab.history import model as figures
from lab.history.model import counted
from lab.history.store import History
from lab.nights import telling
from lab.notify import github, webhook
from lab.tasks.lab.up import up
from lab.tasks.nightly.history import history
from lab.tasks.nightly.run import ROADS, run
from tests.unit.bed import Bed
from tests.unit.fakes import TCG
from tests.unit.nights import (
    before_looks,
    blocked,
    past,
    session,
    spend,
)

AT = "2026-01-02T03:04:05.678+00:00"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    for name in ("LAB_WEBHOOK_URL", "LAB_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def test_a_green_night(bed: Bed) -> None:
    result, code = spend(bed)
    assert (result["verdict"], result["claim"], code) == ("confirmed", "nesting", 0)
    assert [each["kind"] for each in result["runs"]] == ["up", "validate", "validate", "compare"]
    (nesting,) = [item for item in result["claims"] if item["claim"] == "nesting"]
    assert nesting["counts"] == counted({"confirmed": 4})
    (theory,) = [item for item in result["claims"] if item["claim"] == "theory"]
    assert theory["verdict"] == "not applicable"
    taken = [(item["name"], item["value"]) for each in result["runs"] for item in each["figures"]]
    assert taken == [  # the one L2 of the night tells its boot once, however often it is looked at
        (figures.NESTED_BOOT, 6.0),
        (figures.NESTED_BOOT_KVM, 6.0),
        (figures.NESTED_BOOT_TCG, 60.0),
        (figures.NESTED_RATIO, 10.0),
    ]
    assert bed.session().store.find("nightly") is None
    assert bed.world.state is State.ABSENT
    assert (result["findings"], result["notes"], result["clock_jump"]) == ([], [], 0)
    folder = Path(result["evidence"])
    assert {"run.json", "steps.jsonl", "night.json", "summary.md", "report.html"} <= {
        file.name for file in folder.iterdir()
    }
    assert Path(result["report"]) == folder / "report.html"
    (ratio,) = json.loads((folder / "report.json").read_text())["comparison"]["ratios"]
    assert ratio["ratio"] == 10.0
    for form in ("report.html", "report.md", "summary.md"):
        assert "10.0 times" in (folder / form).read_text(), form
    for each in result["runs"]:
        assert (Path(each["evidence"]) / "validation.json").is_file()
    assert past(bed) == [result]


def test_each_run_keeps_its_own_steps_and_the_night_all_of_them(bed: Bed) -> None:
    result, _ = spend(bed)

    def steps(folder: str) -> list[str]:
        lines = (Path(folder) / "steps.jsonl").read_text().splitlines()
        return [json.loads(line)["name"] for line in lines if '"started"' in line]

    first, second = (steps(each["evidence"]) for each in result["runs"][:2])
    assert first.count("nested.adb") == second.count("nested.adb") == 1
    assert steps(result["evidence"]).count("nested.adb") == 4


def test_a_refuted_night(bed: Bed) -> None:
    bed.world.kvm_ok = False
    result, code = spend(bed)
    assert (result["verdict"], code) == ("refuted", 10)
    assert [each["kind"] for each in result["runs"]] == ["up", "validate", "validate"]  # nothing to compare
    assert "guest.kvm" in result["reason"]


def test_a_mixed_night_is_inconclusive_with_its_counts(bed: Bed) -> None:
    def worse() -> None:
        assert bed.world.l2
        bed.world.l2.hypervisor = TCG

    result, code = spend(bed, before_looks(lambda: None, worse))
    assert (result["verdict"], code) == ("inconclusive", 12)
    assert result["claims"][0]["counts"] == counted({"confirmed": 2, "refuted": 1})
    assert "do not agree" in result["reason"]


def test_a_claim_that_is_asked_for_chooses_the_code(bed: Bed) -> None:
    result, code = spend(bed, claim="android")
    assert (result["claim"], code) == ("android", 11)
    with pytest.raises(UsageError):
        spend(bed, claim="sorcery")


def test_two_nights_are_two_nights(bed: Bed) -> None:
    spend(bed)
    bed.world.kvm_ok = False
    result, _ = spend(bed)
    (finding,) = result["findings"]
    assert finding["worse"]
    assert "confirmed on 1 of the 1 nights" in finding["text"]
    assert [item["verdict"] for item in past(bed)] == ["refuted", "confirmed"]


def test_an_update_that_costs_a_claim_is_told_everywhere_with_what_was_updated(bed: Bed) -> None:
    spend(bed)
    bed.world.facts = replace(bed.world.facts, version="8.0")
    bed.world.kvm_ok = False
    result, _ = spend(bed)
    (finding,) = result["findings"]
    said = "changed since then: QEMU 7.2 → 8.0"
    assert finding["worse"]
    assert said in finding["text"]
    assert said in (Path(result["evidence"]) / "summary.md").read_text()
    with History(bed.session().history_file) as record:
        notice = telling.notice_of(record.nights(1)[0])
    assert any(said in line for line in notice.lines)  # mail is these lines
    assert said in notice.document()["findings"][0]["text"]
    assert said in webhook.slack_message(notice)["blocks"][1]["text"]["text"]
    assert said in github._title(notice.findings[0], notice) + github._body(notice.findings[0], notice)


def test_a_night_that_breaks_before_any_cell_is_about_what_the_last_one_was(bed: Bed) -> None:
    spend(bed)
    result, code = spend(bed, replace(ROADS, up=blocked))
    assert (result["verdict"], result["claim"], result["cell"], code) == ("blocked", "nesting", None, 11)
    (finding,) = result["findings"]
    assert finding["worse"]
    assert "nesting is blocked tonight and was confirmed on 1 of the 1 nights" in finding["text"]
    assert "a port is taken" in finding["text"]


def test_a_night_shows_itself(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    bed.world.kvm_ok = False
    for reply in (run(session(bed)), history(bed.session())):
        assert reply.show
        reply.show(Terminal(sys.stdout, width=100))
    said = capsys.readouterr().out
    assert "nesting: refuted" in said
    assert "report.html" in said


def test_forgotten_nights_take_their_evidence_along_and_nothing_else(bed: Bed) -> None:
    up(bed.session(), "other")
    for _ in range(3):
        spend(bed, keep_nights=2)
    assert len(past(bed)) == 2
    kept = {Path(each["evidence"]).name for item in past(bed) for each in item["runs"]}
    left = {path.name for path in (bed.session().store.evidence_folder / "nightly").iterdir()}
    assert kept <= left
    assert len([name for name in left if name.endswith("-night")]) == 2
    assert len([name for name in left if name.endswith("-destroy")]) == 2
    assert bed.runs("other")


def test_history_shows_as_many_as_asked_for(bed: Bed) -> None:
    for _ in range(3):
        spend(bed, runs=1, compare=False)
    assert len(history(bed.session(), 2).document["nights"]) == 2
    assert len(history(bed.session(), 0).document["nights"]) == 3
    with pytest.raises(UsageError):
        history(bed.session(), -1)
