"""Puts a stand-in where a version's own vboxapi finds XPCOM."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import virtualbox

from tests.integration.vboxcom import signatures, wheels
from tests.integration.vboxcom.raw import ComError
from tests.integration.vboxcom.world import World

_MODULES = ("vboxapi", "xpcom")


@contextlib.contextmanager
def installed(version: str, glue: str = "") -> Iterator[World]:
    """VirtualBox `version`, and the vboxapi of `glue`, its own unless told otherwise, for this process."""
    world = World(signatures.table(version), wheels.constants(version), wheels.pinned()[version].version)
    with _restored():
        sys.modules |= _xpcom(world)
        sys.path.insert(0, str(wheels.folder(glue or version)))
        importlib.invalidate_caches()
        virtualbox._managers.clear()
        try:
            yield world
        finally:
            for manager in virtualbox._managers.values():
                manager.deinit()  # while there still is an XPCOM to be told
            virtualbox._managers.clear()


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """The glue changes the environment and the module path."""
    path, environment = list(sys.path), dict(os.environ)
    try:
        yield
    finally:
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        for name in [name for name in sys.modules if name.split(".")[0] in _MODULES]:
            del sys.modules[name]


def _xpcom(world: World) -> dict[str, ModuleType]:
    """As much of XPCOM's Python package as vboxapi needs."""

    class Class:
        def __init__(self, make: Callable[[], Any]) -> None:
            self.createInstance = lambda: make().raw

    xpcom, components, native = (ModuleType(f"xpcom{tail}") for tail in ("", ".components", "._xpcom"))
    errors, vbox = ModuleType("xpcom.nsError"), ModuleType("xpcom.vboxxpcom")
    content: dict[str, Any] = {
        "Exception": ComError,
        "components": components,
        "_xpcom": native,
        "nsError": errors,
    }
    xpcom.__dict__.update(content, __path__=[])
    components.__dict__["classes"] = {
        "@virtualbox.org/VirtualBoxClient;1": Class(world.client),
        "@virtualbox.org/VirtualBox;1": Class(lambda: world.client().parts["virtualBox"]()),
        "@virtualbox.org/Session;1": Class(world.session),
    }
    native.__dict__["DeinitCOM"] = lambda: None
    for name in (
        "NS_OK",
        "NS_ERROR_FAILURE",
        "NS_ERROR_ABORT",
        "NS_ERROR_NULL_POINTER",
        "NS_ERROR_NO_INTERFACE",
    ):
        errors.__dict__[name] = len(errors.__dict__)
    for name in ("INVALID_ARG", "OUT_OF_MEMORY", "NOT_IMPLEMENTED", "UNEXPECTED"):
        errors.__dict__[f"NS_ERROR_{name}"] = len(errors.__dict__)
    return {module.__name__: module for module in (xpcom, components, native, errors, vbox)}
