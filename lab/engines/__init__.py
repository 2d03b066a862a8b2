"""The engines lab can drive, by name."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

from lab.engines.protocol import Engine
from lab.errors import BlockedError, UsageError

__all__ = ["NAMES", "engine", "engines"]

NAMES = ("qemu",)
"""In the order `auto` prefers them."""

Acceleration = Literal["auto", "kvm", "tcg"]
QEMU = "qemu-system-x86_64"


def engines(
    acceleration: Acceleration, cache_dir: Path, binary: str = QEMU, kernel: Path | None = None
) -> list[Engine]:
    """Every engine, installed or not. `cache_dir` is where probes keep their answers; `kernel` is what
    they may boot under KVM where the host's own cannot be read.
    """
    return [_make(name, acceleration, cache_dir, binary, kernel) for name in NAMES]


def engine(
    name: str, acceleration: Acceleration, cache_dir: Path, binary: str = QEMU, kernel: Path | None = None
) -> Engine:
    """The engine of that name; `auto` is the first that is usable here.

    Raises UsageError for an unknown name, BlockedError when `auto` finds none.
    """
    if name == "auto":
        return _first_usable(engines(acceleration, cache_dir, binary, kernel))
    if name not in NAMES:
        near = difflib.get_close_matches(name, (*NAMES, "auto"), cutoff=0.3) or [*NAMES, "auto"]
        raise UsageError(f"there is no engine `{name}`", hint=f"nearest: {', '.join(near)}")
    return _make(name, acceleration, cache_dir, binary, kernel)


def _first_usable(candidates: list[Engine]) -> Engine:
    refusals = []
    for candidate in candidates:
        answer = candidate.availability()
        if answer.usable:
            return candidate
        refusals.append((candidate.name, answer))
    raise BlockedError(
        "no engine is usable here: " + "; ".join(f"{name}: {answer.why}" for name, answer in refusals),
        hint="; ".join(answer.hint for _, answer in refusals if answer.hint),
    )


def _make(name: str, acceleration: Acceleration, cache_dir: Path, binary: str, kernel: Path | None) -> Engine:
    # Imported when used, so that `invoke --list` does not load them.
    if name != "qemu":
        raise UsageError(f"there is no engine `{name}`")
    from lab.engines.qemu import QemuEngine
    from lab.host.kvm import functional_probe

    return QemuEngine(
        kvm=lambda: functional_probe(cache_dir, kernel=kernel), acceleration=acceleration, binary=binary
    )
