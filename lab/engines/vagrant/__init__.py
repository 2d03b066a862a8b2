"""Machines that Vagrant made: the same hypervisors, by another road (docs/vagrant.md).

Vagrant is told to start and stop; how a machine is, is asked of its hypervisor, by the id that Vagrant keeps.
"""

from __future__ import annotations

from typing import Literal, get_args

Provider = Literal["libvirt", "virtualbox"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)
"""Vagrant's providers that lab knows."""

INNER = {"vagrant-libvirt": "qemu", "vagrant-virtualbox": "virtualbox"}
"""The engines by Vagrant, and lab's own for the same hypervisor. `auto` never takes one of them."""


def engine_of(provider: Provider) -> str:
    """The engine's name of a provider, as a lab's record has it."""
    return f"vagrant-{provider}"
