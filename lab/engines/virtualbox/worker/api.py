"""The connection: pyvbox over the vboxapi that came with the installed VirtualBox.

pyvbox 2.1.1 was made for 6.1. Its enum tables are wrong for every later version (a running VM reads
"Paused"), so numbers are named here by the installed vboxapi's constants only, and what has moved
since 6.1 is found on the raw object (`_i`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.engines.virtualbox.worker.faults import FaultError, explain

_LOCK_SECONDS = 10.0
_RUNNING = {6: 5, 7: 6}
"""MachineState_Running by major version: 7.0 inserted AbortedSaved before it. Glue of another version
connects all the same, and then lies."""


def _packaged(glue: str) -> tuple[int, int] | None:
    """The version of PyPI's vbox-sdk, if the glue is from it: no constant tells 7.1 from 7.2."""
    for folder in Path(glue).parent.glob("vbox_sdk-*.dist-info"):
        numbers = folder.name.removeprefix("vbox_sdk-").split(".")
        if len(numbers) > 2 and numbers[0].isdigit() and numbers[1].isdigit():
            return int(numbers[0]), int(numbers[1])
    return None


class Api:
    """`vbox` is pyvbox's IVirtualBox; `version` the API's, such as (7, 2)."""

    def __init__(self) -> None:
        try:
            import virtualbox
            from virtualbox import library, library_base
        except ImportError as error:
            raise FaultError("glue", "pyvbox (`virtualbox`) cannot be imported", str(error)) from error
        # Python 3 ignores __nonzero__, so pyvbox takes a null reference for an object; acting on a
        # null event is what crashes VBoxSVC.
        library_base.Interface.__bool__ = lambda self: self._i is not None
        try:
            import vboxapi

            manager = virtualbox.Manager()
            self.vbox = virtualbox.VirtualBox()
        except ImportError as error:
            raise FaultError("glue", "VirtualBox's Python bindings cannot be loaded", str(error)) from error
        except Exception as error:
            fault = explain(error, "connecting to VBoxSVC")
            raise fault if fault.kind != "failed" else FaultError("glue", fault.what, fault.tail) from error
        self.library = library
        self._virtualbox = virtualbox
        self._constants = manager.manager.constants
        self.glue = str(Path(str(vboxapi.__file__)).parent)
        major, minor = str(self.vbox._i.APIVersion).split("_")[:2]
        self.version = (int(major), int(minor))
        self._must_fit()

    def _must_fit(self) -> None:
        """Raise FaultError when the glue is of another version than the VirtualBox it connected to."""
        wanted, actual = _RUNNING.get(self.version[0], 6), self.value("MachineState", "Running")
        signs = []
        if actual != wanted:
            signs.append(f"MachineState_Running is {actual}, and must be {wanted}")
        if (self.version >= (7, 1)) != self.has("CPUPropertyTypeX86"):
            signs.append(f"it {'has' if self.has('CPUPropertyTypeX86') else 'lacks'} CPUPropertyTypeX86")
        packaged = _packaged(self.glue)
        if packaged and packaged[:2] != self.version:
            signs.append(f"it is of vbox-sdk {packaged[0]}.{packaged[1]}")
        if signs:
            raise FaultError(
                "glue",
                f"the vboxapi in {self.glue} is not that of VirtualBox {self.vbox.version_normalized}",
                "; ".join(signs),
                f"use the one that came with VirtualBox, or vbox-sdk=={self.vbox.version_normalized}",
            )

    def value(self, enum: str, label: str) -> int:
        """The installed version's number of an enum's label. FaultError when it has none."""
        values: dict[str, int] = self._constants.all_values(enum)
        if label not in values:
            raise FaultError("failed", f"VirtualBox {self.vbox.version_normalized} has no {enum} {label}")
        return values[label]

    def label(self, enum: str, number: int) -> str:
        """The name of a number; `?N` for one the installed version does not name."""
        values: dict[str, int] = self._constants.all_values(enum)
        names = [name for name, value in values.items() if value == int(number)]
        # FirstOnline and its like are marks on the scale, not states.
        real = [name for name in names if not name.startswith(("First", "Last"))]
        return (real or names or [f"?{number}"])[0]

    def has(self, enum: str) -> bool:
        return bool(self._constants.all_values(enum))

    # What moved. Each is one attribute that the raw object has or has not.

    def x86(self, machine: Any) -> Any:
        """What owns CPU and HWVirtEx properties: the machine, or since 7.1 its platform's x86 part."""
        raw = machine._i
        return raw.platform.x86 if hasattr(raw, "platform") else raw

    def platform(self, machine: Any) -> Any:
        """What owns the clock and the chipset."""
        raw = machine._i
        return raw.platform if hasattr(raw, "platform") else raw

    def firmware(self, machine: Any) -> Any:
        """What owns the I/O APIC."""
        raw = machine._i
        return raw.firmwareSettings if hasattr(raw, "firmwareSettings") else raw.BIOSSettings

    def audio(self, machine: Any) -> Any:
        raw = machine._i
        return raw.audioSettings.adapter if hasattr(raw, "audioSettings") else raw.audioAdapter

    def cpu_property(self, label: str) -> int:
        """The number of a CPU property; 7.1 renamed the enum."""
        enum = "CPUPropertyTypeX86" if self.has("CPUPropertyTypeX86") else "CPUPropertyType"
        return self.value(enum, label)

    # The two calls whose arguments changed.

    def create_machine(self, settings: str, name: str, group: str, os_type: str, flags: str) -> Any:
        words: list[Any] = [settings, name]
        if self.version >= (7, 1):
            words.append(self.value("PlatformArchitecture", "x86"))
        words += [[group], os_type, flags]
        if self.version >= (7, 0):
            words += ["", "", ""]  # no encryption
        return self.library.IMachine(self.vbox._call("createMachine", words))

    def open_machine(self, settings: str) -> Any:
        words = [settings] if self.version < (7, 0) else [settings, ""]
        return self._machine(self.vbox._call("openMachine", words))

    # Finding and holding machines.

    def _machine(self, raw: Any) -> Any:
        return self.library.IMachine(raw)

    def find(self, uuid: str) -> Any | None:
        """The machine with that UUID, or None."""
        try:
            return self.vbox.find_machine(uuid)
        except Exception as error:
            if explain(error, "").kind == "missing":
                return None
            raise

    def known(self, uuid: str) -> Any:
        """The machine with that UUID. FaultError when there is none."""
        machine = self.find(uuid)
        if machine is None:
            raise FaultError("missing", f"VirtualBox knows no machine {uuid}")
        return machine

    def state(self, machine: Any) -> str:
        return self.label("MachineState", machine._i.state)

    def session(self) -> Any:
        return self._virtualbox.Session()

    @contextlib.contextmanager
    def locked(self, machine: Any, kind: str) -> Iterator[Any]:
        """A session that holds the machine: `write` (nobody else may), or `shared` with who runs it.

        A VM process that ends lets go a moment later than it says: tried for ten seconds.
        """
        session = self.session()
        lock_type = getattr(self.library.LockType, kind)
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                machine.lock_machine(session, lock_type)
                break
            except Exception as error:
                fault = explain(error, f"locking the VM ({kind})")
                if fault.kind != "busy" or time.monotonic() > until:
                    raise fault from error
            time.sleep(0.1)
        try:
            yield session
        finally:
            with contextlib.suppress(Exception):
                session.unlock_machine()

    def wait_unlocked(self, machine: Any) -> None:
        """Wait until no session holds the machine any more, for as long as `locked` would."""
        free = self.value("SessionState", "Unlocked")
        until = time.monotonic() + _LOCK_SECONDS
        while machine._i.sessionState != free and time.monotonic() < until:
            time.sleep(0.02)
