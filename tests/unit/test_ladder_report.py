"""The document of a climb, and its summary: what they say, and what they must not."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest

from lab.core import redact
from lab.core.steps import Steps
from lab.ladder.climb import climb
from lab.ladder.report import describe, document, summary
from lab.ladder.rungs import LADDER
from lab.ladder.verdict import judge
from lab.model.domain import Cell, Claim, Host, Nesting, Outcome, Status, Verdict
from lab.theory.observed import cell_of
from tests import schema
from tests.unit.documents.parts import CELL, UUID, absent, validation


def test_what_a_validation_document_says() -> None:
    redact.register("s3cret-nonce")
    found = validation(facts={"nonce": "s3cret-nonce"})
    assert (found["claim"], found["verdict"]) == ("nesting", "inconclusive")
    assert found["reason"] == "nested.boot could not be settled: ADB did not answer in 60 s"
    assert (found["started"], found["seconds"]) == ("2026-01-02T01:04:05.000+00:00", 61.5)
    assert "s3cret" not in json.dumps(found)
    with pytest.raises(ValueError, match="zone"):
        naive = datetime(2026, 1, 2)
        document(
            lab_name="a",
            lab_uuid=UUID,
            cell=CELL,
            climbed=climb({}, steps=Steps()),
            claims=judge([], CELL),
            claim=Claim.NESTING,
            started=naive,
            ended=datetime.now(UTC),
        )


def test_a_cell_is_the_same_over_any_transport_and_older_ones_tell_none() -> None:
    spoken = dataclasses.replace(CELL, transport="VBoxManage: no bindings")
    found = validation()
    assert spoken == CELL and hash(spoken) == hash(CELL)
    assert cell_of(found["cell"]) == spoken
    found["cell"]["transport"] = spoken.transport
    schema.validate(found)
    assert cell_of(found["cell"]).transport == spoken.transport


PC = dataclasses.replace(CELL, host=dataclasses.replace(CELL.host, pc="Bochs 2.7, corei7_haswell_4770"))


def test_an_emulated_pc_is_part_of_the_cell_and_an_older_cell_has_none() -> None:
    found = validation()
    assert PC != CELL and "pc" not in found["cell"]["host"]
    assert "Bochs 2.7" in describe(PC) and "emulated PC" not in describe(CELL)
    found["cell"]["host"]["pc"] = PC.host.pc
    schema.validate(found)
    assert cell_of(found["cell"]) == PC
    with pytest.raises(ValueError, match="is emulated"):
        dataclasses.replace(PC, nesting=Nesting.HARDWARE, emulated=False)
    found["cell"] |= {"nesting": "hardware", "emulated": False}
    with pytest.raises(schema.SchemaError):
        schema.validate(found)
    found["cell"] |= {"emulated": True, "host": found["cell"]["host"] | {"pc": ""}}
    with pytest.raises(schema.SchemaError):
        schema.validate(found)


def test_to_call_a_host_an_emulated_pc_can_only_lower_a_claim() -> None:
    """Whatever the rungs say: on a Mac, with Android, on what would be real hardware."""
    passed = [Outcome(name, Status.PASSED, observed="seen") for name in LADDER.names]
    mac = Cell(
        Host("macos", "macOS 13.7", "22.6.0", "Intel Core i9"),
        "virtualbox",
        "7.2.22",
        "hvf",
        Nesting.HARDWARE,
        False,
        "kvm",
        "ubuntu",
        "docker-android",
        "docker-android@sha256:0",
        True,
    )
    assert {found.verdict for found in judge(passed, mac).values()} == {Verdict.CONFIRMED}
    told = dataclasses.replace(mac, host=dataclasses.replace(mac.host, pc="Bochs 2.7"), emulated=True)
    found = judge(passed, told)
    assert found[Claim.NESTING].verdict is Verdict.CONFIRMED
    assert found[Claim.ANDROID].verdict is found[Claim.THEORY].verdict is Verdict.BLOCKED
    linux = dataclasses.replace(told, host=dataclasses.replace(told.host, system="linux"))
    assert judge(passed, linux)[Claim.THEORY].verdict is Verdict.NOT_APPLICABLE


def test_an_engine_that_cannot_be_asked_still_gives_a_document() -> None:
    cell = dataclasses.replace(
        CELL, engine_version="", acceleration="", nesting=Nesting.NONE, emulated=False, image=""
    )
    climbed = climb({"host.engine": absent}, steps=Steps())
    claims = judge(climbed.outcomes, cell)
    now = datetime.now(UTC)
    found = document(
        lab_name="a",
        lab_uuid=UUID,
        cell=cell,
        climbed=climbed,
        claims=claims,
        claim=Claim.NESTING,
        started=now,
        ended=now,
    )
    schema.validate(found)
    assert (found["verdict"], found["reason"]) == (
        "blocked",
        "host.engine was blocked: qemu is not installed",
    )
    assert summary(cell, claims, Claim.NESTING)[0].startswith(
        "nesting: blocked, for qemu (not started, no nesting)"
    )


def test_the_summary_names_verdict_cell_and_limits() -> None:
    first, *rest = summary(CELL, judge([], CELL), Claim.NESTING)
    assert first.startswith("nesting: inconclusive, for qemu 7.2.17 (tcg, nesting emulated in software)")
    text = "\n".join(rest)
    assert "android: blocked" in text and "theory: not applicable" in text
    for limit in ("real hardware", "no Android", "not settled here", "macOS"):
        assert any(line.startswith("not proven:") and limit in line for line in rest), limit
