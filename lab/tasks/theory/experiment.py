"""theory.experiment: paravirtualization by nesting, a fresh VM a cell: which of them makes /dev/kvm work?"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from lab.core import lock
from lab.core.errors import InterruptedByUser, UsageError
from lab.experiments.measuring import AGAIN
from lab.experiments.result import Experiment
from lab.experiments.trial import Trials
from lab.records.evidence import Run
from lab.theory import experiment as theory
from lab.theory.experiment import PlannedRun, TrialOutcome, TurnResult
from lab.workflow import selection
from lab.workflow.session import Reply, Session

_NAME = "experiment"


def experiment(session: Session, runs: int = 1, seed: int = 0) -> Reply:
    """`runs` trials of each cell. What was seen is kept, and every VM removed, whichever way it ends.

    The exit code is BLOCKED when no cell could be tried, INCONCLUSIVE when nothing follows.
    """
    if runs < 1:
        raise UsageError(f"--runs {runs} tries nothing", hint="at least 1")
    engine = selection.engine_name(session)
    selection.must_hold_image(session, engine, session.settings.vm.disk_gib)
    session.again = AGAIN
    store = session.store
    with lock.hold(store.state / "experiment.lock", "theory.experiment", "the experiment"):
        run = Run(store.evidence_folder, _NAME, "experiment")
        session.evidence = run.path
        session.steps.subscribe(run.steps)
        trials = Trials(session, engine, run)
        trials.sweep()
        found = _take(session, trials, run, runs, seed or secrets.randbelow(2**32) + 1)
    return Reply(found.document(), found.show, found.code)


def _take(session: Session, trials: Trials, run: Run, runs: int, seed: int) -> Experiment:
    """Each trial is on disk before the next begins, and the picture is drawn however it ends."""
    turns = theory.plan(runs, seed)
    taken: list[TurnResult] = []
    ended = "its turn has not come"
    began, started, host = datetime.now(UTC), time.monotonic(), session.host()

    def so_far() -> Experiment:
        return Experiment(
            where={"host": host, **trials.where},
            seed=seed,
            trials=_all(turns, taken, ended),
            started=began,
            seconds=round(time.monotonic() - started, 3),
            evidence=run.path,
        )

    try:
        for turn in turns:
            with session.steps.step(
                "experiment.trial", f"{turn.number} of {len(turns)}: {turn.asked}"
            ) as step:
                trial = trials.take(turn)
                step.result = f"{turn.asked}: {trial.told}"
            taken.append(trial)
            run.json("experiment.json", so_far().document())
    except (InterruptedByUser, KeyboardInterrupt):
        ended = "interrupted"
        raise
    except BaseException as error:
        ended = f"lab itself failed: {error!r}"
        raise
    finally:
        found = so_far()
        run.json("experiment.json", found.document())
        if not session.settings.rehearsal.pc:  # drawn outside, where that takes no time
            found.draw(run.path)
    return found


def _all(turns: Sequence[PlannedRun], taken: Sequence[TurnResult], ended: str) -> list[TurnResult]:
    """One trial a turn: none that was planned is left out."""
    return [*taken, *(TurnResult(turn, TrialOutcome.NOT_TAKEN, why=ended) for turn in turns[len(taken) :])]
