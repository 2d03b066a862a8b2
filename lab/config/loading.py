"""Loading: lab.toml < the user's file < environment < flags, with all problems in one error."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.config.model import Settings
from lab.config.sources import Layers, read_environment, read_file, read_flags, user_file
from lab.core import redact
from lab.core.errors import UsageError

PROJECT = Path(__file__).resolve().parents[2]
_MOST_CPUS_PER_HOST_CPU = 4


@dataclass(frozen=True)
class SettingRow:
    """One effective value: dotted key, a value that JSON can hold, and where it is from."""

    key: str
    value: str | int | bool
    origin: str


def load(flags: Mapping[str, Any] | None = None, *, root: Path | None = None) -> Settings:
    """The effective settings.

    `flags` maps dotted keys to values (None: not given); `root` is the folder of lab.toml.
    Raises UsageError that names every problem in every source, even one a stronger source hides.
    """
    layers = Layers()
    defaults = (root or PROJECT) / "lab.toml"
    if defaults.is_file():
        read_file(layers, defaults, "lab.toml")
    if own := user_file(layers):
        read_file(layers, own, str(own))
    read_environment(layers)
    read_flags(layers, flags or {})
    settings = Settings(**_nested(layers.values)).with_origins(layers.origins)
    _check_together(layers, settings)
    if layers.problems:
        raise UsageError(_listed(layers.problems), hint=" ".join(layers.hints))
    return settings


def effective(settings: Settings) -> list[SettingRow]:
    """Every key with its value and origin, in the order of lab.toml; secrets masked."""
    return [SettingRow(key, _shown(settings.value(key)), origin) for key, origin in settings.origins.items()]


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [redact.clean(str(item)) for item in value]
    return redact.clean(str(value)) if isinstance(value, str | Path) else value


def host_limits() -> tuple[int, int]:
    """This host's CPUs and MiB of memory."""
    import psutil

    return os.cpu_count() or 1, psutil.virtual_memory().total // 2**20


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (document.setdefault(section, {}) if section else document)[name] = value
    return document


def _check_together(layers: Layers, settings: Settings) -> None:
    """What one value alone cannot show: the host's limits, and ports that collide."""
    cpus, memory = host_limits()
    origins = settings.origins
    if settings.vm.memory_mib > memory:
        layers.problem(
            f"{origins['vm.memory_mib']}: vm.memory_mib = {settings.vm.memory_mib} is more than "
            f"this host's {memory} MiB",
            f"the VM needs to leave some for the host: try vm.memory_mib = {memory * 3 // 4}",
        )
    if settings.vm.cpus > _MOST_CPUS_PER_HOST_CPU * cpus:
        layers.problem(
            f"{origins['vm.cpus']}: vm.cpus = {settings.vm.cpus} is more than "
            f"{_MOST_CPUS_PER_HOST_CPU} times this host's {cpus}",
            f"try vm.cpus = {cpus}",
        )
    for (name, port), (other, same) in itertools.combinations(settings.ports.model_dump().items(), 2):
        if port and port == same:
            layers.problem(
                f"ports.{name} ({origins[f'ports.{name}']}) and ports.{other} ({origins[f'ports.{other}']}) "
                f"are both {port}",
                "give them different ports, or 0 to let lab choose",
            )


def _listed(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"the configuration has {len(problems)} problems:\n" + "\n".join(f"  {line}" for line in problems)
