"""Every schema is valid, takes what lab prints, and refuses what is a little off."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lab import redact, schema
from lab.engines.protocol import State
from lab.errors import BlockedError, DeadlineError, ExitCode
from lab.ladder.climb import climb
from lab.ladder.model import NAMES, Cell, Claim, Host, Nesting, Observation, Status, Verdict
from lab.ladder.report import document, summary
from lab.ladder.verdict import judge, strongest_claim
from lab.steps import Steps

AT = "2026-01-02T03:04:05.678+00:00"
UUID = "0b0e7a52-7a2c-4f0c-9f2e-0f6e0a3f8f11"
CELL = Cell(
    Host("linux", "Debian 12", "6.1.0", "AMD EPYC"),
    "qemu",
    "7.2.17",
    "tcg",
    Nesting.EMULATED,
    True,
    "none",
    "debian-13-0a1b",
    "canary",
    "sha256:2c3d",
)
FORWARD = {"name": "ssh", "host": "127.0.0.1", "host_port": 10022, "guest_port": 22}
SSH = {"command": "ssh -p 10022 lab@127.0.0.1", "port": 10022}
ADB = {"address": "127.0.0.1:15555"}
SHA = "0" * 64


def late() -> Observation:
    raise DeadlineError("ADB did not answer in 60 s")


def absent() -> Observation:
    raise BlockedError("qemu is not installed")


def validation(**more: Any) -> dict[str, Any]:
    """A real document of a climb with outcomes of every kind."""
    good = Observation(True, "that", "this", evidence=["dmesg.txt"])
    checks = {name: (lambda: good) for name in NAMES if not name.startswith("android.")}
    checks["host.cpu"] = lambda: Observation(False, "vmx or svm", "neither")
    climbed = climb(checks | {"nested.boot": late}, steps=Steps(), skip={"android.boot": "not Android"})
    claims = judge(climbed.outcomes, CELL, "canary")
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    return document(
        lab_name="default",
        lab_uuid=UUID,
        cell=CELL,
        climbed=climbed,
        claims=claims,
        claim=strongest_claim(CELL),
        started=started,
        ended=started + timedelta(seconds=61.5),
        **more,
    )


EXAMPLES: list[dict[str, Any]] = [
    validation(evidence=Path("evidence/default/1"), facts={"nested": {"ratio": 11.5, "kvm": (12, 13)}}),
    validation()
    | {
        "schema": "lab.up/1",
        "access": {
            "ssh": SSH,
            "adb": ADB,
            "ports": [FORWARD],
            "evidence": "evidence/default/1",
            "stop": "invoke lab.halt",
        },
    },
    {
        "schema": "lab.status/1",
        "lab": {
            "name": "default",
            "uuid": UUID,
            "state": "running",
            "engine": "qemu",
            "acceleration": "tcg",
            "image": "debian-13-0a1b",
            "emulator": "canary",
            "created": AT,
        },
        "forwards": [FORWARD],
        "ssh": SSH,
        "adb": ADB,
        "holder": {"pid": 4711, "verb": "lab.up", "since": AT},
        "container": {
            "exists": True,
            "running": False,
            "health": "",
            "exit_code": 137,
            "image": "sha256:2c3d",
            "facts": {},
        },
        "evidence": "evidence/default/1",
    },
    {
        "schema": "lab.list/1",
        "labs": [{"name": "a", "uuid": UUID, "state": "half-made", "engine": "qemu", "created": AT}],
    },
    {
        "schema": "lab.config/1",
        "values": [{"key": "vm.cpus", "value": [2, {"x": None}], "origin": "lab.toml"}],
    },
    {
        "schema": "lab.doctor/1",
        "host": {"cpus": 2},
        "engines": [
            {
                "name": "qemu",
                "usable": True,
                "why": "it starts",
                "hint": "",
                "facts": {
                    "engine": "qemu",
                    "version": "7.2",
                    "acceleration": "tcg",
                    "nesting": "emulated",
                    "how": "no KVM here",
                    "details": {"cpu": "max"},
                },
                "findings": [
                    {"name": "driver", "good": False, "observed": "none", "hint": "load it", "source": ""}
                ],
            }
        ],
        "packages": [
            {"program": "qemu-img", "package": "qemu-utils", "present": True, "needed_for": "disks"}
        ],
        "kvm": {"usable": False, "why": "it hangs", "nested": None},
        "checks": [{"name": "disk", "status": "warn", "observed": "9 GiB", "hint": "free some"}],
    },
    {"schema": "lab.snapshots/1", "lab": "a", "snapshots": [{"name": "clean", "created": AT, "live": True}]},
    {
        "schema": "lab.evidence/1",
        "runs": [
            {
                "lab": "a",
                "run": "1-up",
                "verb": "up",
                "started": AT,
                "path": "evidence/a/1-up",
                "files": ["run.json"],
                "verdict": "refuted",
            }
        ],
    },
    {
        "schema": "lab.exec/1",
        "argv": ["uname", "-r"],
        "status": 0,
        "out": "6.12\n",
        "err": "",
        "seconds": 0.4,
    },
    {
        "schema": "image.list/1",
        "cache": "cache/images",
        "images": [
            {
                "id": "debian-13-0a1b",
                "kind": "guest",
                "name": "debian-13",
                "bytes": 1,
                "created": AT,
                "sha256": SHA,
                "in_use_by": ["a"],
            }
        ],
    },
    {
        "schema": "image.action/1",
        "action": "verify",
        "results": [
            {
                "id": "debian-13-0a1b",
                "kind": "guest",
                "name": "debian-13",
                "result": "bad",
                "bytes": 1,
                "sha256": SHA,
                "why": "its hash differs",
            }
        ],
        "seconds": 1.5,
        "notes": ["one"],
    },
    {
        "schema": "lab.action/1",
        "lab": "a",
        "action": "halt",
        "state": "stopped",
        "changed": True,
        "notes": ["forced"],
    },
    {
        "schema": "lab.error/1",
        "error": {"what": "no", "hint": "", "evidence": ["log"], "tail": "", "exit_code": 20},
    },
    {
        "schema": "bench/1",
        "host": {"cpus": 2},
        "lab_version": "0.1.0",
        "started": AT,
        "seconds": 9,
        "measures": [
            {
                "name": "status",
                "unit": "s",
                "n": 2,
                "values": [0.4, 0.5],
                "median": 0.45,
                "min": 0.4,
                "max": 0.5,
                "limit": 1,
                "within": True,
                "note": "",
            }
        ],
    },
    {
        "schema": "test/1",
        "tier": "unit",
        "passed": 1,
        "failed": 1,
        "errors": 0,
        "skipped": 0,
        "seconds": 1,
        "failures": [{"test": "a::b", "message": "no"}],
        "report": "junit.xml",
    },
]
BY_SCHEMA = pytest.mark.parametrize("example", EXAMPLES, ids=[example["schema"] for example in EXAMPLES])
# Where a schema lets anything in, by the name of the member.
FREE = {"host", "facts", "value"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every member and item below `value`, free-form ones left out."""
    items = (
        value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    )
    for key, item in items:
        free = key in FREE and not (key == "host" and ("cell" in path or isinstance(item, str)))
        free = free and not (key == "facts" and "engines" in path)
        if not free:
            yield (*path, key)
            yield from places(item, (*path, key))


def parent_of(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def test_every_schema_has_an_example() -> None:
    assert sorted(example["schema"] for example in EXAMPLES) == schema.names()


@pytest.mark.parametrize("name", schema.names())
def test_the_schema_is_one_and_is_named_as_its_file(name: str) -> None:
    found = schema.load(name)
    Draft202012Validator.check_schema(found)
    assert found["$id"] == schema.file_of(name).name
    assert found["properties"]["schema"] == {"const": name}


@BY_SCHEMA
def test_the_example_passes(example: dict[str, Any]) -> None:
    schema.validate(example)


@BY_SCHEMA
def test_no_member_may_be_of_another_type(example: dict[str, Any]) -> None:
    for path in places(example):
        wrong = copy.deepcopy(example)
        parent_of(wrong, path)[path[-1]] = {"no such": "thing"}
        if path[0] != "schema" and path[-1] not in ("details",):
            with pytest.raises(schema.SchemaError):
                schema.validate(wrong)
                pytest.fail(f"{path} may be anything")


@BY_SCHEMA
def test_no_member_may_be_missing_or_unknown(example: dict[str, Any]) -> None:
    for path in places(example):
        holder = parent_of(example, path)
        if not isinstance(holder, dict) or "details" in path or "container" in path[:-1]:
            continue
        for change in ("drop", "add"):
            wrong = copy.deepcopy(example)
            target = parent_of(wrong, path)
            if change == "drop":
                del target[path[-1]]
            else:
                target["no such"] = 1
            with pytest.raises(schema.SchemaError):
                schema.validate(wrong)
                pytest.fail(f"{change} {path} goes unnoticed")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "confirmed"),  # not what its claim says
        (("rungs", 1, "observed"), ""),  # passed, with nothing observed
        (("rungs", 1, "inconclusive"), True),  # passed, and inconclusive
        (("rungs", 1, "blocked_by"), "host.cpu"),  # passed, and blocked
        (("rungs", 0, "rung"), "host.gpu"),
        (("rungs", 0, "seconds"), -1),
        (("cell", "emulated"), False),  # though its nesting is emulated
        (("started",), "yesterday"),
    ],
)
def test_a_validation_cannot_contradict_itself(path: tuple[Any, ...], value: Any) -> None:
    wrong = validation()
    parent_of(wrong, path)[path[-1]] = value
    with pytest.raises(schema.SchemaError):
        schema.validate(wrong)


def test_the_error_names_the_place() -> None:
    wrong = copy.deepcopy(next(example for example in EXAMPLES if example["schema"] == "lab.list/1"))
    wrong["labs"][0]["state"] = "asleep"
    with pytest.raises(schema.SchemaError, match="asleep") as caught:
        schema.validate(wrong)
    assert caught.value.path == "$.labs[0].state"


@pytest.mark.parametrize("nameless", [{}, {"schema": "lab.nothing/1"}, {"schema": 1}, {"schema": "../x/1"}])
def test_an_unknown_schema_is_refused(nameless: dict[str, Any]) -> None:
    with pytest.raises(schema.SchemaError) as caught:
        schema.validate(nameless)
    assert caught.value.path == "$.schema"


def test_what_json_cannot_say_is_refused() -> None:
    for value in (float("nan"), Path("x")):
        with pytest.raises(schema.SchemaError, match="not JSON"):
            schema.validate(
                {"schema": "lab.config/1", "values": [{"key": "k", "value": value, "origin": "o"}]}
            )


def test_the_schemas_know_every_word_of_the_code() -> None:
    defs = schema.load("lab.validation/1")["$defs"]
    assert defs["rungName"]["enum"] == list(NAMES)
    assert defs["claim"]["enum"] == list(Claim)
    assert defs["verdict"]["enum"] == list(Verdict)
    assert defs["rung"]["properties"]["status"]["enum"] == list(Status)
    assert defs["cell"]["properties"]["nesting"]["enum"] == list(Nesting)
    assert set(State) < set(schema.load("lab.status/1")["$defs"]["state"]["enum"])
    codes = schema.load("lab.error/1")["properties"]["error"]["properties"]["exit_code"]["enum"]
    assert codes == [code for code in ExitCode if code]


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
