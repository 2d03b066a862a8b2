"""Which way VirtualBox is spoken to: over its bindings wherever they load, else over VBoxManage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.core.errors import BlockedError, LabError
from lab.engines.options import VirtualBoxOptions
from lab.engines.virtualbox.client import client
from lab.engines.virtualbox.host import Installed
from lab.engines.virtualbox.manage import Manage
from lab.engines.virtualbox.transport import GlueError, Transport, WorkerLostError


@dataclass(frozen=True)
class Choice:
    """A transport that answered. `why` is half a sentence; `described` is its answer to `describe`."""

    transport: Transport
    why: str
    described: dict[str, Any]


def choose(
    installed: Installed,
    options: VirtualBoxOptions,
    bindings: Callable[[str, Path, tuple[Path, ...]], Transport] = client,
    manage: Callable[[Path], Transport] = Manage,
) -> Choice:
    """The transport that the options ask for; for `auto` the bindings if they answer, else VBoxManage.

    Only bindings that do not load make way: a VirtualBox that fails over them would fail over VBoxManage too.
    Raises GlueError for bindings that were asked for, BlockedError where neither answers, LabError.
    """
    if options.transport == "vboxmanage":
        return _ask(manage(installed.folder), "virtualbox.transport asks for it")
    try:
        asked = options.transport == "vboxapi"
        return _ask(
            bindings(options.python, installed.folder, installed.glue),
            "virtualbox.transport asks for it" if asked else "its bindings load",
        )
    except (GlueError, WorkerLostError) as error:
        if options.transport == "vboxapi":
            raise
        why = f"{error.what} ({error.tail})" if error.tail else error.what
        try:
            return _ask(manage(installed.folder), why)
        except LabError as second:
            raise BlockedError(
                f"VirtualBox answers neither over its bindings ({error.what}) nor over VBoxManage"
                f" ({second.what})",
                tail="\n".join(filter(None, (error.tail, second.tail))),
                hint=second.hint or error.hint,
            ) from second


def _ask(transport: Transport, why: str) -> Choice:
    return Choice(transport, why, transport.call("describe"))
