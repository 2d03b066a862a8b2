"""What a run showed of each layer: the host (L0), the lab VM (L1), the container, its guest (L2).

Below L0 stands the emulated PC, where the host is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.core.characters import one_line
from lab.ladder.report import nesting
from lab.ladder.rung import Layer, Rung
from lab.ladder.rungs import LADDER, android, host, vm
from lab.model.domain import ATTACHED, INFORMS, Cell
from lab.reports.model import ReportedRun
from lab.reports.wording import NOT_LOOKED_AT, engine, word

_WHAT = {
    Layer.HOST: "this host",
    Layer.VM: "the lab VM",
    Layer.CONTAINER: "in the VM",
    Layer.NESTED: "the guest in the container",
}
_ATTACHED = {
    Layer.HOST: "somebody's machine",
    Layer.VM: "somebody's machine",
    Layer.CONTAINER: "in the machine",
    Layer.NESTED: "the guest in the container",
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
class LayerFinding:
    label: str
    text: str
    rung: str = ""
    """The rung that looked; empty for what was chosen, not looked at."""
    word: str = ""
    """What came of that rung."""
    informs: bool = False
    """It does not decide."""


@dataclass(frozen=True)
class LayerResult:
    name: str
    what: str
    word: str
    """As a rung's: what came of the layer's lowest rung that did not pass."""
    state: str
    """The same for people."""
    findings: tuple[LayerFinding, ...]


def layers(run: ReportedRun) -> tuple[LayerResult, ...]:
    """From the host inwards: what was chosen for each layer, then its rungs."""
    chosen, briefly = _chosen(run.cell), _briefly(run)
    # Without Android both of its rungs say the same: that it is none.
    shown = [rung for rung in LADDER if run.cell.android or rung is not android.usable]
    return _pc(run.cell.host.pc) + tuple(
        _result(
            run,
            layer,
            chosen.get(layer, ())
            + tuple(_finding(run, rung, briefly.get(rung, "")) for rung in shown if rung.layer is layer),
        )
        for layer in Layer
    )


def _pc(name: str) -> tuple[LayerResult, ...]:
    """The layer below L0. No rung looks at it: it is what lab was told."""
    if not name:
        return ()
    findings = (
        LayerFinding("Emulator", one_line(name)),
        LayerFinding("Runs on", "a real machine that is no part of this: nothing here says anything of it"),
    )
    return (LayerResult("PC", "the emulated PC below L0", INFORMS, "all software", findings),)


def _chosen(cell: Cell) -> dict[Layer, tuple[LayerFinding, ...]]:
    return {
        Layer.HOST: (
            LayerFinding("System", one_line(f"{cell.host.os}, kernel {cell.host.kernel or 'unknown'}")),
        ),
        Layer.VM: (LayerFinding("Image", one_line(cell.image or "none")),),
        Layer.NESTED: (LayerFinding("Emulator", one_line(cell.emulator or "none")),),
    }


def _briefly(run: ReportedRun) -> dict[Rung, str]:
    """What is shown of a rung that passed, where what it observed is long."""
    cell, boot = run.cell, run.facts.vm_boot
    acceleration = f", {cell.acceleration}" if cell.acceleration else ""
    return {
        host.engine: f"{engine(cell)}{acceleration}, {nesting(cell)}",
        vm.settings: _settings(run.facts.vm_settings or {}),
        vm.boot: boot.kernel if boot else "",
    }


def _finding(run: ReportedRun, rung: Rung, briefly: str) -> LayerFinding:
    outcome = run.outcomes.get(rung.name)
    observed = outcome.observed if outcome else NOT_LOOKED_AT
    text = briefly if briefly and outcome and outcome.passed else observed
    informs = LADDER.informs(rung.name, run.claim)
    return LayerFinding(rung.label, one_line(text), rung.name, word(outcome, run.claim), informs)


def _result(run: ReportedRun, layer: Layer, findings: tuple[LayerFinding, ...]) -> LayerResult:
    name, what = _drawn(run.cell, layer)
    needed = [finding for finding in findings if finding.rung and not finding.informs]
    rungs = [finding.rung for finding in needed]
    at_fault = next((finding for finding in needed if finding.word != "passed"), None)
    if at_fault is None:
        return LayerResult(name, what, "passed" if rungs else "skipped", "works", findings)
    outcome = run.outcomes.get(at_fault.rung)
    below = outcome is not None and outcome.blocked_by is not None and outcome.blocked_by not in rungs
    state = "not reached" if below else _STATES[at_fault.word]
    return LayerResult(name, what, at_fault.word, state, findings)


def _drawn(cell: Cell, layer: Layer) -> tuple[str, str]:
    """The layer's name and what it is. On real hardware the container's guest is the first one: L1."""
    if cell.engine == ATTACHED:
        name = (
            {Layer.VM: Layer.HOST, Layer.NESTED: Layer.VM}.get(layer, layer) if cell.nothing_nested else layer
        )
        return name, _ATTACHED[
            layer
        ] if layer is not Layer.HOST or cell.nothing_nested else "what it is a VM of"
    return layer, "the host: the Linux of that PC" if layer is Layer.HOST and cell.host.pc else _WHAT[layer]


def _settings(settings: Mapping[str, str]) -> str:
    """The few settings that matter here, as the engine read them back."""
    forms = {
        "cpus": "{} CPU" if settings.get("cpus") == "1" else "{} CPUs",
        "memory_mib": "{} MiB",
        "nested": "nesting {}",
        "paravirt": "paravirt {}",
    }
    return ", ".join(form.format(settings[key]) for key, form in forms.items() if settings.get(key))
