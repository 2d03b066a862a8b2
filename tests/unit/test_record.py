"""A lab's record as an earlier lab wrote it: read, carried over, and written as one of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.core.errors import LabError
from lab.records.labs import Lab, Store
from lab.records.record import Instance, Record

FIRST: dict[str, Any] = json.loads((Path(__file__).parent / "records" / "lab-record-1.json").read_text())
"""lab.record/1, whose main emulator is apart from the one beside it."""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Store(tmp_path).place("default")
    made.record_file.write_text(json.dumps(FIRST))
    return made


def test_the_main_emulator_of_an_old_record_is_an_instance(lab: Lab) -> None:
    main = Instance(kind="canary", index=0, nonce="main-nonce", failed_launches=["L2 ended by itself"])
    record = lab.record()
    assert record.instances == {"main": main, "second": Instance(**FIRST["instances"]["second"])}
    assert next(iter(record.instances)) == "main" and record.emulator == "canary"


def test_so_is_that_of_each_of_its_snapshots(lab: Lab) -> None:
    good, bare = lab.record().saved["good"], lab.record().saved["bare"]
    assert good.boot_id == "boot-then" and good.instances["second"].nonce == "then-beside"
    assert good.instances["main"] == Instance(kind="canary", index=0, nonce="then-nonce")
    assert bare.instances == {"main": Instance(kind="canary", index=0, nonce="bare-nonce")}


def test_nothing_else_of_it_changes(lab: Lab) -> None:
    kept = FIRST.keys() - {"schema_", "emulator", "nonce", "failed_launches", "instances", "saved"}
    now = lab.record().model_dump()
    assert {key: now[key] for key in kept} == {key: FIRST[key] for key in kept}
    assert now["schema_"] == "lab.record/2"


def test_it_is_written_as_one_of_today_and_read_again(lab: Lab) -> None:
    before = lab.record()
    assert lab.change(verdict="refuted") == before.model_copy(update={"verdict": "refuted"})
    written = json.loads(lab.record_file.read_text())
    assert written["schema_"] == "lab.record/2" and "emulator" not in written and "nonce" not in written


def test_one_of_before_there_were_several_emulators_or_none() -> None:
    """Its snapshots know a nonce and L1's boot id alone."""
    old = {key: FIRST[key] for key in FIRST.keys() - {"instances", "emulator_why"}}
    old["saved"] = {"then": {"nonce": "n", "boot_id": "b"}}
    assert Record.model_validate(old).saved["then"].instances["main"].nonce == "n"
    without = Record.model_validate(old | {"emulator": "none"})
    assert (without.emulator, without.instances, without.saved["then"].instances) == ("none", {}, {})


@pytest.mark.parametrize(
    "damaged", [{"instances": 7}, {"saved": {"x": []}}, {"emulator": None}, {"failed_launches": "x"}]
)
def test_a_damaged_one_is_named(lab: Lab, damaged: dict[str, Any]) -> None:
    lab.record_file.write_text(json.dumps(FIRST | damaged))
    with pytest.raises(LabError, match="cannot be read"):
        lab.record()
