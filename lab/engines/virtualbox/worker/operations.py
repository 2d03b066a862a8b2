"""The operations on a VM: these modules do them over the bindings, those in `manage` over VBoxManage."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

_NAMES = {
    "machine": ("look", "create", "settings", "destroy"),
    "media": ("convert",),
    "power": (
        "launch",
        "forwards",
        "forward",
        "unforward",
        "press",
        "power_off",
        "resume",
        "save",
        "screenshot",
    ),
    "snapshots": ("snapshots", "take", "restore"),
}
"""The operations of each module: a function each, of the same name and with the same result in both sets."""


def operations(*modules: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions of one of the two sets of modules, by the operation's name."""
    by_name = {module.__name__.rpartition(".")[2]: module for module in modules}
    return {name: getattr(by_name[module], name) for module, names in _NAMES.items() for name in names}
