"""What lab's JSON documents are made of: one model a document, which writes it, reads it and is its schema.

docs/schemas/ is made from the models (`python -m lab.documents`). Every member is always there, unless it has
a default; there are no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from lab.core.errors import LabError


class SchemaError(LabError):
    """A document is not what its schema says. `path` is the JSON path of the fault, `$` the whole."""

    def __init__(self, what: str, path: str = "$", *, schema: str = "") -> None:
        super().__init__(what, hint="this is a fault of lab; please report it with the document")
        self.path = path
        self.schema = schema


class Limited:
    """A limit of what is read, and of the schema: `Annotated[str, Limited(min_length=1)]`, as of Field.

    What lab itself writes is never refused for one: an answer is worth more than its form.
    """

    def __init__(self, **limits: Any) -> None:
        self.limits = Field(**limits)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=handler.generate_schema(Annotated[source, self.limits]), python_schema=handler(source)
        )


class OneOf:
    """For `Annotated[str, OneOf(NAMES)]`: one of these words, where they are no enum."""

    def __init__(self, words: tuple[str | int, ...]) -> None:
        self.words = list(words)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.json_or_python_schema(
            json_schema=core_schema.literal_schema(self.words), python_schema=handler(source)
        )


class Having:
    """For `Annotated[dict[str, str], Having("cpus")]`: what is read has these keys, and perhaps others."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        plain = handler(source)
        checked = core_schema.no_info_after_validator_function(self._check, plain)
        return core_schema.json_or_python_schema(json_schema=checked, python_schema=plain)

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(core) | {"required": list(self.keys)}

    def _check(self, value: dict[str, Any]) -> dict[str, Any]:
        if missing := [key for key in self.keys if key not in value]:
            raise ValueError(f"{', '.join(missing)} is missing")
        return value


Text = Annotated[str, Limited(min_length=1)]
"""A text that says something."""
Count = Annotated[int, Limited(ge=0)]
Ordinal = Annotated[int, Limited(ge=1)]
Number = int | float
"""Written as it is: 2 stays 2."""
Seconds = Annotated[int, Limited(ge=0)] | Annotated[float, Limited(ge=0)]
Factor = Annotated[int, Limited(gt=0)] | Annotated[float, Limited(gt=0)]
Port = Annotated[int, Limited(ge=1, le=65535)]
Sha256 = Annotated[str, Limited(pattern="^[0-9a-f]{64}$")]
MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"
Moment = Annotated[str, Limited(pattern=MOMENT, json_schema_extra={"format": "date-time"})]
"""A time with its zone, ISO 8601."""

GIVEN, FILLED = object(), object()
"""In a MemberRule: not null; not empty."""


@dataclass(frozen=True)
class MemberRule:
    """Where the members in `when` have these values, those in `then` have theirs; else those in `otherwise`.

    A member is named by its path (`claims.nesting.verdict`). A value is itself, a tuple of which it is one,
    GIVEN or FILLED.
    """

    when: Mapping[str, Any]
    then: Mapping[str, Any]
    otherwise: Mapping[str, Any] = field(default_factory=dict)

    def fault(self, part: BaseModel) -> str:
        """What in `part` is against the rule; empty when nothing is."""
        applies = all(_meets(part, path, wanted) for path, wanted in self.when.items())
        wrong = [
            path
            for path, wanted in (self.then if applies else self.otherwise).items()
            if not _meets(part, path, wanted)
        ]
        where = " and ".join(f"{path} is {_value(part, path)!r}" for path in self.when)
        return f"{', '.join(wrong)} cannot be so where {where}" if wrong else ""

    def as_schema(self) -> dict[str, Any]:
        """The rule in JSON Schema's words."""
        clauses = {"if": self.when, "then": self.then, "else": self.otherwise}
        return {word: _clause(members) for word, members in clauses.items() if members}


def _value(part: Any, path: str) -> Any:
    for name in path.split("."):
        part = getattr(part, name)
    return part.value if isinstance(part, Enum) else part


def _meets(part: BaseModel, path: str, wanted: Any) -> bool:
    value = _value(part, path)
    if wanted is GIVEN:
        return value is not None
    if wanted is FILLED:
        return bool(value)
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def _clause(members: Mapping[str, Any]) -> dict[str, Any]:
    clause: dict[str, Any] = {"properties": {}}
    for path, wanted in members.items():
        *holders, name = path.split(".")
        part = clause
        for holder in holders:
            part = part["properties"].setdefault(holder, {"properties": {}})
        place = part["properties"]
        if wanted is GIVEN:
            place[name] = {"not": {"type": "null"}}
        elif wanted is FILLED:
            place[name] = {"minLength": 1, "minItems": 1}
            part.setdefault("required", []).append(name)  # it may be left out where it is empty
        else:
            place[name] = {"enum": list(wanted)} if isinstance(wanted, tuple) else {"const": wanted}
    return clause


class JsonPart(BaseModel):
    """A piece of a document."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        from_attributes=True,
        defer_build=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    rules: ClassVar[tuple[MemberRule, ...]] = ()
    """What its members are, given each other: limits, as Limited is one."""

    def as_json(self) -> dict[str, Any]:
        """It in JSON's own types, members in the order they are declared in."""
        return self.model_dump(mode="json", fallback=str)

    @model_validator(mode="after")
    def _keeps_its_rules(self, info: ValidationInfo) -> Self:
        for rule in self.rules if info.mode == "json" else ():
            if fault := rule.fault(self):
                raise ValueError(fault)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(core)
        body = handler.resolve_ref_schema(made)
        if cls.rules:
            body["allOf"] = [rule.as_schema() for rule in cls.rules]
        return made


class JsonDocument(JsonPart):
    """One of the documents that `--json` prints, or that are left in an evidence folder.

    `schema`, its first member, is the class's `tag`, such as `lab.status/1`: it is no field.
    """

    tag: ClassVar[str] = ""

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """The document that JSON text gave. Raises SchemaError, with the JSON path of the fault."""
        if document.get("schema") != cls.tag:
            raise SchemaError(f"this is no {cls.tag} document", "$.schema", schema=cls.tag)
        members = {name: value for name, value in document.items() if name != "schema"}
        try:
            # Half a character, left of a broken text, makes no document wrong: it is read as a `?`.
            text = json.dumps(members, allow_nan=False, ensure_ascii=False).encode(errors="replace")
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            path = _path(document, first["loc"], first["type"] == "missing")
            raise SchemaError(
                f"a {cls.tag} document is wrong at {path}: {first['msg']}", path, schema=cls.tag
            ) from error
        except (TypeError, ValueError) as error:
            raise SchemaError(f"a {cls.tag} document is not JSON: {error}", schema=cls.tag) from error

    @classmethod
    def made_of(cls, document: Mapping[str, Any], **more: Any) -> Self:
        """The document with the members of another, whatever its tag, and `more`."""
        return cls(**{name: value for name, value in document.items() if name != "schema"}, **more)

    @model_serializer(mode="wrap")
    def _with_tag(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"schema": self.tag, **write(self)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = super().__get_pydantic_json_schema__(core, handler)
        body = handler.resolve_ref_schema(made)
        body["properties"] = {"schema": {"const": cls.tag}, **body.get("properties", {})}
        body["required"] = ["schema", *body.get("required", [])]
        return made


def _path(document: Any, place: tuple[int | str, ...], missing: bool) -> str:
    """The JSON path of a fault. pydantic's own names of union members are no part of it."""
    path, holder = "$", document
    for step in place:
        try:
            holder = holder[step]
        except (KeyError, IndexError, TypeError):
            if not (missing and step == place[-1]):
                continue
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path
