"""The schemas are what the models say, and the models take and give what the schemas do."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from lab.documents import emulators, schemas
from lab.emulators.protocol import Check, Health
from lab.ladder import document as climb
from lab.ladder.verdict import ClaimVerdict
from lab.model import domain
from lab.model.document import JsonPart
from tests import schema
from tests.unit.documents import EXAMPLES
from tests.unit.documents.parts import validation

MODELS = schemas.models()
READABLE = [example for example in EXAMPLES if example["schema"] not in ("lab.report/1", "theory.rehearse/1")]
"""These two hold whole documents of another kind, and lab reads neither."""


@pytest.mark.parametrize("tag", MODELS)
def test_the_schema_file_is_the_models(tag: str) -> None:
    written = schema.file_of(tag).read_text()
    assert written == schemas.text(MODELS[tag]), "`python -m lab.documents` writes it anew"


def test_every_document_has_a_model() -> None:
    assert sorted(MODELS) == schema.names()


@pytest.mark.parametrize("example", READABLE, ids=[example["schema"] for example in READABLE])
def test_a_document_that_is_read_is_written_as_it_was(example: dict[str, Any]) -> None:
    document = json.loads(json.dumps(example))
    found = MODELS[example["schema"]].read(document)
    assert found.as_json() == document


def test_what_lab_writes_is_not_refused_for_its_form_and_what_it_reads_is() -> None:
    exec_ = MODELS["lab.exec/1"]
    document = exec_(argv=(), status=0, out="", err="", seconds=-1).as_json()
    assert list(document) == ["schema", "argv", "status", "out", "err", "seconds"]
    with pytest.raises(schema.SchemaError) as caught:
        exec_.read(document | {"argv": ["true"]})
    assert caught.value.path == "$.seconds"


def test_half_a_character_is_written_as_it_is_and_does_not_keep_a_document_from_being_read() -> None:
    exec_ = MODELS["lab.exec/1"]
    document = exec_(argv=["ls"], status=0, out="\udcff", err="", seconds=2).as_json()
    assert document["out"] == "\udcff" and document["seconds"] == 2 and isinstance(document["seconds"], int)
    assert exec_.read(json.loads(json.dumps(document))).as_json()["out"] == "?"


def test_a_document_of_another_kind_is_not_read() -> None:
    with pytest.raises(schema.SchemaError) as caught:
        MODELS["lab.list/1"].read({"schema": "lab.exec/1", "labs": []})
    assert caught.value.path == "$.schema"


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (climb.CellEntry, domain.Cell),
        (climb.HostEntry, domain.Host),
        (climb.ClaimEntry, ClaimVerdict),
        (emulators.HealthEntry, Health),
        (emulators.CheckEntry, Check),
    ],
)
def test_nothing_of_a_value_is_lost_in_its_document(entry: type[JsonPart], value: type[Any]) -> None:
    assert set(entry.model_fields) == {field.name for field in dataclasses.fields(value)}


def test_nothing_of_a_rungs_outcome_is_lost_in_its_row() -> None:
    for status in domain.Status:
        outcome = domain.Outcome("host.cpu", status, "vmx", "vmx", 1.5, ["dmesg.txt"], "a hint")
        row = climb.RungEntry(**outcome.row()).as_json()
        assert (
            domain.Outcome.of_row(climb.RungEntry.model_validate_json(json.dumps(row)).as_json()) == outcome
        )


@pytest.mark.parametrize(("pc", "emulated", "wrong"), [("", True, "pc"), ("Bochs 2.7, ryzen", False, "cell")])
def test_a_host_is_a_named_emulated_pc_only_in_an_emulated_cell(pc: str, emulated: bool, wrong: str) -> None:
    document = validation()
    document["cell"] |= {"nesting": "hardware", "emulated": emulated}
    document["cell"]["host"]["pc"] = pc
    with pytest.raises(schema.SchemaError) as caught:
        climb.Validation.read(document)
    assert caught.value.path.endswith(f".{wrong}")
    with pytest.raises(schema.SchemaError):
        schema.validate(document)
    document["cell"]["host"]["pc"] = "Bochs 2.7, ryzen"
    document["cell"]["emulated"] = True
    assert climb.Validation.read(document).as_json() == document
