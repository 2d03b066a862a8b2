"""Whether a document keeps to its schema in docs/schemas/, as a stranger's validator sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from lab.documents.schemas import SCHEMAS, file_of
from lab.model.document import SchemaError


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
    fault = best_match(_validator(name).iter_errors(plain))
    if fault is not None:
        raise SchemaError(
            f"a {name} document is wrong at {fault.json_path}: {fault.message}", fault.json_path, schema=name
        )


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(load(name))
