"""lab.engines.protocol.Engine by way of Vagrant: lab's own engine says what the hypervisor can do."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.core.journal import Journal
from lab.engines.protocol import Availability, Engine, EngineFacts, EngineFinding, MachineSpec
from lab.engines.vagrant import program
from lab.engines.vagrant.libvirt import URI, VIRSH
from lab.engines.vagrant.machine import VagrantMachine
from lab.engines.vagrant.vboxmanage import PROGRAM

_SECONDS = 60.0
_LIBVIRT_HINT = (
    "`apt-get install vagrant vagrant-libvirt libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu`"
)
_VIRTUALBOX_HINT = "install VirtualBox, and Vagrant from https://developer.hashicorp.com/vagrant/install"


class VagrantEngine:
    """`inner` is lab's own engine for the same hypervisor."""

    def __init__(self, name: str, inner: Engine) -> None:
        self.name = name
        self._inner = inner

    def availability(self) -> Availability:
        tool, hint = (VIRSH, _LIBVIRT_HINT) if self._libvirt else (PROGRAM, _VIRTUALBOX_HINT)
        if missing := [each for each in (program.PROGRAM, tool) if not shutil.which(each)]:
            return Availability(False, f"{' and '.join(missing)} not found", hint)
        if self._libvirt and os.geteuid() == 0:
            return Availability(
                False,
                "libvirt has no session for root",
                "run Vagrant as an ordinary user; working KVM needs the group kvm, emulation needs nothing",
            )
        inner = self._inner.availability()
        if not inner.usable:
            return inner
        try:
            by = self._by()
        except LabError as error:
            return Availability(False, f"{error.what}: {error.tail}".rstrip(": "), error.hint or hint)
        return Availability(True, f"{inner.why}; {by}")

    def facts(self) -> EngineFacts:
        """The hypervisor's own, with the way it came by."""
        inner, by = self._inner.facts(), self._by()
        return dataclasses.replace(
            inner,
            engine="libvirt-qemu" if self._libvirt else inner.engine,
            version=f"{inner.version} {by}",
            how=f"{by}; {inner.how}",
            details={**inner.details, **self._asked_over(), "vagrant": program.version()},
        )

    def findings(self, folders: Sequence[Path]) -> list[EngineFinding]:
        return self._inner.findings(folders)

    def caution(self) -> str:
        return self._inner.caution()

    def machine(self, spec: MachineSpec, journal: Journal) -> VagrantMachine:
        return VagrantMachine(spec, journal)

    def _asked_over(self) -> dict[str, str]:
        """How the VM is spoken to, whatever lab's own engine chose for its."""
        if self._libvirt:
            return {}
        return {"transport": PROGRAM, "transport_why": "Vagrant's VirtualBox provider speaks it, too"}

    @property
    def _libvirt(self) -> bool:
        return self.name == "vagrant-libvirt"

    def _by(self) -> str:
        """By which programs, with their versions."""
        by = f"by Vagrant {program.version()}"
        if not self._libvirt:
            return by
        done = proc.run([VIRSH, "-c", URI, "version", "--daemon"], deadline=Deadline.after(_SECONDS))
        daemon = next((line.rpartition(" ")[2] for line in done.out.splitlines() if "daemon" in line), "")
        return f"{by} and libvirt {daemon}".rstrip()
