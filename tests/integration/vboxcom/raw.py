"""A COM object as XPCOM's Python shows it, and strict: it has what its version's table has, and no more.

Unlike XPCOM's it also looks at every argument's type, enums included, and keeps a log of all that was
asked of it: what does not fit is told there even where the caller swallows the error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any, Protocol

from tests.integration.vboxcom.signatures import Attribute, Method, Table

E_UNEXPECTED = 0x8000FFFF
E_INVALIDARG = 0x80070057
E_ACCESSDENIED = 0x80070005
E_FAIL = 0x80004005
ABORT = 0x80004004
OBJECT_NOT_FOUND = 0x80BB0001
INVALID_VM_STATE = 0x80BB0002
FILE_ERROR = 0x80BB0004
INVALID_OBJECT_STATE = 0x80BB0007
OBJECT_IN_USE = 0x80BB000C


class ComError(Exception):
    """xpcom.Exception: a signed number, and VirtualBox's words."""

    def __init__(self, number: int, msg: str = "") -> None:
        super().__init__(number, msg)
        self.errno = number - (1 << 32) if number >> 31 else number
        self.msg = msg

    def __str__(self) -> str:
        return f"0x{self.errno & 0xFFFFFFFF:x} ({self.msg})"


@dataclass
class Log:
    used: set[tuple[str, str]] = field(default_factory=set)
    """(interface, member) of all that was read, written and called."""
    calls: list[tuple[str, str, tuple[Any, ...]]] = field(default_factory=list)
    absent: set[tuple[str, str]] = field(default_factory=set)
    """What was asked for and is not there: AttributeError, as a probe with `hasattr` wants it."""
    misfits: list[str] = field(default_factory=list)
    """What no probe can explain."""

    def arguments(self, member: str) -> list[tuple[Any, ...]]:
        return [words for _, name, words in self.calls if name == member]


class World(Protocol):
    table: Table
    constants: Any
    log: Log
    dead: bool


class Raw:
    """What the binding hands out for a node. Two of the same node are equal, as XPCOM's are."""

    def __init__(self, node: Node) -> None:
        object.__setattr__(self, "_node", node)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        node: Node = object.__getattribute__(self, "_node")
        member = node.member(name)
        if isinstance(member, Method):
            return MethodType(_method(name, member), self)
        return node.read(name, member)

    def __setattr__(self, name: str, value: Any) -> None:
        node_of(self).write(name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Raw) and node_of(self) is node_of(other)

    def __hash__(self) -> int:
        return id(node_of(self))

    def __repr__(self) -> str:
        return f"<XPCOM component '{node_of(self).interface}'>"


def node_of(raw: Raw) -> Any:
    return object.__getattribute__(raw, "_node")


def _method(name: str, member: Method) -> Callable[..., Any]:
    def call(self: Raw, *words: Any) -> Any:
        return node_of(self).call(name, member, words)

    call.__name__ = name
    return call


class Node:
    """An object behind the binding. What it does is in its methods, named after the members:

    `get_x` and `set_x` for an attribute, `call_x` for a method. An attribute without one is in `values`,
    and one that is another object in `parts`.
    """

    interface = ""

    def __init__(self, world: World, values: dict[str, Any] | None = None, interface: str = "") -> None:
        self.world = world
        self.interface = interface or self.interface
        self.values = {} if values is None else values
        self.parts: dict[str, Callable[[], Node]] = {}

    @property
    def raw(self) -> Raw:
        return Raw(self)

    def check(self, name: str, write: bool) -> None:
        """Raises ComError where the object's state forbids the access."""

    def fault(self, said: str) -> str:
        self.world.log.misfits.append(f"{self.interface}: {said}")
        return said

    def member(self, name: str) -> Attribute | Method:
        try:
            member = self.world.table.members(self.interface).get(name)
        except LookupError as error:
            self.fault(str(error))
            raise
        if member is None:
            self.world.log.absent.add((self.interface, name))
            raise AttributeError(f"XPCOM component '{self.interface}' has no attribute '{name}'")
        self.world.log.used.add((self.interface, name))
        return member

    def read(self, name: str, member: Attribute) -> Any:
        self._enter(name)
        getter = getattr(self, f"get_{_snake(name)}", None)
        if getter is not None:
            value = getter()
        elif name in self.parts:
            value = self.parts[name]().raw
        elif name in self.values:
            value = self.values[name]
        else:
            raise NotImplementedError(self.fault(f"the stand-in does not know {name}"))
        return self._checked(value, member.type, f"the stand-in's own {name}")

    def write(self, name: str, value: Any) -> None:
        try:
            member = self.member(name)
        except AttributeError as error:
            self.fault(f"wrote {name}, which it has not")
            raise error
        if not isinstance(member, Attribute) or not member.writable:
            self.fault(f"wrote {name}, which is read-only")
            raise AttributeError(f"XPCOM component '{self.interface}' can not set attribute '{name}'")
        self._checked(value, member.type, name)
        self._enter(name, write=True)
        self.world.log.calls.append((self.interface, name, (value,)))
        setter = getattr(self, f"set_{_snake(name)}", None)
        if setter is not None:
            setter(value)
        else:
            self.values[name] = value

    def call(self, name: str, member: Method, words: tuple[Any, ...]) -> Any:
        if len(words) != len(member.takes):
            said = f"{name}() takes {len(member.takes)} arguments but {len(words)} were given"
            raise TypeError(self.fault(said))
        for kind, word in zip(member.takes, words, strict=True):
            self._checked(word, kind, name)
        self.world.log.calls.append((self.interface, name, words))
        self._enter(name)
        action = getattr(self, f"call_{_snake(name)}", None)
        if action is None:
            raise NotImplementedError(self.fault(f"the stand-in does not know {name}()"))
        try:
            result = action(*words)
        except ComError:
            raise
        except Exception as error:
            self.fault(f"the stand-in's own {name}() failed: {error!r}")
            raise
        given = (result,) if len(member.gives) == 1 else result or ()
        for kind, value in zip(member.gives, given, strict=True):
            self._checked(value, kind, f"the stand-in's own {name}()")
        return result

    def _enter(self, name: str, write: bool = False) -> None:
        if self.world.dead:
            raise ComError(ABORT, "NS_ERROR_ABORT")
        self.check(name, write)

    def _checked(self, value: Any, kind: str, name: str) -> Any:
        if not fits(value, kind, self.world.constants):
            raise TypeError(self.fault(f"{name}: {value!r} is no {kind}"))
        return value


def fits(value: Any, kind: str, constants: Any) -> bool:
    if kind == "octet[]":
        return isinstance(value, bytes | list)
    if kind.endswith("[]"):
        return isinstance(value, list) and all(fits(item, kind[:-2], constants) for item in value)
    if kind in ("str", "bool"):
        return isinstance(value, str if kind == "str" else bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if re.match(r"I[A-Z]", kind):
        return value is None or (isinstance(value, Raw) and kind in ("Interface", node_of(value).interface))
    number = isinstance(value, int) and not isinstance(value, bool)
    return number and value in constants.all_values(kind).values()


def _snake(name: str) -> str:
    """VMExecutionEngine to vm_execution_engine, as pyvbox does it."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", name).lower()
