"""The JSON documents lab prints, and the schemas they keep to (docs/schemas/)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.core.errors import LabError

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
"""One file a schema: `lab.status/1` is in lab.status-1.json."""


class SchemaError(LabError):
    """A document is not what its schema says. `path` is the JSON path of the fault, `$` the whole."""

    def __init__(self, what: str, path: str = "$", *, schema: str = "") -> None:
        super().__init__(what, hint="this is a fault of lab; please report it with the document")
        self.path = path
        self.schema = schema


def file_of(schema: str) -> Path:
    """The file that holds a schema named like `lab.status/1`."""
    return SCHEMAS / f"{schema.replace('/', '-')}.json"


def names() -> list[str]:
    """Every schema there is, sorted."""
    return sorted("/".join(path.stem.rsplit("-", 1)) for path in SCHEMAS.glob("*-[0-9]*.json"))


def load(schema: str) -> dict[str, Any]:
    """A schema by its name. Raises SchemaError when there is none."""
    if schema not in names():
        raise SchemaError(f"there is no schema {schema!r}", "$.schema", schema=schema)
    document: dict[str, Any] = json.loads(file_of(schema).read_text())
    return document


def validate(document: Mapping[str, Any]) -> None:
    """Raise SchemaError, with the JSON path, unless `document` keeps to the schema it names.

    It is checked as its reader would see it: after a trip through JSON text.
    """
    name = document.get("schema")
    if not isinstance(name, str):
        raise SchemaError("the document names no schema", "$.schema")
    try:
        plain = json.loads(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SchemaError(f"a {name} document is not JSON: {error}", schema=name) from error
    from jsonschema.exceptions import best_match

    fault = best_match(_validator(name).iter_errors(plain))
    if fault is not None:
        raise SchemaError(
            f"a {name} document is wrong at {fault.json_path}: {fault.message}", fault.json_path, schema=name
        )


@cache
def _validator(name: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(load(name))
