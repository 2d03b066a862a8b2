"""nightly.keep_on: a red night's VM is kept, suspended, for a while; the notice says how to get in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.config.model import Settings
from lab.core import deadline
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.engines.protocol import State
from lab.history.store import History
from lab.nights import night, nightlab, telling
from lab.nights.nightlab import KEPT, MARK
from lab.tasks.lab.up import up
from lab.tasks.nightly.run import ROADS
from tests.unit.bed import Bed, checked
from tests.unit.nights import blocked, session, stop


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def spend(bed: Bed, roads: night.Roads = ROADS, **settings: Any) -> dict[str, Any]:
    known = {"runs": 1, "compare": False, "keep_on": ["refuted"]} | settings
    return checked(night.run(session(bed, **known), roads))["night"]  # type: ignore[no-any-return]


def labs(bed: Bed) -> list[str]:
    return [lab.name for lab in bed.session().store.labs()]


def refuted(bed: Bed, **settings: Any) -> dict[str, Any]:
    bed.world.kvm_ok = False
    result = spend(bed, **settings)
    assert result["verdict"] == "refuted"
    return result


def another(bed: Bed) -> Bed:
    """The same host with a world in which no VM is: the fakes' world has but one."""
    return Bed(bed.folder, bed.patch)


def expire(bed: Bed, name: str = "nightly", hours: float = -1) -> None:
    file = bed.session().store.get(name).folder / KEPT
    until = datetime.now(UTC) + timedelta(hours=hours)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"until": until.isoformat()}))


def test_nothing_is_kept_unless_asked_for(bed: Bed) -> None:
    assert Settings().nightly.keep_on == []
    refuted(bed, keep_on=["inconclusive"])
    assert labs(bed) == []


def test_a_refuted_nights_vm_is_kept_suspended_and_the_notice_says_how_to_get_in(bed: Bed) -> None:
    result = refuted(bed, keep_hours=5)
    assert labs(bed) == ["nightly"]
    assert bed.world.state is State.SUSPENDED
    (note,) = result["notes"]
    assert note.startswith("the VM is kept, suspended, until 20")
    for task in ("lab.resume", "lab.ssh", "lab.destroy"):
        assert f"`invoke {task} --name nightly`" in note
    with History(bed.session().history_file) as history:
        assert any(note in line for line in telling.notice_of(history.nights(1)[0]).lines)
    (kept,) = nightlab.kept_labs(bed.session())
    assert timedelta(hours=4.9) < kept.until - datetime.now(UTC) <= timedelta(hours=5)
    assert json.loads((kept.lab.folder / KEPT).read_text())["night"] == result["uuid"]
    assert kept.bytes > 0


def test_a_confirmed_night_is_removed_and_so_is_one_that_a_person_stopped(bed: Bed) -> None:
    assert spend(bed)["verdict"] == "confirmed"
    bed.world.before["probe"] = stop

    def stopped(*_: object) -> Any:
        raise InterruptedByUser("stopped")

    with pytest.raises(InterruptedByUser):
        spend(bed, replace(ROADS, validate=stopped), runs=2, keep_on=["refuted", "inconclusive", "blocked"])
    deadline.cancelled.clear()
    assert labs(bed) == []


def test_a_night_without_a_vm_keeps_nothing(bed: Bed) -> None:
    result = spend(bed, replace(ROADS, up=blocked), keep_on=["blocked"])
    assert (result["verdict"], labs(bed), result["notes"]) == ("blocked", [], [])


def test_a_lab_that_came_to_no_vm_is_removed_without_a_word(bed: Bed) -> None:
    def refuse(*_: object) -> Any:
        raise BlockedError("no image can be had")

    bed.use(guest_image=refuse)
    result = spend(bed, keep_on=["blocked"])
    assert (result["verdict"], labs(bed), result["notes"]) == ("blocked", [], [])


def test_one_whose_vm_is_off_is_kept_as_it_is(bed: Bed) -> None:
    def lost(session: Any, name: str, claim: str) -> Any:
        bed.world.state = State.STOPPED
        raise LabError("its VM is gone")

    result = spend(bed, replace(ROADS, validate=lost), runs=2, keep_on=["inconclusive"])
    assert labs(bed) == ["nightly"]
    assert "kept, stopped, until" in result["notes"][0]
    assert "`invoke lab.up --name nightly`" in result["notes"][0]


def test_one_that_cannot_be_suspended_is_removed_and_that_is_said(bed: Bed) -> None:
    def refuse() -> None:
        raise LabError("no room for its memory")

    bed.world.before["suspend"] = refuse
    result = refuted(bed)
    assert labs(bed) == []
    assert result["notes"] == ["the lab nightly could not be kept: no room for its memory"]


def test_later_nights_go_on_beside_it_and_remove_it_when_its_time_is_over(bed: Bed) -> None:
    first = refuted(bed)
    later = another(bed)
    second = spend(later)
    assert (second["verdict"], labs(bed)) == ("confirmed", ["nightly"])
    assert {Path(run["evidence"]).parent.name for run in second["runs"]} == {"nightly-2"}
    third = refuted(another(bed))
    assert labs(bed) == ["nightly", "nightly-2"]
    assert "--name nightly-2`" in third["notes"][0]
    expire(bed)
    fourth = spend(another(bed))
    assert labs(bed) == ["nightly-2"]
    assert fourth["notes"] == ["the lab nightly, which was kept, is removed: its time was over"]
    assert Path(fourth["runs"][0]["evidence"]).parent.name == "nightly"
    assert Path(first["runs"][0]["evidence"]).is_dir()  # evidence stays


def test_the_disk_has_a_limit_and_the_oldest_go(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    refuted(bed)
    expire(bed, hours=1)
    monkeypatch.setattr(nightlab, "_size", lambda _: 3 << 29)
    result = refuted(another(bed), keep_gib=2)
    assert labs(bed) == ["nightly-2"]
    assert "the lab nightly, which was kept, is removed: what is kept took more than 2 GiB" in result["notes"]
    result = refuted(another(bed), keep_gib=1)  # too large by itself
    assert labs(bed) == []
    assert not any("the VM is kept" in note for note in result["notes"])


def test_nobody_elses_lab_is_removed_whatever_it_is_called(bed: Bed) -> None:
    up(bed.session(), "nightly-2")
    refuted(another(bed))
    stranger = bed.session().store.get("nightly-2")
    (stranger.folder / KEPT).write_text("{}")  # a mark alone makes no night's lab
    result = refuted(another(bed))
    assert labs(bed) == ["nightly", "nightly-2", "nightly-3"]
    assert not (stranger.folder / MARK).exists()
    assert "--name nightly-3`" in result["notes"][0]


def test_a_mark_that_is_torn_keeps_nothing_for_ever(bed: Bed) -> None:
    refuted(bed)
    (bed.session().store.get("nightly").folder / KEPT).write_text("{")
    spend(another(bed))
    assert labs(bed) == []


def test_one_that_somebody_works_on_is_left_to_a_later_night(bed: Bed) -> None:
    refuted(bed)
    expire(bed)
    with bed.session().store.get("nightly").hold("lab.ssh"):
        result = spend(another(bed))
    assert labs(bed) == ["nightly"]
    assert result["notes"][0].startswith("the lab nightly, which was kept, is still there: ")


def test_forgotten_nights_take_the_evidence_of_every_name_along(bed: Bed) -> None:
    refuted(bed)
    spend(another(bed))
    for _ in range(2):
        spend(another(bed), keep_nights=1)
    root = bed.session().store.evidence_folder
    kept = {Path(path).name for path in [spend(another(bed), keep_nights=1)["evidence"]]}
    assert {path.name for path in root.glob("nightly*/*-night")} == kept
    assert len(list(root.glob("nightly-2/*-up"))) == 1
