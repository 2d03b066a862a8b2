"""host.cpu and host.engine: what L0 offers."""

from __future__ import annotations

from lab.core.errors import BlockedError
from lab.ladder.rung import Layer, Rung
from lab.ladder.site import Site
from lab.model.domain import Claim, Observation


def _cpu(site: Site) -> Observation:
    """The processor's own extensions. Informative: an engine may emulate what is missing."""
    processor = site.host.cpu
    names = ", ".join(processor.extensions) or ("no EL2" if site.host.arm64 else "no vmx or svm")
    inside = ", itself in a virtual machine" if processor.hypervisor else ""
    return Observation(
        ok=bool(processor.extensions),
        expected="a processor that offers vmx or svm (arm64: EL2; macOS: Hypervisor.framework)",
        observed=f"{processor.model or site.host.arch}: {names}{inside}",
        hint="" if processor.extensions else "an engine that emulates the processor still works, slowly",
    )


# Nothing needs it: an engine may emulate what the processor lacks, and host.engine says so.
cpu = Rung(
    "host.cpu",
    "The host's processor has virtualization extensions that this system can use.",
    _cpu,
    Layer.HOST,
    "Processor",
    required_by=frozenset({Claim.THEORY}),
    shows=("host.json",),
)


def _engine(site: Site) -> Observation:
    """The engine starts 64-bit VMs here; its facts are kept for the cell."""
    availability = site.tools.engine.availability()
    if not availability.usable:
        raise BlockedError(
            f"{site.tools.engine.name} cannot be used: {availability.why}", hint=availability.hint
        )
    site.engine_facts = facts = site.tools.engine.facts()
    return Observation(
        ok=True,
        expected="an engine that can start a 64-bit x86 VM",
        observed=f"{facts.engine} {facts.version}, {facts.acceleration}: {facts.how}",
    )


engine = Rung(
    "host.engine",
    "The engine is installed and can start a 64-bit x86 VM on this host.",
    _engine,
    Layer.HOST,
    "Engine",
    shows=("versions.json",),
)
