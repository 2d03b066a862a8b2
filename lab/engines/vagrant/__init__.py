"""Machines that Vagrant made: the same hypervisors, by another road (docs/vagrant.md).

Vagrant is told to start and stop; how a machine is, is asked of its hypervisor, by the id that Vagrant keeps.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Literal, get_args

from lab.engines.kind import EngineKind, Trace
from lab.engines.options import Options
from lab.engines.protocol import Engine

Provider = Literal["libvirt", "virtualbox"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
"""Vagrant's providers that lab knows."""

INNER = {"vagrant-libvirt": "qemu", "vagrant-virtualbox": "virtualbox"}
"""The engines by Vagrant, and lab's own for the same hypervisor."""


def engine_of(provider: Provider) -> str:
    """The engine's name of a provider, as a lab's record has it."""
    return f"vagrant-{provider}"


def kind(name: str, inner: EngineKind) -> EngineKind:
    """What an engine by Vagrant says of itself; `inner` is lab's own for the same hypervisor."""
    provider = name.removeprefix("vagrant-")

    def make(options: Options) -> Engine:
        from lab.engines.vagrant.engine import VagrantEngine

        return VagrantEngine(name, inner.make(options))

    def traces(folder: Path) -> Iterator[Trace]:
        from lab.engines.vagrant import link

        if (known := link.read(folder)) and known.provider == provider:
            yield Trace(name, "", str(folder / link.FILE))

    def prune(cache: Path, keep: Container[str]) -> list[tuple[Path, int]]:
        from lab.engines.vagrant import box

        return box.prune(cache, keep, provider)

    return EngineKind(
        name,
        make,
        # VirtualBox is given the disk of its box as a VMDK, which is converted.
        purposes=inner.purposes | ({"convert-disk"} if provider == "virtualbox" else frozenset()),
        boots_kernel=inner.boots_kernel,
        by_folder=True,
        traces=traces,
        prune=prune,
    )
