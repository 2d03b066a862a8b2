"""As much of ELF as packing needs: which libraries a program loads, what a kernel module depends on."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from lab.core.errors import LabError

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29


@dataclass(frozen=True)
class Dynamic:
    """What the dynamic loader reads: libraries by name, own search folders, the loader's path."""

    needed: list[str]
    search: list[str]
    interpreter: str


def dynamic(data: bytes) -> Dynamic:
    """Read a 64-bit little-endian ELF file. Raises LabError when it is none."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise LabError("not a 64-bit little-endian ELF file")
    offset, entry, count = (
        struct.unpack_from("<Q", data, 32)[0],
        *struct.unpack_from("<HH", data, 54),
    )
    segments = [struct.unpack_from("<IIQQQQ", data, offset + entry * n) for n in range(count)]
    loads = [(s[3], s[2], s[5]) for s in segments if s[0] == _PT_LOAD]
    interpreter = next((_text(data, s[2]) for s in segments if s[0] == _PT_INTERP), "")
    tags: list[tuple[int, int]] = []
    for segment in segments:
        if segment[0] == _PT_DYNAMIC:
            tags = list(struct.iter_unpack("<QQ", data[segment[2] : segment[2] + segment[5] // 16 * 16]))
    strings = next((_file_offset(loads, value) for tag, value in tags if tag == _DT_STRTAB), 0)
    return Dynamic(
        needed=[_text(data, strings + value) for tag, value in tags if tag == _DT_NEEDED],
        search=[
            folder
            for tag, value in tags
            if tag in (_DT_RPATH, _DT_RUNPATH)
            for folder in _text(data, strings + value).split(":")
        ],
        interpreter=interpreter,
    )


def closure(programs: list[str], read: Callable[[str], bytes | None], folders: list[str]) -> dict[str, str]:
    """All files the `programs` load, as soname or interpreter path -> path in the tree.

    `read` answers a file's content by absolute path, or None where there is none. Raises
    LabError naming a library that is nowhere.
    """
    paths: dict[str, str] = {}
    waiting = list(programs)
    while waiting:
        path = waiting.pop()
        data = read(path)
        if data is None:
            raise LabError(f"{path} is missing")
        facts = dynamic(data)
        if facts.interpreter:
            paths.setdefault(facts.interpreter, facts.interpreter)
        here = path.rpartition("/")[0]
        search = [folder.replace("$ORIGIN", here) for folder in facts.search] + folders
        for name in facts.needed:
            if name in paths or any(known.endswith(f"/{name}") for known in paths):
                continue
            place = next((f"{folder}/{name}" for folder in search if read(f"{folder}/{name}")), None)
            if place is None:
                raise LabError(f"{path} needs {name}, which is nowhere")
            paths[name] = place
            waiting.append(place)
    return paths


def module_depends(data: bytes) -> list[str]:
    """Names of the kernel modules a module needs, from its `depends=` entry."""
    match = re.search(rb"\0depends=([^\0]*)\0", data)
    return [name for name in match.group(1).decode().split(",") if name] if match else []


def _file_offset(loads: list[tuple[int, int, int]], address: int) -> int:
    for start, offset, size in loads:
        if start <= address < start + size:
            return offset + address - start
    raise LabError("an ELF file's dynamic section points nowhere")


def _text(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode()
