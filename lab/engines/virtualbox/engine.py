"""lab.engines.protocol.Engine on VirtualBox."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.core import bounds
from lab.core.errors import BlockedError, LabError
from lab.core.journal import Journal
from lab.engines.options import VirtualBoxOptions
from lab.engines.protocol import Availability, EngineFacts, EngineFinding, MachineSpec
from lab.engines.virtualbox import diagnosis, host, vboxlog
from lab.engines.virtualbox.choice import Choice, choose
from lab.engines.virtualbox.layout import VirtualBoxLayout
from lab.engines.virtualbox.machine import VirtualBoxMachine
from lab.engines.virtualbox.transport import Transport

_HOW = {
    "hwvirt": "VirtualBox's own hypervisor, on the processor's VT-x or AMD-V",
    "native": "the host's own hypervisor (Hypervisor.framework, or KVM), which VirtualBox drives",
    "interpreter": "VirtualBox's interpreter: software runs every instruction, and nothing is nested",
}


class VirtualBoxEngine:
    """`cache` is where converted base images are kept."""

    name = "virtualbox"

    def __init__(self, cache: Path, options: VirtualBoxOptions) -> None:
        self._cache = cache
        self._options = options

    def availability(self) -> Availability:
        availability = diagnosis.can_start_64bit(self._host, self._installed, self._options.execution_engine)
        if not availability.usable:
            return availability
        try:
            described = self._described
        except LabError as error:
            return Availability(False, f"{error.what}: {error.tail}".rstrip(": "), error.hint, broken=True)
        return Availability(True, f"VirtualBox {described['version']}: {_HOW[self._acceleration]}")

    def facts(self) -> EngineFacts:
        """`acceleration` is what VirtualBox is expected to use; its log says what it used (vm.settings).

        `nesting` is what it accepts, not what it delivers: that is for the guest to show.
        """
        choice, described = self._choice, self._choice.described
        return EngineFacts(
            engine=self.name,
            version=described["version"],
            acceleration=self._acceleration,
            nesting="none" if self._acceleration == "interpreter" else "hardware",
            how=_HOW[self._acceleration],
            details={
                "build": described["build"],
                "transport": choice.transport.name,
                "transport_why": choice.why,
                "glue": described["glue"],
                "python": described["python"],
                "features": ", ".join(name for name, has in described["features"].items() if has) or "none",
                "execution_engine_asked": self._options.execution_engine,
            },
        )

    def findings(self, folders: Sequence[Path]) -> list[EngineFinding]:
        version = spoken = why_not = ""
        if self._installed is not None:
            version = self._installed.version_hint
            try:
                choice = self._choice
                version = choice.described["version"]
                spoken = f"{choice.transport.name} from {choice.described['glue']}: {choice.why}"
            except LabError as error:
                why_not = error.what
        ran = vboxlog.parse(_newest_log(folders)).engine
        return diagnosis.findings(self._host, self._installed, version, spoken, ran, error=why_not)

    def caution(self) -> str:
        return diagnosis.caution(self._host)

    def machine(self, spec: MachineSpec, journal: Journal) -> VirtualBoxMachine:
        return VirtualBoxMachine(spec, journal, self._connect, self._options, self._cache)

    @cached_property
    def _host(self) -> host.HostVirtualBox:
        return host.read()

    @cached_property
    def _installed(self) -> host.Installed | None:
        return host.installed(self._options.home)

    def _connect(self) -> Transport:
        return self._choice.transport

    @cached_property
    def _choice(self) -> Choice:
        if self._installed is None:
            raise BlockedError(
                "VirtualBox is not installed", hint="install it, or use another engine: `--engine qemu`"
            )
        return choose(self._installed, self._options)

    @property
    def _described(self) -> dict[str, Any]:
        return self._choice.described

    @property
    def _acceleration(self) -> str:
        asked = self._options.execution_engine
        return (
            diagnosis.expected_engine(self._host, self._described["version"]) if asked == "default" else asked
        )


def _newest_log(folders: Sequence[Path]) -> str:
    """VirtualBox's log of the run that ended last; empty when there was none."""
    logs = [path for folder in folders if (path := VirtualBoxLayout(folder).log).is_file()]
    newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    return bounds.read_text(newest) if newest else ""
