"""bench: the figures docs/benchmarks.md shows, each taken several times on this machine."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
from rich.table import Table

from lab import __version__
from lab.adb import adb_program
from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import LabError, UsageError
from lab.core.showing import table
from lab.core.steps import Step
from lab.documents.measured import Bench, BenchMeasure
from lab.experiments.numbers import spread
from lab.guest import keys, seed
from lab.host import facts as host_facts
from lab.host.ports import free_port
from lab.images import canary
from lab.workflow import guest_image, mirror
from lab.workflow.session import ROOT, Reply, Session

_INVOKE = Path(sys.executable).parent / "invoke"
_NAME = "bench"
_BARE_DEADLINE = 400.0
_BARE_TRIES = 3
_BLOCK = 512
"""Bytes: what getrusage counts output in, on Linux."""


class _Runner:
    """Runs lab's tasks as a user does, in a state folder of its own, and times them."""

    def __init__(self, state: Path) -> None:
        self.env = {
            **os.environ,
            "LAB_STATE_DIR": str(state),
            "LAB_ENGINE": "qemu",
            "LAB_IMAGE": guest_image.DEBIAN,
        }

    def seconds(self, *words: str) -> float:
        """Wall-clock seconds of one task. Raises LabError when it does not end with 0."""
        started = time.monotonic()
        done = subprocess.run(
            [str(_INVOKE), *words], cwd=ROOT, env=self.env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise LabError(
                f"`invoke {' '.join(words)}` ended with {done.returncode}", tail=done.stderr[-2000:]
            )
        return time.monotonic() - started

    def written_by_vm(self) -> int:
        """Bytes that the VM's process has written to the disk; Linux counts them."""
        pid = Path(self.env["LAB_STATE_DIR"], "labs", _NAME, "vm", "qemu.pid").read_text()
        return int(psutil.Process(int(pid)).io_counters().write_bytes)

    def clean_up(self) -> None:
        """Destroy the lab, whatever state an interruption left it in."""
        words = [str(_INVOKE), "lab.destroy", "--purge", "--name", _NAME]
        subprocess.run(words, cwd=ROOT, env=self.env, capture_output=True, check=False)


def bench(session: Session, runs: int = 3, cold: bool = False) -> Reply:
    """Measure. Nothing is asserted: a figure over its limit is marked, and that is all.

    `cold` also takes the time of a newcomer: a fresh clone with nothing cached, up to the verdict.
    """
    if runs < 1:
        raise UsageError(f"--runs {runs} measures nothing", hint="at least 1")
    session.again = "the same command measures anew, from the beginning"
    started = time.monotonic()
    began = datetime.now(UTC)
    measures: list[BenchMeasure] = []
    state = Path(tempfile.mkdtemp(prefix="lab-bench-"))
    runner = _Runner(state)

    def add(
        name: str, values: list[float], limit: float | None = None, note: str = "", unit: str = "s"
    ) -> None:
        measures.append(measure(name, unit, [round(value, 3) for value in values], limit, note))

    def take(name: str, limit: float, once: Callable[[], float], times: int = runs) -> None:
        with session.steps.step(f"bench.{name}") as step:
            values = [once() for _ in range(times)]
            step.result = ", ".join(f"{value:.2f}" for value in values)
        add(name, values, limit)

    try:
        runner.seconds("image.build")  # what follows is measured with images cached
        take("invoke --list", 0.7, lambda: runner.seconds("--list"), runs * 3)
        bare, lab_up, written = _pairs(session, runner, runs)
        add("bare script, same steps", bare)
        add("up, images cached", lab_up, note="each after a run of the bare script")
        add("written to disk by an up", written, note="by lab and by the VM's process", unit="MiB")
        take("up on a ready lab", 5.0, lambda: runner.seconds("lab.up", "--name", _NAME))
        take("lab.status --json", 1.0, lambda: runner.seconds("lab.status", "--json", "--name", _NAME))
        take("suspend and resume", 30.0, lambda: _sleep_and_wake(runner))
        runner.seconds("lab.destroy", "--purge", "--name", _NAME)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        peak_mib = peak / (1024 if sys.platform != "darwin" else 2**20)
        add("peak memory of one process", [peak_mib], note="the largest child, QEMU left out", unit="MiB")
        if cold:
            take("up from a fresh clone, nothing cached", 900.0, _cold, 1)
        ratios = [up / by_hand for up, by_hand in zip(lab_up, bare, strict=True)]
        add("up against the bare script", ratios, 1.2, "pairs of runs, in order", "ratio")
    finally:
        runner.clean_up()
        shutil.rmtree(state, ignore_errors=True)
    result = Bench(
        host=host_facts.read().as_dict(),
        lab_version=__version__,
        started=began.isoformat(timespec="milliseconds"),
        seconds=round(time.monotonic() - started, 3),
        measures=measures,
    )
    return Reply.of(result, _table(measures))


def measure(name: str, unit: str, values: list[float], limit: float | None, note: str) -> BenchMeasure:
    """One figure as bench/1 has it; `within` says whether its median keeps the limit, if it has one."""
    figures = spread(values)
    median = figures["median"]
    return BenchMeasure(
        name=name,
        unit=unit,
        **figures,
        limit=limit,
        within=median <= limit if median is not None and limit is not None else None,
        note=note,
    )


def _pairs(session: Session, runner: _Runner, times: int) -> tuple[list[float], list[float], list[float]]:
    """The bare script and `lab.up` from no lab, in turns: a shared machine is not as fast all day.

    The seconds of each, and the MiB that each `lab.up` wrote: none where the system does not count them.
    """
    bare, lab_up, written = [], [], list[float]()
    for number in range(times):
        runner.clean_up()
        with session.steps.step("bench.pair", f"{number + 1} of {times}") as step:
            bare.append(_bare_at_last(session, step))
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock
            lab_up.append(runner.seconds("lab.up", "--name", _NAME))
            blocks = resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock - before
            if sys.platform == "linux":
                written.append((blocks * _BLOCK + runner.written_by_vm()) / 2**20)
            step.result = f"bare {bare[-1]:.1f} s, lab.up {lab_up[-1]:.1f} s"
    return bare, lab_up, written


def _cold() -> float:
    """Clone, environment, both images, lab.up; system packages as they are here."""
    with tempfile.TemporaryDirectory(prefix="lab-cold-") as folder:
        work = Path(folder)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(work / "lab")], check=True)
        env = {
            "LAB_STATE_DIR": str(work / "state"),
            "LAB_CACHE_DIR": str(work / "cache"),
            "LAB_ENGINE": "qemu",
        }
        program = str(work / "lab" / "bin" / "invoke")
        started = time.monotonic()
        try:
            if status := proc.passthrough([program, "lab.up"], env=env, to_stderr=True):
                raise LabError(f"the cold `lab.up` ended with status {status}", hint="its reason is above")
            return time.monotonic() - started
        finally:
            proc.passthrough([program, "lab.destroy"], env=env, to_stderr=True)


def _sleep_and_wake(runner: _Runner) -> float:
    return runner.seconds("lab.suspend", "--name", _NAME) + runner.seconds("lab.resume", "--name", _NAME)


def _bare_at_last(session: Session, step: Step) -> float:
    """A run of the bare script that came through: an emulated kernel may panic, and nothing there minds."""
    for attempt in range(_BARE_TRIES):
        try:
            return _bare(session, step)
        except LabError as error:
            if attempt == _BARE_TRIES - 1:
                raise
            step.note(f"once more: {error.what}")
    raise AssertionError("unreachable")


def _bare(session: Session, step: Step) -> float:
    """The bare script's seconds, on the same images, with keys and a seed of its own."""
    base = session.images / guest_image.debian_image(session) / "disk.qcow2"
    image = canary.build(session.images, step, mirror.debian(session))
    with tempfile.TemporaryDirectory(prefix="lab-bare-") as folder:
        work = Path(folder)
        pair = keys.ensure(work / "keys", _NAME)
        ssh_port = free_port(11022)
        adb_port = free_port(16555)
        keys.write_known_hosts(work / "keys" / "known_hosts", pair.host, ssh_port)
        seed.write(seed.Seed("bench", _NAME, pair), work / "seed.iso")
        words: list[Path | str] = [
            ROOT / "benchmarks" / "bare_up.sh",
            work,
            base,
            work / "seed.iso",
            work / "keys",
            image.path,
        ]
        words += [canary.facts(image)["reference"], adb_program(), str(ssh_port), str(adb_port)]
        return proc.run(words, deadline=Deadline.after(_BARE_DEADLINE)).seconds


def _table(measures: list[BenchMeasure]) -> Table:
    rows = []
    for item in measures:
        unit = "" if item.unit == "ratio" else f" {item.unit}"
        verdict = {True: "within", False: "OVER", None: ""}[item.within]
        figures = (item.median, item.min, item.max, item.limit)
        cells = [f"{figure:.2f}{unit}" if figure is not None else "" for figure in figures]
        rows.append((item.name, str(item.n), *cells, verdict))
    return table(("measure", "n", "median", "min", "max", "limit", ""), rows)
