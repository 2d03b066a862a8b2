"""Reads an XPCOM type library (.xpt): the interfaces of an installed VirtualBox, as its binding sees them.

The format is XPConnect's: big-endian, a directory of interfaces, and a pool in which offsets count from one.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from tests.integration.vboxcom.signatures import Attribute, Interfaces, Member, Method

_GETTER, _SETTER, _NOT_FOR_SCRIPTS = 0x80, 0x40, 0x38
_IN, _OUT, _RESULT = 0x80, 0x40, 0x20
_INTERFACE, _INTERFACE_IS, _ARRAY, _SIZED = 18, 19, 20, (21, 22)
_PLAIN = {10: "bool", 15: "str", 16: "str", 17: "str"}


def read(path: Path) -> Interfaces:
    """Types are str, int (enums too), bool and interfaces' names; what is reserved is left out."""
    return _Reader(path.read_bytes()).interfaces()


def plain(member: Member) -> Member:
    """A table's member with a type library's types."""

    def kind(name: str) -> str:
        base = name.removesuffix("[]")
        if base == "Interface":
            base = "nsISupports"
        elif base not in ("str", "bool") and not re.match("I[A-Z]", base):
            base = "int"
        return base + "[]" * name.endswith("[]")

    if isinstance(member, Attribute):
        return Attribute(kind(member.type), member.writable)
    return Method(tuple(map(kind, member.takes)), tuple(map(kind, member.gives)))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        assert data.startswith(b"XPCOM\nTypeLib\r\n\x1a")
        self._count, _, directory, self._pool = struct.unpack_from(">HIII", data, 18)
        self._at = directory - 1
        self._names: list[str] = []

    def interfaces(self) -> Interfaces:
        places = []
        for _ in range(self._count):
            self._at += 16
            name, _, place = self._take(">III")
            self._names.append(self._text(name))
            places.append(place)
        found: Interfaces = {}
        for name, place in zip(self._names, places, strict=True):
            if place:
                self._at = self._pool + place - 1
                found[name] = self._interface()
        return found

    def _take(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def _text(self, place: int) -> str:
        start = self._pool + place - 1
        return self._data[start : self._data.index(0, start)].decode() if place else ""

    def _interface(self) -> dict[str, Member]:
        _, count = self._take(">HH")
        found: dict[str, Member] = {}
        for _ in range(count):
            flags, place, arguments = self._take(">BIB")
            name = self._text(place)
            params = [self._param() for _ in range(arguments + 1)][:-1]
            if flags & _NOT_FOR_SCRIPTS or name.startswith("InternalAndReserved"):
                continue
            if flags & (_GETTER | _SETTER):
                found[name] = Attribute(params[0][1], bool(flags & _SETTER))
            else:
                found[name] = self._method(params)
        return found

    def _method(self, params: list[tuple[int, str, int]]) -> Method:
        # An array's length is a parameter of its own, which the binding hides.
        lengths = {length for _, _, length in params}
        shown = [(flags, kind) for number, (flags, kind, _) in enumerate(params) if number not in lengths]
        result = [kind for flags, kind in shown if flags & _RESULT]
        outs = [kind for flags, kind in shown if flags & _OUT and not flags & _RESULT]
        return Method(tuple(kind for flags, kind in shown if flags & _IN), tuple(result + outs))

    def _param(self) -> tuple[int, str, int]:
        (flags,) = self._take(">B")
        return flags, *self._type()

    def _type(self) -> tuple[str, int]:
        """Its name, and the number of the parameter that is its length, -1 without one."""
        tag = self._take(">B")[0] & 0x1F
        if tag == _INTERFACE:
            (number,) = self._take(">H")
            return self._names[number - 1], -1
        if tag == _INTERFACE_IS:
            self._take(">B")
            return "iid", -1
        if tag == _ARRAY:
            _, length = self._take(">BB")
            return self._type()[0] + "[]", length
        if tag in _SIZED:
            self._take(">BB")
            return "str", -1
        return _PLAIN.get(tag, "int"), -1
