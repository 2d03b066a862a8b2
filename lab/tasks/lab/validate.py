"""lab.validate: climb on a lab as it is, change nothing, judge."""

from __future__ import annotations

from lab.experiments import measuring
from lab.experiments.measuring import PAIR, TITLES, TimedBoot
from lab.experiments.turns import Turn
from lab.ladder.facts import ComparedBoots
from lab.ladder.site import Site
from lab.records.evidence import Run
from lab.workflow.climbing import check_claim, climb_lab
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench


def validate(session: Session, name: str, claim: str = "", compare: bool = False) -> Reply:
    """The verdict of `claim` (or the strongest the lab can test) chooses the exit code."""
    chosen = check_claim(claim)
    session.again = "nothing was changed; the same command looks again, from the lowest rung"
    bench = Workbench.open(session, name)
    with bench.lab.hold("lab.validate"):
        bench.lab.record()
        run = Run(session.store.evidence_folder, name, "validate")
        session.evidence = run.path
        session.steps.subscribe(run.steps)
        try:
            climbed = climb_lab(
                bench,
                run,
                claim=chosen,
                boot_seconds=session.settings.deadlines.ssh,
                after=(lambda site: _compare(bench, site)) if compare else None,
            )
        finally:
            bench.close()
    return Reply(climbed.document, climbed.show, climbed.code)


def _compare(bench: Workbench, site: Site) -> None:
    """TimedBoot the same L2 once with KVM and once without, alike but for that: why one wants nesting.

    A boot that gives no figure is a fact of its own, with the reason: it costs no verdict.
    """
    emulator = site.emulator
    if emulator is None or site.booted is None:
        return
    turns = [Turn(number, 1, TimedBoot(emulator.name, route)) for number, route in enumerate(PAIR, 1)]
    with bench.session.steps.step("nested.compare", "the same L2, with KVM and without") as step:
        taken = list(measuring.measured(bench, turns, {turn.cell: emulator for turn in turns}, {}))
        with_kvm, without = (boot.seconds for boot in taken)
        ratio = round(without / with_kvm, 2) if without and with_kvm else None
        site.facts.nested_compare = compared = ComparedBoots(
            with_kvm_seconds=with_kvm,
            without_kvm_seconds=without,
            ratio=ratio,
            n=0 if ratio is None else 1,
        )
        if ratio is None:
            lost = [boot for boot in taken if boot.seconds is None]
            compared.why = "; ".join(f"{TITLES[boot.route]}: {boot.outcome}: {boot.why}" for boot in lost)
            step.result = f"no ratio: {compared.why}"
        else:
            step.result = f"{without:.1f} s without KVM, {with_kvm:.1f} s with it: {ratio:.1f} times"
