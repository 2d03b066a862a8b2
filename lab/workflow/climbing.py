"""One climb with all that belongs to it: evidence, judgement, the document, what a person sees."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from lab import emulators, reports
from lab.core.deadline import cleaning_up
from lab.core.errors import LabError, UsageError
from lab.core.showing import show
from lab.core.steps import Background
from lab.engines.protocol import SOFTWARE
from lab.host.cpuid import SOFTWARE_SIGNATURES
from lab.ladder import report
from lab.ladder.climb import Climb, climb
from lab.ladder.rungs import LADDER
from lab.ladder.site import Site
from lab.ladder.verdict import ClaimVerdict, exit_code, judge, strongest_claim
from lab.model.domain import NOT_ANDROID, Cell, Claim, Host, Nesting, Outcome, Verdict
from lab.records.evidence import Run
from lab.workflow import attached, guest_image
from lab.workflow.collect import collect
from lab.workflow.workbench import Workbench

_TRANSPORT = ("transport", "transport_why")
"""Keys of EngineFacts.details that say how lab talks to the engine."""


@dataclass
class Climbed:
    """What came of it. `document` is lab.validation/1."""

    climb: Climb
    cell: Cell
    claims: dict[Claim, ClaimVerdict]
    claim: Claim
    document: dict[str, Any]
    run: Run

    @property
    def code(self) -> int:
        return exit_code(self.claims[self.claim].verdict)

    def show(self, console: Console) -> None:
        console.print(report.table(self.climb.outcomes, self.claim))
        console.print()
        show(console, *report.summary(self.cell, self.claims, self.claim), f"evidence: {self.run.path}")
        if (page := self.run.path / "report.html").is_file():
            show(console, f"report:   {page}")


def check_claim(name: str) -> Claim | None:
    """A claim by its name, None when none was named."""
    if not name:
        return None
    try:
        return Claim(name)
    except ValueError:
        raise UsageError(
            f"there is no claim {name!r}", hint=f"one of {', '.join(claim.value for claim in Claim)}"
        ) from None


def climb_lab(
    bench: Workbench,
    run: Run,
    *,
    claim: Claim | None = None,
    ensure: Mapping[str, Callable[[], None]] | None = None,
    boot_seconds: float,
    after: Callable[[Site], None] | None = None,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> Climbed:
    """Climb, save evidence whichever way it ends, judge.

    `after` may add measurements to the site's facts once the climb is over. An interruption
    saves what needs no waiting and goes on to the caller.
    """
    started = datetime.now(UTC)
    if attached.is_attached(bench.record()):
        with contextlib.suppress(LabError):  # the rungs say what is wrong with it
            attached.refresh(bench)
    site = bench.site(boot_seconds=boot_seconds)
    outcomes: list[Outcome] = []

    def settle(outcome: Outcome) -> None:
        outcomes.append(outcome)
        on_outcome(outcome)

    try:
        climbed = climb(
            LADDER.checks(site),
            steps=bench.session.steps,
            ensure=ensure,
            skip=LADDER.skips(site),
            informative=_informative(bench, claim),
            on_outcome=settle,
        )
        if after is not None:
            after(site)
    except (LabError, KeyboardInterrupt):
        with cleaning_up():  # saving evidence waits for nothing long, but it does wait
            run.json("rungs.json", [outcome.row() for outcome in outcomes])
            collect(bench, run, reach_guest=False)
        raise
    with bench.session.steps.step("evidence") as step, Background() as background:
        asked = background.start(lambda: _ran(bench, site))
        kept = collect(bench, run)
        ran = asked.result()
        step.result = f"{len(kept)} files in {run.path}"
    cell = _cell(bench, site, ran)
    claims = _explained(judge(climbed.outcomes, cell, bench.record().emulator), bench)
    chosen = claim or strongest_claim(cell)
    document = report.document(
        lab_name=bench.lab.name,
        lab_uuid=bench.record().uuid,
        cell=cell,
        climbed=climbed,
        claims=claims,
        claim=chosen,
        started=started,
        ended=datetime.now(UTC),
        evidence=run.path,
        facts=site.facts.document(),
    )
    run.json("validation.json", document)
    _write_report(bench, run)
    # A climb that did not reach L1 learned no boot id: what it is known to be stays known. And what was
    # found does not depend on which claim chose the exit code.
    bench.lab.change(
        verdict=claims[strongest_claim(cell)].verdict.value,
        boot_id=site.boot_id or bench.record().boot_id,
        ran=cell.acceleration if site.facts.vm_settings is not None else bench.record().ran,
    )
    return Climbed(climbed, cell, claims, chosen, document, run)


def _informative(bench: Workbench, claim: Claim | None) -> tuple[str, ...]:
    """The rungs that only inform; where no claim was named, for each claim that may turn out to be meant."""
    theory = bench.host().mac and bench.record().engine == "virtualbox"
    meant = claim or (Claim.THEORY if theory else Claim.ANDROID)
    return LADDER.informative(meant)


def _write_report(bench: Workbench, run: Run) -> None:
    """Write all reports, beside the evidence; a failure is shown and changes no verdict.

    In a rehearsal they are written outside, where that takes no time (lab.tasks.theory.rehearse).
    """
    if bench.session.settings.rehearsal.pc:
        return
    with bench.session.steps.step("report") as step:
        try:
            files = reports.write(reports.read([reports.RunFolder(run.path)]), run.path)
            step.result = str(files["html"])
        except Exception as error:
            step.result = f"not written: {error}"


def _explained(claims: dict[Claim, ClaimVerdict], bench: Workbench) -> dict[Claim, ClaimVerdict]:
    """The verdicts, with why it was no Android that ran where `auto` left that choice to lab."""
    android, why = claims[Claim.ANDROID], bench.record().emulator_why
    chosen = bench.record().emulator in NOT_ANDROID and why not in ("", guest_image.ASKED_FOR)
    if chosen and android.verdict is Verdict.BLOCKED:
        claims[Claim.ANDROID] = replace(android, reason=f"{android.reason}; {why}")
    return claims


def _emulated(site: Site) -> bool | None:
    """Whether any processor in the chain is software: L1's, or already the host's own; None if not known."""
    facts = site.engine_facts
    signature = site.kvm.facts.cpu.hypervisor if site.kvm else None
    below = facts is not None and (facts.acceleration in SOFTWARE or facts.nesting == "emulated")
    if below or signature in SOFTWARE_SIGNATURES or site.host.cpu.emulated:
        return True
    # What the engine ran with is its own word, where it has one; what it was to run with is none.
    settings = site.facts.vm_settings
    mute = settings is not None and settings.get("acceleration", "") in ("", "unknown")
    return None if mute or site.host.cpu.emulated is None else False


def _ran(bench: Workbench, site: Site) -> tuple[str, str]:
    """(kind, image) of the emulator that was looked at.

    If the running container has an older image than today's, Docker's id of that image; else, and where no
    L2 answered, the image that lab would start today.
    """
    emulator = site.emulator
    if emulator is None:
        return emulators.NONE, ""
    if site.booted is not None:
        with contextlib.suppress(LabError):  # gone since: what was seen of it stands
            state = emulator.state(bench.guest)
            if state.image and not emulator.runs_with(state, site.tools.nonce):
                return emulator.name, f"{emulator.name}@{state.image}"
    return emulator.name, emulator.image_id()


def _host_id(bench: Workbench) -> str:
    """This host's id; empty where it cannot be kept, as on a full disk: no climb is worth less for it."""
    try:
        return bench.session.host_id
    except (LabError, OSError):
        return ""


def _architecture(bench: Workbench, site: Site) -> str:
    """L1's processor where it is no x86: as L1 says, else as it was looked at last."""
    machine = site.kvm.facts.machine if site.kvm else ""
    if attached.is_attached(bench.record()):
        machine = machine or site.host.arch
    return "aarch64" if machine in ("aarch64", "arm64") else ""


def _cell(bench: Workbench, site: Site, ran: tuple[str, str]) -> Cell:
    host = site.host
    facts = site.engine_facts
    nesting = Nesting(facts.nesting) if facts and bench.record().nested else Nesting.NONE
    return Cell(
        host=Host(
            system="macos" if host.mac else "linux",
            os=f"{host.os} {host.os_version}".strip(),
            kernel=host.kernel,
            cpu=host.cpu.model or host.arch,
            pc=bench.session.settings.rehearsal.pc,
            id=_host_id(bench),
        ),
        engine=facts.engine if facts else bench.record().engine,
        engine_version=facts.version if facts else "",
        acceleration=facts.acceleration if facts else "",
        nesting=nesting,
        emulated=bool(bench.session.settings.rehearsal.pc) or _emulated(site),
        paravirt=bench.record().paravirt,
        image=bench.record().image,
        emulator=ran[0],
        emulator_image=ran[1],
        android=bool(site.emulator and site.emulator.android and not site.emulator.double),
        architecture=_architecture(bench, site),
        transport=": ".join(facts.details[key] for key in _TRANSPORT if key in facts.details)
        if facts
        else "",
    )
