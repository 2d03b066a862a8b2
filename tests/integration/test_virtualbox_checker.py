"""That the check of test_virtualbox_api.py bites: a call that does not fit is refused, and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from virtualbox import library_base
from virtualbox.library_base import Interface

from lab.engines.virtualbox.worker import api as worker_api
from tests.integration.vboxcom import installed
from tests.integration.vboxcom.raw import Node, Raw
from tests.integration.vboxcom.scenarios import SCENARIOS
from tests.integration.vboxcom.worker import Worker
from tests.integration.vboxcom.world import VirtualBox, World

Call = Callable[[World], Any]


def _vbox(world: World) -> Raw:
    return VirtualBox(world).raw


BITES: list[tuple[str, str, Call, type[Exception], str]] = [
    ("too few arguments", "7.2", lambda world: _vbox(world).createMachine("", "x", ["/"], "Ubuntu_64", ""),
     TypeError, "IVirtualBox: createMachine() takes 9 arguments but 5 were given"),
    ("too many arguments", "6.1", lambda world: _vbox(world).openMachine("x", ""),
     TypeError, "openMachine() takes 1 arguments but 2 were given"),
    ("a method of a later version", "6.1", lambda world: _vbox(world).findProgressById("x"),
     AttributeError, ""),
    ("an attribute that cannot be written", "7.1", lambda world: setattr(_vbox(world), "version", "7"),
     AttributeError, "IVirtualBox: wrote version, which is read-only"),
    ("an attribute that is not there", "7.1", lambda world: setattr(_vbox(world), "verzion", "7"),
     AttributeError, "IVirtualBox: wrote verzion, which it has not"),
    ("an array as if it were an attribute", "7.0", lambda world: _vbox(world).machines,
     AttributeError, ""),
    ("a number that the enum has not", "7.2", lambda world: _vbox(world).openMedium("x", 99, 1, False),
     TypeError, "99 is no DeviceType"),
    ("a label instead of its number", "7.2", lambda world: _vbox(world).openMedium("x", "DVD", 1, False),
     TypeError, "'DVD' is no DeviceType"),
    ("pyvbox's wrapper", "7.2", lambda world: _vbox(world).registerMachine(Interface(_vbox(world))),
     TypeError, "is no IMachine"),
    ("an object of another interface", "7.2", lambda world: _vbox(world).registerMachine(_vbox(world)),
     TypeError, "is no IMachine"),
    ("a string for an array", "6.1", lambda world: _vbox(world).createMachine("", "x", "/", "Ubuntu_64", ""),
     TypeError, "'/' is no str[]"),
    ("a number for a truth", "6.1", lambda world: _vbox(world).openMedium("x", 3, 1, 0),
     TypeError, "0 is no bool"),
    ("an interface that nobody compared", "7.2", lambda world: Node(world, interface="IGuest").raw.OSTypeId,
     LookupError, "compare it first"),
    ("what the stand-in cannot do", "7.2", lambda world: _vbox(world).homeFolder,
     NotImplementedError, "the stand-in does not know homeFolder"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "call", "error", "said"), [item[1:] for item in BITES], ids=[item[0] for item in BITES]
)
def test_what_does_not_fit_is_refused_and_told(
    version: str, call: Call, error: type[Exception], said: str
) -> None:
    with installed(version) as world, pytest.raises(error):
        call(world)
    told = world.log.misfits if said else [name for _, name in world.log.absent]
    assert len(told) == 1 and said in told[0]


WRONG: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "createMachine as 6.1 has it": (
        "7.0",
        "create_machine",
        lambda self, settings, name, group, system, flags: self.library.IMachine(
            self.vbox._call("createMachine", [settings, name, [group], system, flags])
        ),
    ),
    "openMachine as 6.1 has it": (
        "7.0",
        "open_machine",
        lambda self, settings: self._machine(self.vbox._call("openMachine", [settings])),
    ),
    "CPU properties where 7.0 has them": ("7.1", "x86", lambda self, machine: machine._i),
    "CPU properties where 7.1 has them": ("7.0", "x86", lambda self, machine: machine._i.platform.x86),
    "the clock where 7.0 has it": ("7.1", "platform", lambda self, machine: machine._i),
    "the I/O APIC where 7.0 has it": ("7.2", "firmware", lambda self, machine: machine._i.BIOSSettings),
    "the sound card where 6.1 has it": ("7.0", "audio", lambda self, machine: machine._i.audioAdapter),
    "states as pyvbox numbers them": ("7.0", "state", lambda self, machine: str(machine.state)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_worker_that_is_wrong_is_found_out(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the scenarios, even where the worker itself goes on after an error."""
    version, name, wrong = WRONG[what]
    monkeypatch.setattr(worker_api.Api, name, wrong)
    monkeypatch.setattr(worker_api, "_LOCK_SECONDS", 0.5)
    monkeypatch.setattr(library_base.time, "sleep", lambda _seconds: None)
    found = []
    for number, scenario in enumerate(SCENARIOS):
        with installed(version) as world:
            worker = Worker(world, tmp_path / f"vm{number}", tmp_path / "shared")
            try:
                scenario(worker)
            except Exception as error:
                found.append(str(error))
            found += worker.misfits()
    assert found
