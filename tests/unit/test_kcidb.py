"""A night in kernel CI's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.core.errors import UsageError
from lab.model.domain import Verdict
from lab.nights import kcidb
from lab.tasks.nightly.export import KCIDB_LIKE, export
from tests import schema
from tests.unit import nights
from tests.unit.bed import Bed, checked
from tests.unit.test_known_issues import OPEN, issue, night, run, written


def exported(bed: Bed, number: str, folder: Path) -> dict[str, Any]:
    checked(export(bed.session(), night=number, to=str(folder / "night.json"), form=KCIDB_LIKE))
    document: dict[str, Any] = json.loads((folder / "night.json").read_text())
    schema.validate(document)
    return document


def test_a_green_night(bed: Bed, tmp_path: Path) -> None:
    green, _ = nights.spend(bed)
    document = exported(bed, "1", tmp_path)
    tests = {test["id"]: test for test in document["tests"]}
    statuses = {test["path"]: test["status"] for test in document["tests"]}
    assert len(tests) == len(document["tests"]), "every id is of one test"
    assert statuses["lab.claims.nesting"] == "PASS" and statuses["lab.claims.theory"] == "SKIP"
    assert statuses["lab.rungs.nested.adb"] == "PASS" and statuses["lab.rungs.android.boot"] == "SKIP"
    assert statuses["lab.figures.nested_boot"] == "DONE"
    (figure,) = [test for test in document["tests"] if test["path"] == "lab.figures.nested_boot"]
    assert figure["number"] == {"value": 6.0, "unit": "s"}
    assert all(test["id"].startswith(f"lab:{green['uuid']}:") for test in document["tests"])
    assert (document["issues"], document["incidents"], document["runs"]) == ([], [], 4)


def test_a_red_night_has_its_issue_and_an_incident_for_each_failure(bed: Bed, tmp_path: Path) -> None:
    bed.world.kvm_ok = False
    nights.spend(bed)
    written(bed, OPEN)
    document = exported(bed, "1", tmp_path)
    statuses = {test["id"].split(":", 2)[2]: test["status"] for test in document["tests"]}
    assert statuses["nesting"] == "FAIL" and statuses["1:guest.kvm"] == "FAIL"
    assert statuses["1:nested.boot"] == "MISS"
    (known,) = document["issues"]
    assert known["culprit"] == {"code": False, "tool": True, "harness": False}
    ids = {test["id"] for test in document["tests"]}
    assert [each["test_id"].split(":", 2)[2] for each in document["incidents"]] == [
        f"{number}:guest.kvm" for number in (1, 2, 3)
    ]
    assert all(each["test_id"] in ids and each["issue_id"] == known["id"] for each in document["incidents"])


def test_a_rung_that_only_informs_is_no_failure_and_a_timeout_is_no_finding() -> None:
    one = night(run(("host.cpu", "failed", "no vmx"), ("guest.kvm", "inconclusive", "it froze")))
    statuses = {test.path: test.status for test in kcidb.document(one, ()).tests}
    assert statuses["lab.rungs.host.cpu"] == "DONE" and statuses["lab.rungs.guest.kvm"] == "ERROR"


def test_a_night_that_broke_before_it_was_about_anything_is_a_test_all_the_same() -> None:
    one = night(verdict="inconclusive", reason="the night broke")
    document = kcidb.document(one, [issue(message="broke")])
    (test,) = document.tests
    assert (test.path, test.status) == ("lab.claims.nesting", "ERROR")
    assert [each.test_id for each in document.incidents] == [test.id]


@pytest.mark.parametrize(
    ("culprit", "meant"), [("code", "code"), ("theory", "code"), ("tool", "tool"), ("host", "harness")]
)
def test_culprits(culprit: str, meant: str) -> None:
    one = issue(rung="guest.kvm").model_copy(update={"culprit": culprit})
    (known,) = kcidb.document(night(run(("guest.kvm", "failed", "no"))), [one]).issues
    assert [name for name, guilty in known.culprit.as_json().items() if guilty] == [meant]


def test_every_verdict_has_a_word() -> None:
    assert set(kcidb.VERDICTS) == set(Verdict)


def test_an_unknown_form_is_refused(bed: Bed, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="csv"):
        export(bed.session(), night="1", to=str(tmp_path / "x"), form="csv")
