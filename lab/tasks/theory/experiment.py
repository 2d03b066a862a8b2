"""theory.experiment: paravirtualization by nesting, a fresh VM a cell: which of them makes /dev/kvm work?"""

from __future__ import annotations

from lab.core import lock
from lab.core.errors import UsageError
from lab.experiments import trial, turns
from lab.experiments.result import Experiment
from lab.experiments.trial import Trials
from lab.records.evidence import Run
from lab.theory.experiment import CELLS
from lab.workflow import guest_image, selection
from lab.workflow.session import Reply, Session

_NAME = "experiment"


def experiment(session: Session, runs: int = 1, seed: int = 0) -> Reply:
    """`runs` trials of each cell. What was seen is kept, and every VM removed, whichever way it ends.

    The exit code is BLOCKED when no cell could be tried, INCONCLUSIVE when nothing follows.
    """
    if runs < 1:
        raise UsageError(f"--runs {runs} tries nothing", hint="at least 1")
    engine = selection.engine_name(session)
    guest_image.must_hold_image(session, engine, session.settings.vm.disk_gib)
    session.again = turns.AGAIN
    store = session.store
    with lock.hold(store.state / "experiment.lock", "theory.experiment", "the experiment"):
        run = Run(store.evidence_folder, _NAME, "experiment")
        session.evidence = run.path
        session.steps.subscribe(run.steps)
        trials = Trials(session, engine, run)
        trials.sweep()
        seed, host = turns.seed_of(seed), session.host()
        planned = turns.plan(CELLS, runs, seed)
        result = turns.conduct(
            run,
            planned,
            lambda: trials.taken(planned),
            trial.not_taken,
            lambda taken, **known: Experiment.of(
                taken, where={"host": host, **trials.where}, seed=seed, **known
            ),
            draw=not session.settings.rehearsal.pc,  # drawn outside, where that takes no time
        )
    return Reply(result.document.as_json(), result.show, result.code)
