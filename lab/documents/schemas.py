"""docs/schemas/ from the models."""

from __future__ import annotations

import ast
import inspect
import itertools
import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from lab.core.files import PUBLIC, write_atomic
from lab.model.document import JsonDocument, JsonPart

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
"""One file a schema: `lab.status/1` is in lab.status-1.json."""

OWNERS = (
    "lab.documents.climbs",
    "lab.documents.differences",
    "lab.documents.emulators",
    "lab.documents.fleet",
    "lab.documents.flakes",
    "lab.documents.host",
    "lab.documents.images",
    "lab.documents.issues",
    "lab.documents.kcidb",
    "lab.documents.labs",
    "lab.documents.measured",
    "lab.documents.nights",
    "lab.documents.rehearsals",
    "lab.documents.reports",
    "lab.theory.answers",
    "lab.ladder.document",
)
"""The modules with models of documents."""


def file_of(schema: str) -> Path:
    """The file that holds a schema named like `lab.status/1`."""
    return SCHEMAS / f"{schema.replace('/', '-')}.json"


def models() -> dict[str, type[JsonDocument]]:
    """Every document that has a model, by its tag."""
    for owner in OWNERS:
        import_module(owner)
    return {model.tag: model for model in _below(JsonDocument) if model.tag and model.__module__ in OWNERS}


def _below(model: type[JsonDocument]) -> Iterator[type[JsonDocument]]:
    for child in model.__subclasses__():
        yield child
        yield from _below(child)


def made(model: type[JsonDocument]) -> dict[str, Any]:
    """The JSON Schema of a document, from its model: docstrings are its descriptions."""
    body = model.model_json_schema(schema_generator=_Plain)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": file_of(model.tag).name,
        "title": body.pop("description"),
    }
    parts = body.pop("$defs", {})
    for part in (body, *parts.values()):
        part.pop("title", None)
    return head | body | ({"$defs": dict(sorted(parts.items()))} if parts else {})


def text(model: type[JsonDocument]) -> str:
    """What is in the schema's file."""
    return json.dumps(made(model), indent=2, ensure_ascii=False) + "\n"


def write() -> list[Path]:
    """Write every schema's file; returns those that changed."""
    changed = []
    for model in models().values():
        path, new = file_of(model.tag), text(model)
        if not path.exists() or path.read_text() != new:
            write_atomic(path, new, PUBLIC)
            changed.append(path)
    return changed


class _Plain(GenerateJsonSchema):
    """pydantic's generator, without titles made of names, with fields described by their docstrings."""

    def sort(self, value: JsonSchemaValue, _parent_key: str | None = None) -> JsonSchemaValue:
        """As it is: members in the order they are printed in."""
        return value

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        described = _docstrings(schema["cls"])
        for name, member in made.get("properties", {}).items():
            if name in described:
                member["description"] = described[name]
            if name in schema["cls"].model_fields and schema["cls"].model_fields[name].exclude_if:
                del member["default"]  # where it would be that, it is left out
        order = ("description", "type", "properties", "required", "additionalProperties")
        return {key: made[key] for key in order if key in made} | made

    def union_schema(self, schema: core_schema.UnionSchema) -> JsonSchemaValue:
        """A whole number or any is a number."""
        made = super().union_schema(schema)
        kinds = made.get("anyOf", [])
        numbers = [kind for kind in kinds if kind.get("type") == "number"]
        whole = [number | {"type": "integer"} for number in numbers]
        kept = [kind for kind in kinds if kind not in whole]
        return kept[0] if len(kept) == 1 else made | {"anyOf": kept}


def _docstrings(model: type[Any]) -> dict[str, str]:
    """The docstrings under a model's fields, its parents' among them."""
    descriptions: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, JsonPart) and cls.__module__ != JsonPart.__module__:
            (body,) = ast.parse(inspect.getsource(cls)).body
            members = body.body if isinstance(body, ast.ClassDef) else []
            for member, below in itertools.pairwise(members):
                match member, below:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(value=str(words))):
                        descriptions[name] = " ".join(words.split())
    return descriptions
