"""What is newest, whatever the clock said: evidence folders, and all that picks one of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.model.domain import Claim
from lab.records import evidence
from lab.reports import measured
from lab.reports.reading import RunFolder, history
from lab.tasks.lab import evidence as command
from lab.tasks.lab import status
from lab.tasks.lab.report import report
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.workflow import climbing
from tests.unit.bed import Bed, checked

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


class Clock:
    """`datetime` for what stamps runs; `at` is what it says next, and a millisecond passes at each look."""

    at = NOON

    @classmethod
    def now(cls, _zone: object) -> datetime:
        cls.at += timedelta(milliseconds=1)
        return cls.at


@pytest.fixture(autouse=True)
def wall(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    for module in (evidence, climbing):
        monkeypatch.setattr(module, "datetime", Clock)
    return Clock


def _unnumbered(root: Path, name: str, lab: str = "default") -> Path:
    """A folder of a lab that did not number its runs yet."""
    folder = root / lab / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"lab": lab, "verb": "up", "started": str(NOON)}))
    return folder


@given(
    moves=st.lists(st.tuples(st.integers(-90_000, 90_000), st.sampled_from("ab")), max_size=8),
    old=st.lists(st.integers(10, 99), unique=True, max_size=4),
)
def test_runs_stand_in_the_order_in_which_they_were_made(
    moves: list[tuple[int, str]], old: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("evidence")
    before = [_unnumbered(root, f"29991231T2359{second}.000Z-up") for second in old]
    made = []
    for number, (seconds, lab) in enumerate(moves):
        Clock.at += timedelta(seconds=seconds)
        made.append(evidence.Run(root, lab, f"v{number}").path)
    assert evidence.runs(root) == [*sorted(before), *made]
    for lab in "ab":
        assert evidence.runs(root, lab) == [path for path in made if path.parent.name == lab]


@pytest.mark.parametrize("damage", ["{", "[]", '"up"', '{"order": "7"}', '{"order": null}', ""])
def test_a_run_whose_number_cannot_be_read_hides_no_other(tmp_path: Path, damage: str) -> None:
    first, second = (evidence.Run(tmp_path, "a", verb).path for verb in ("up", "validate"))
    (first / "run.json").write_text(damage)
    third = evidence.Run(tmp_path, "a", "destroy").path
    assert evidence.runs(tmp_path, "a") == [first, second, third]


def test_after_the_clock_was_set_back_the_newest_verdict_is_the_newest(bed: Bed, wall: type[Clock]) -> None:
    up(bed.session(), "default")
    bed.world.kvm_ok = False
    wall.at -= timedelta(days=1)
    validate(bed.session(), "default")
    assert checked(report(bed.session(), "default"))["verdict"] == "refuted"
    rows = checked(command.evidence(bed.session(), "default"))["runs"]
    assert [row["verdict"] for row in rows] == ["confirmed", "refuted"]
    assert checked(status.status(bed.session(), "default"))["evidence"] == rows[-1]["path"]
    both = checked(report(bed.session(), "default", runs=2))
    assert both["runs"] == [row["path"] for row in rows]
    folders = [Path(row["path"]) for row in rows]
    assert [row.verdict_on(Claim.NESTING) for row in history(map(RunFolder, folders))] == [
        "confirmed",
        "refuted",
    ]
    written = json.loads((folders[-1] / "report.json").read_text())["history"]
    assert [
        next(one["verdict"] for one in row["verdicts"] if one["claim"] == "nesting") for row in written
    ] == ["confirmed", "refuted"]


def test_what_was_measured_last_is_the_newest_measurement(bed: Bed, wall: type[Clock]) -> None:
    up(bed.session(), "default")
    (run,) = evidence.runs(bed.session().store.evidence_folder)
    for seconds in (0, -3600):
        wall.at += timedelta(seconds=seconds)
        evidence.Run(bed.session().store.evidence_folder, "default", "compare")
    beside = measured._beside(measured.ReportedRun({"facts": {}}, run), "default")
    assert [json.loads((folder / "run.json").read_text())["order"] for folder in beside] == [3, 2, 1]
