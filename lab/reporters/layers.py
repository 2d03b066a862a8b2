"""What was found at each layer: the host (L0), the lab VM (L1), the container in it, and its guest (L2).

Below L0 stands the emulated PC, where the host is one.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.characters import one_line
from lab.ladder.model import INFORMS, Nesting
from lab.ladder.verdict import informs
from lab.reporters.model import Run
from lab.reporters.wording import NOT_LOOKED_AT, engine, word

_NESTING = {
    Nesting.HARDWARE: "nesting in hardware",
    Nesting.EMULATED: "nesting emulated in software",
    Nesting.NONE: "no nesting",
}
_STATES = {
    "passed": "works",
    "failed": "fails here",
    "inconclusive": "not settled here",
    "blocked": "blocked here",
    "skipped": "skipped",
    NOT_LOOKED_AT: NOT_LOOKED_AT,
}


@dataclass(frozen=True)
class Finding:
    label: str
    text: str
    rung: str = ""
    """The rung that found it; empty for what was chosen, not looked at."""
    word: str = ""
    """What came of that rung."""
    informs: bool = False
    """It does not decide."""


@dataclass(frozen=True)
class Layer:
    name: str
    what: str
    word: str
    """As a rung's: what came of the layer's lowest rung that did not pass."""
    state: str
    """The same for people."""
    findings: tuple[Finding, ...]


def layers(run: Run) -> tuple[Layer, ...]:
    """From the host inwards."""
    cell, seen = run.cell, run.outcomes

    def finding(rung: str, label: str, instead: str = "") -> Finding:
        """What a rung observed, or `instead` the same said shorter where the rung passed."""
        outcome = seen.get(rung)
        passed = outcome is not None and outcome.passed
        said = instead if passed and instead else outcome.observed if outcome else NOT_LOOKED_AT
        return Finding(label, one_line(said), rung, word(outcome, run.claim), informs(rung, run.claim))

    acceleration = f", {cell.acceleration}" if cell.acceleration else ""
    host = (
        Finding("System", one_line(f"{cell.host.os}, kernel {cell.host.kernel or 'unknown'}")),
        finding("host.cpu", "Processor"),
        finding("host.engine", "Engine", f"{engine(cell)}{acceleration}, {_NESTING[cell.nesting]}"),
    )
    vm = (
        Finding("Image", one_line(cell.image or "none")),
        finding("vm.settings", "Settings", _settings(run)),
        finding("vm.boot", "Kernel", str(run.fact("vm.boot", "kernel") or "")),
        finding("guest.paravirt", "Paravirt"),
        finding("guest.cpu", "Processor"),
        finding("guest.kvm", "/dev/kvm"),
    )
    container = (finding("docker.engine", "Docker"), finding("container.kvm", "/dev/kvm"))
    inner: tuple[Finding, ...] = (
        Finding("Emulator", one_line(cell.emulator or "none")),
        finding("nested.boot", "Boot"),
        finding("nested.adb", "ADB"),
        finding("android.boot", "Android"),
        finding("android.usable", "Its use"),
    )
    if not cell.android:
        inner = inner[:-1]  # both rungs say the same: that it is no Android
    pc = _pc(cell.host.pc)
    return (
        *pc,
        _layer(run, "L0", "the host: the Linux of that PC" if pc else "this host", host),
        _layer(run, "L1", "the lab VM", vm),
        _layer(run, "Container", "in the VM", container),
        _layer(run, "L2", "the guest in the container", inner),
    )


def _pc(told: str) -> tuple[Layer, ...]:
    """The layer below L0. No rung looks at it: it is what lab was told."""
    if not told:
        return ()
    findings = (
        Finding("Emulator", one_line(told)),
        Finding("Runs on", "a real machine that is no part of this: nothing here says anything of it"),
    )
    return (Layer("PC", "the emulated PC below L0", INFORMS, "all software", findings),)


def _layer(run: Run, name: str, what: str, findings: tuple[Finding, ...]) -> Layer:
    needed = [found for found in findings if found.rung and not found.informs]
    rungs = [found.rung for found in needed]
    found = next((found for found in needed if found.word != "passed"), None)
    if found is None:
        return Layer(name, what, "passed" if rungs else "skipped", "works", findings)
    outcome = run.outcomes.get(found.rung)
    below = outcome is not None and outcome.blocked_by is not None and outcome.blocked_by not in rungs
    return Layer(name, what, found.word, "not reached" if below else _STATES[found.word], findings)


def _settings(run: Run) -> str:
    """The few settings that matter here, as the engine read them back."""
    found = run.fact("vm.settings")
    if not isinstance(found, dict):
        return ""
    said = {
        "cpus": "{} CPU" if found.get("cpus") == "1" else "{} CPUs",
        "memory_mib": "{} MiB",
        "nested": "nesting {}",
        "paravirt": "paravirt {}",
    }
    return ", ".join(form.format(found[key]) for key, form in said.items() if found.get(key))
