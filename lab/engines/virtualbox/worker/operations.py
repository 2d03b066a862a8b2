"""The operations on a VM: the modules here do them over the bindings, those in `manage` over VBoxManage."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

_NAMES = """
    look create settings destroy convert snapshots take restore
    launch forwards forward unforward press power_off resume save screenshot
"""
"""A function each in one module of either set, of the same name and with the same result."""


def operations(*modules: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions of one of the two sets of modules, by the operation's name."""
    return {name: getattr(each, name) for name in _NAMES.split() for each in modules if hasattr(each, name)}
