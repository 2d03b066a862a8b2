"""Every schema is valid, takes what lab prints, and refuses what is a little off."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lab.core.errors import ExitCode
from lab.engines.protocol import State
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim, Nesting, Status, Verdict
from tests import schema
from tests.unit.documents import EXAMPLES
from tests.unit.documents.parts import validation

BY_SCHEMA = pytest.mark.parametrize("example", EXAMPLES, ids=[example["schema"] for example in EXAMPLES])


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


NOT_IN_OLDER = ("left_out", "key")


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
        for change in ("add",) if path[-1] in NOT_IN_OLDER or path == ("night", "host") else ("drop", "add"):
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
    assert defs["RungEntry"]["properties"]["rung"]["enum"] == list(LADDER.names)
    kept = [status for status in Status if status is not Status.INCONCLUSIVE]  # `failed`, with a flag
    assert defs["RungEntry"]["properties"]["status"]["enum"] == kept
    for words in (Claim, Verdict, Nesting):
        assert defs[words.__name__]["enum"] == list(words)
    assert schema.load("lab.status/1")["$defs"]["State"]["enum"] == list(State)
    codes = schema.load("lab.error/1")["$defs"]["ErrorEntry"]["properties"]["exit_code"]["enum"]
    assert codes == [code for code in ExitCode if code]
