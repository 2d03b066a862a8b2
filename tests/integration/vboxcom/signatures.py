"""What each version's COM interfaces have: 6.1's from pyvbox's source, later ones by members.toml.

Names are those of the raw object as XPCOM's Python shows it: an attribute that is an array is two
methods, `getX` and, if it can be written, `setX`.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

VERSIONS = ("6.1", "7.0", "7.1", "7.2")

_MEMBERS = Path(__file__).with_name("members.toml")
_DOCUMENTED = re.compile(r"^(in|out|return) \w+ of type (\S+)$")
_CLASS = re.compile(r":class:`(\w+)`")
_GETTER = re.compile(r"^Get (?:or set )?(\w+) value for ")
_SIGNATURE = re.compile(r"^\((?P<takes>.*)\)(?: -> (?P<gives>.+))?$")


@dataclass(frozen=True)
class Attribute:
    type: str
    """str, int, bool, an enum's or an interface's name; an array ends with []."""
    writable: bool = False


@dataclass(frozen=True)
class Method:
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    """What it returns, the return value first and then the out parameters."""


Member = Attribute | Method
Interfaces = dict[str, dict[str, Member]]


class Table:
    """The interfaces of one version, as far as they were compared with its own interface files."""

    def __init__(self, version: str, interfaces: Interfaces) -> None:
        self.version = version
        self.interfaces = interfaces

    def members(self, interface: str) -> dict[str, Member]:
        """LookupError for one that nobody has compared for this version: it cannot be vouched for."""
        if interface not in self.interfaces:
            raise LookupError(f"{interface} of {self.version} is not in members.toml: compare it first")
        return self.interfaces[interface]


@lru_cache
def table(version: str) -> Table:
    text = members()
    compared = set(text["compared"])
    found: Interfaces = {name: dict(content) for name, content in pyvbox().items() if name in compared}
    for step in VERSIONS[: VERSIONS.index(version) + 1]:
        for interface, changes in text["in"][step].items():
            if changes == "gone":
                del found[interface]
                continue
            content = found.setdefault(interface, {})
            for name, words in changes.items():
                if words == "gone":
                    del content[name]
                else:
                    content.update(_member(name, words))
    return Table(version, found)


@lru_cache
def members() -> dict[str, Any]:
    return tomllib.loads(_MEMBERS.read_text())


def _member(name: str, words: str) -> dict[str, Member]:
    """A member as members.toml writes it: `int`, `rw int`, `rw str[]`, `(str, int) -> bool`."""
    if found := _SIGNATURE.match(words):
        return {name: Method(_split(found["takes"]), _split(found["gives"] or ""))}
    return _attribute(name, words.removeprefix("rw "), words.startswith("rw "))


def _split(words: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in words.split(",") if word.strip())


def _attribute(name: str, kind: str, writable: bool) -> dict[str, Member]:
    if not kind.endswith("[]"):
        return {name: Attribute(kind, writable)}
    proper = name[0].upper() + name[1:]
    found: dict[str, Member] = {f"get{proper}": Method((), (kind,))}
    if writable:
        found[f"set{proper}"] = Method((kind,))
    return found


# pyvbox's library.py is generated: each property and method is a few lines of one form.


@dataclass(frozen=True)
class Wrapped:
    """A member of pyvbox's: `raw` is what it is called on the COM object."""

    raw: str
    interface: str


@lru_cache
def pyvbox() -> Interfaces:
    return {tree.name: _interface(tree) for tree in _classes()}


@lru_cache
def wrappers() -> dict[str, list[Wrapped]]:
    """pyvbox's own names and what is behind each, interface by interface."""
    found: dict[str, list[Wrapped]] = {}
    for tree in _classes():
        for function in _functions(tree):
            for _, call in _calls(function):
                found.setdefault(function.name, []).append(Wrapped(_literal(call.args[0]), tree.name))
    return found


@lru_cache
def _classes() -> list[ast.ClassDef]:
    spec = importlib.util.find_spec("virtualbox")
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).with_name("library.py").read_text())
    return [
        item
        for item in tree.body
        if isinstance(item, ast.ClassDef) and item.name.startswith("I") and item.name[1].isupper()
    ]


def _interface(tree: ast.ClassDef) -> dict[str, Member]:
    found: dict[str, Member] = {}
    writable = {
        _literal(call.args[0]) for f in _functions(tree) for how, call in _calls(f) if how == "_set_attr"
    }
    for function in _functions(tree):
        for how, call in _calls(function):
            name = _literal(call.args[0])
            if how == "_get_attr":
                found.update(_attribute(name, _property_type(tree.name, name, function), name in writable))
            elif how == "_call":
                found[name] = _method(function)
    return found


def _functions(tree: ast.ClassDef) -> list[ast.FunctionDef]:
    return [item for item in tree.body if isinstance(item, ast.FunctionDef)]


def _calls(function: ast.FunctionDef) -> list[tuple[str, ast.Call]]:
    return [
        (node.func.attr, node)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("_get_attr", "_set_attr", "_call")
    ]


def _literal(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value


def _property_type(interface: str, name: str, function: ast.FunctionDef) -> str:
    said = _GETTER.match(ast.get_docstring(function) or "")
    assert said, f"{interface}.{name}"
    many = bool(_listed(function)) or name in members()["plain_arrays"].get(interface, [])
    return said[1] + "[]" * many


def _method(function: ast.FunctionDef) -> Method:
    """Its docstring names each parameter's direction and type, its code which are arrays."""
    lists = {
        node.args[0].id
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "isinstance"
        and isinstance(node.args[0], ast.Name)
        and ast.unparse(node.args[1]) == "list"
    }
    found: dict[str, list[str]] = {"in": [], "out": [], "return": []}
    for line in (ast.get_docstring(function) or "").splitlines():
        if said := _DOCUMENTED.match(line.strip()):
            way, name, kind = said[1], line.split()[1], said[2]
            if of := _CLASS.fullmatch(kind):
                kind = of[1]
            many = name in lists if way == "in" else name in _listed(function)
            found[way].append(kind + "[]" * many)
    assert len(found["in"]) == len(function.args.args) - 1, function.name
    return Method(tuple(found["in"]), tuple(found["return"] + found["out"]))


def _listed(function: ast.FunctionDef) -> set[str]:
    """The names that are gone through: `[IMachine(a) for a in ret]`."""
    return {
        node.generators[0].iter.id
        for node in ast.walk(function)
        if isinstance(node, ast.ListComp) and isinstance(node.generators[0].iter, ast.Name)
    }
