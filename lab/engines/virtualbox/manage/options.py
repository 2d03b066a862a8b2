"""The options of `VBoxManage modifyvm` that were renamed, by version.

7.0 gave most options a dash between their words and keeps the old spelling beside it (g_aModifyVMOptions of
VBoxManageModifyVM.cpp lists both by OPT2); 6.1 knows the old spelling alone (its manual, chapter 8.8). So the
old spelling is used wherever both are known, and only what differs stands here.
"""

from __future__ import annotations

from collections.abc import Sequence

Version = tuple[int, int]
EXECUTION = {"default": "default", "hwvirt": "hwvirt", "native": "native-api", "interpreter": "interpreter"}


def silent(version: Version) -> list[str]:
    """No sound: 7.0 made of the driver `none` a card that is not there."""
    return ["--audio-enabled", "off"] if version >= (7, 0) else ["--audio", "none"]


def closed_to_localhost(version: Version) -> list[str]:
    """The VM does not reach the host's own loopback. 6.1 has no such setting."""
    return ["--nat-localhostreachable1", "off"] if version >= (7, 0) else []


def execution_engine(version: Version, engine: str) -> list[str] | None:
    """How instructions are run; None where the version cannot be told what is asked."""
    if version >= (7, 1):
        return ["--vm-execution-engine", EXECUTION[engine]]
    return [] if engine == "default" else None


def created(version: Version) -> list[str]:
    """What `createvm` must be told besides: since 7.1 there is more than one architecture."""
    return ["--platform-architecture", "x86"] if version >= (7, 1) else []


def switch(pairs: Sequence[tuple[str, bool]]) -> list[str]:
    """Options that are on or off."""
    return [word for name, on in pairs for word in (f"--{name}", "on" if on else "off")]
