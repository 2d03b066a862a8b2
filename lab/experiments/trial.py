"""One trial of the experiment: a fresh VM made as asked, booted, looked at up to guest.kvm, and removed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lab import emulators
from lab.core.deadline import check_cancelled, cleaning_up
from lab.core.errors import BlockedError, BusyError, InterruptedByUser, LabError
from lab.core.steps import Background
from lab.engines.protocol import EngineFacts
from lab.experiments.turns import Turn
from lab.ladder.climb import Climb, climb
from lab.ladder.rungs import LADDER, guest, host, vm
from lab.ladder.site import Site
from lab.model.domain import Claim, Status
from lab.records.evidence import Run
from lab.records.labs import Lab
from lab.records.record import new_record
from lab.theory.experiment import AskedCell, TrialEntry, TrialOutcome, delivered, trial
from lab.workflow.build import Builder
from lab.workflow.destroy import destroy
from lab.workflow.session import Session
from lab.workflow.workbench import Workbench

PREFIX = "experiment-"
MARK = "experiment"
"""The journal's word for a lab of the experiment: by it, and not by its name, one is known and removed."""

_RUNGS = LADDER.up_to(guest.paravirt, guest.kvm)
_MADE = (host.engine.name, vm.settings.name)
"""What is built before it is looked at: packages and image, the VM. Docker and L2 are not needed."""


class Trials:
    """Makes the labs of one experiment, on one engine and one image, one after the other."""

    def __init__(self, session: Session, engine: str, run: Run) -> None:
        # Ports that the user fixed belong to the labs the user made.
        free = {"ports": type(session.settings.ports)()}
        self._session = replace(session, settings=session.settings.model_copy(update=free))
        self._engine = engine
        self._run = run
        self._image, self._image_why = "", ""
        """Chosen by the first trial, the same for all."""
        self._facts: EngineFacts | None = None

    @property
    def where(self) -> dict[str, str]:
        """Engine and image, as far as they are known."""
        facts = self._facts
        return {
            "engine": self._engine,
            "engine_version": facts.version if facts else "",
            "acceleration": facts.acceleration if facts else "",
            "nesting": facts.nesting if facts else "none",
            "image": self._image,
        }

    def sweep(self) -> None:
        """Remove what an experiment that was killed left behind."""
        for lab in self._session.store.labs():
            if lab.name.startswith(PREFIX) and _is_marked(lab):
                self._destroy(lab)

    def taken(self, turns: Sequence[Turn[AskedCell]]) -> Iterator[TrialEntry]:
        """Take the turns one after the other. Raises InterruptedByUser."""
        for turn in turns:
            title = f"{turn.number} of {len(turns)}: {turn.cell}"
            with self._session.steps.step("experiment.trial", title) as step:
                taken = self.take(turn)
                step.result = f"{turn.cell}: {taken.result}"
            yield taken

    def take(self, turn: Turn[AskedCell]) -> TrialEntry:
        """The trial of one turn, whatever comes of it; its VM is removed. Raises InterruptedByUser."""
        started = time.monotonic()
        lab = self._place(turn)
        try:
            with lab.hold("theory.experiment"):
                taken = self._look(lab, turn)
        except (InterruptedByUser, BusyError):
            raise
        except LabError as error:
            check_cancelled()  # what an interruption broke did not fail by itself
            taken = entry(turn, _outcome(error), error.what)
        finally:
            with cleaning_up():
                self._destroy(lab)
        return taken.model_copy(update={"seconds": round(time.monotonic() - started, 3)})

    def _place(self, turn: Turn[AskedCell]) -> Lab:
        """A lab of a free name, marked before anything of it is made."""
        taken = {lab.name for lab in self._session.store.labs()}
        number = next(number for number in range(turn.number, 10_000) if f"{PREFIX}{number}" not in taken)
        lab = self._session.store.place(f"{PREFIX}{number}")
        lab.journal.intend(MARK, self._run.path.name, turn=turn.number)
        return lab

    def _look(self, lab: Lab, turn: Turn[AskedCell]) -> TrialEntry:
        settings = self._session.settings
        lab.create(
            new_record(
                lab.name,
                engine=self._engine,
                acceleration=settings.qemu.acceleration,
                emulator=emulators.NONE,
                image=self._image,
                image_why=self._image_why,
                cpus=settings.vm.cpus,
                memory_mib=settings.vm.memory_mib,
                disk_gib=settings.vm.disk_gib,
                paravirt=turn.cell.paravirt,
                nested=turn.cell.nested,
            )
        )
        bench = Workbench(self._session, lab)
        site = bench.site(boot_seconds=settings.deadlines.boot)
        try:
            with Background() as background:
                climbed = _climb(bench, site, Builder(bench, background).ensure())
            self._image, self._image_why = bench.record().image, bench.record().image_why
            self._facts = site.engine_facts or self._facts
            taken = judged(turn, climbed, site)
            self._keep(bench, turn, climbed, site)
        finally:
            bench.close()
        return taken

    def _keep(self, bench: Workbench, turn: Turn[AskedCell], climbed: Climb, site: Site) -> None:
        """The evidence of one trial: what each rung found, what L1 said of itself, its console."""
        name = f"trials/{turn.number:02d}"
        self._run.json(
            f"{name}.json",
            {
                "asked": str(turn.cell),
                "rungs": [outcome.row() for outcome in climbed.outcomes if outcome.rung in _RUNGS],
                "facts": site.facts.document(),
            },
        )
        self._run.collect({f"{name}-console.log": bench.machine.console})

    def _destroy(self, lab: Lab) -> None:
        """Remove a lab of the experiment; one that cannot be removed is left to the next run's sweep."""
        try:
            destroy(self._session, lab.name, purge=True)
        except InterruptedByUser:
            raise
        except LabError as error:
            self._session.steps.note(
                f"{lab.name} could not be removed ({error.what}): the next theory.experiment tries again"
            )


def _is_marked(lab: Lab) -> bool:
    """Whether the experiment made it; not of one that may not be read, which hides no other."""
    try:
        return bool(lab.journal.entries(MARK))
    except LabError:
        return False


def _climb(bench: Workbench, site: Site, ensure: dict[str, Callable[[], None]]) -> Climb:
    checks = LADDER.checks(site)
    return climb(
        {name: checks[name] for name in _RUNGS},
        steps=bench.session.steps,
        ensure={name: ensure[name] for name in _MADE},
        informative=LADDER.informative(Claim.NESTING),
    )


def judged(turn: Turn[AskedCell], climbed: Climb, site: Site) -> TrialEntry:
    """What a climb says of the cell.

    guest.kvm is looked at on its own: the ladder does not try it where guest.cpu failed, and whether
    /dev/kvm works without vmx and svm is half of the question.
    """
    accepted = site.facts.vm_settings
    if site.kvm is None:
        at_fault = next(
            outcome for outcome in climbed.outcomes if outcome.rung in _RUNGS and not outcome.passed
        )
        failed = at_fault.status is Status.FAILED
        refused = failed or at_fault.status is Status.BLOCKED
        outcome = TrialOutcome.BLOCKED if refused else TrialOutcome.INCONCLUSIVE
        why = f"{at_fault.rung}: {at_fault.hint if failed else at_fault.observed}"
        return entry(turn, outcome, why, accepted=accepted)
    got = delivered(site.kvm.facts)
    try:
        observation = guest.kvm(site)
    except LabError as error:
        return entry(turn, _outcome(error), error.what, delivered=got, accepted=accepted)
    observed = {"worked": observation.ok, "delivered": got, "accepted": accepted}
    return entry(turn, TrialOutcome.OBSERVED, observation.observed, **observed)


def entry(turn: Turn[AskedCell], outcome: TrialOutcome, why: str, **observed: Any) -> TrialEntry:
    """What came of a turn, as theory.experiment/1 has it."""
    return trial(turn.number, turn.round, turn.cell, outcome, why, **observed)


def not_taken(turn: Turn[AskedCell], why: str) -> TrialEntry:
    """The entry of a turn whose trial was not begun."""
    return entry(turn, TrialOutcome.NOT_TAKEN, why)


def _outcome(error: LabError) -> TrialOutcome:
    return TrialOutcome.BLOCKED if isinstance(error, BlockedError) else TrialOutcome.INCONCLUSIVE
