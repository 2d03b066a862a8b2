"""lab.validate: climb on a lab as it is, change nothing, judge."""

from __future__ import annotations

from lab.commands import measuring
from lab.commands.climbing import check_claim, climb_lab
from lab.commands.session import Reply, Session
from lab.commands.workbench import Workbench
from lab.evidence import Run
from lab.ladder.site import Site


def validate(session: Session, name: str, claim: str = "", compare: bool = False) -> Reply:
    """The verdict of `claim` (or the strongest the lab can test) chooses the exit code."""
    chosen = check_claim(claim)
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
    """Boot the same L2 once with KVM and once without, alike but for that: why one wants nesting."""
    if site.emulator is None or site.booted is None:
        return
    with bench.session.steps.step("nested.compare", "the same L2, with KVM and without") as step:
        with_kvm = measuring.boot_seconds(bench, site.emulator, measuring.KVM)
        without = measuring.boot_seconds(bench, site.emulator, measuring.TCG)
        ratio = without / with_kvm
        site.facts["nested.compare"] = {
            "with_kvm_seconds": with_kvm,
            "without_kvm_seconds": without,
            "ratio": round(ratio, 2),
            "n": 1,
        }
        step.result = f"{without:.1f} s without KVM, {with_kvm:.1f} s with it: {ratio:.1f} times"
