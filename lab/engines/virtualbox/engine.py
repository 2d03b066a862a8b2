"""lab.engines.protocol.Engine on VirtualBox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

from lab.core import bounds
from lab.core.errors import BlockedError, LabError
from lab.core.journal import Journal
from lab.engines.options import VirtualBoxOptions
from lab.engines.protocol import Availability, EngineFacts, EngineFinding, MachineSpec
from lab.engines.virtualbox import diagnosis, host, vboxlog
from lab.engines.virtualbox.choice import Choice, choose
from lab.engines.virtualbox.host import HostVirtualBox, Installed
from lab.engines.virtualbox.layout import VirtualBoxLayout
from lab.engines.virtualbox.machine import VirtualBoxMachine
from lab.engines.virtualbox.transport import Transport

_HOW = {
    "hwvirt": "VirtualBox's own hypervisor, on the processor's VT-x or AMD-V",
    "native": "the host's own hypervisor (Hypervisor.framework, or KVM), which VirtualBox drives",
    "interpreter": "VirtualBox's interpreter: software runs every instruction, and nothing is nested",
}


class VirtualBoxEngine:
    """`cache_dir` is where converted base images are kept. The host is read when it is first asked about."""

    name = "virtualbox"

    def __init__(
        self,
        cache_dir: Path,
        options: VirtualBoxOptions,
        read: Callable[[], HostVirtualBox] = host.read,
        installed: Callable[[str], Installed | None] = host.installed,
        choose: Callable[[Installed, VirtualBoxOptions], Choice] = choose,
    ) -> None:
        self._cache = cache_dir
        self._options = options
        self._host = cache(read)
        self._installed = cache(partial(installed, options.home))
        self._choose = choose
        self._choice = cache(self._chosen)

    def availability(self) -> Availability:
        availability = diagnosis.can_start_64bit(
            self._host(), self._installed(), self._options.execution_engine
        )
        if not availability.usable:
            return availability
        try:
            version = self._choice().described["version"]
        except LabError as error:
            return Availability(False, f"{error.what}: {error.tail}".rstrip(": "), error.hint, broken=True)
        return Availability(True, f"VirtualBox {version}: {_HOW[self._acceleration(version)]}")

    def facts(self) -> EngineFacts:
        """`acceleration` is what VirtualBox is expected to use; its log says what it used (vm.settings).

        `nesting` is what it accepts, not what it delivers: that is for the guest to show.
        """
        choice = self._choice()
        described = choice.described
        acceleration = self._acceleration(described["version"])
        return EngineFacts(
            engine=self.name,
            version=described["version"],
            acceleration=acceleration,
            nesting="none" if acceleration == "interpreter" else "hardware",
            how=_HOW[acceleration],
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
        installed = self._installed()
        if installed is not None:
            version = installed.version_hint
            try:
                choice = self._choice()
                version = choice.described["version"]
                spoken = f"{choice.transport.name} from {choice.described['glue']}: {choice.why}"
            except LabError as error:
                why_not = error.what
        ran = vboxlog.parse(_newest_log(folders)).engine
        return diagnosis.findings(self._host(), installed, version, spoken, ran, error=why_not)

    def caution(self) -> str:
        return diagnosis.caution(self._host())

    def machine(self, spec: MachineSpec, journal: Journal) -> VirtualBoxMachine:
        return VirtualBoxMachine(spec, journal, self._connect, self._options, self._cache)

    def _connect(self) -> Transport:
        return self._choice().transport

    def _chosen(self) -> Choice:
        """The transport, asked for at most once. Raises BlockedError, LabError."""
        installed = self._installed()
        if installed is None:
            raise BlockedError(
                "VirtualBox is not installed", hint="install it, or use another engine: `--engine qemu`"
            )
        return self._choose(installed, self._options)

    def _acceleration(self, version: str) -> str:
        asked = self._options.execution_engine
        return diagnosis.expected_engine(self._host(), version) if asked == "default" else asked


def _newest_log(folders: Sequence[Path]) -> str:
    """VirtualBox's log of the run that ended last; empty when there was none."""
    logs = [path for folder in folders if (path := VirtualBoxLayout(folder).log).is_file()]
    newest = max(logs, key=lambda path: path.stat().st_mtime, default=None)
    return bounds.read_text(newest) if newest else ""
