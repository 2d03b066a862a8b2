"""How a command ends that did not do what was asked: an error with a hint, a document, an exit code."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cli import perform as performing
from lab.cli import refusal
from lab.core import deadline, files
from lab.core.errors import BlockedError, DeadlineError, InterruptedByUser, LabError
from lab.records.evidence import Run
from lab.tasks.lab.compare import compare
from lab.tasks.lab.up import up
from lab.tasks.lab.validate import validate
from lab.tasks.theory.experiment import experiment
from lab.workflow.session import Reply, Session
from tests import schema
from tests.unit.bed import Bed

NAME = "default"


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    deadline.cancelled.clear()
    for number, handler in kept.items():
        signal.signal(number, handler)


def performed(
    bed: Bed, capsys: pytest.CaptureFixture[str], command: Callable[[Session], Reply]
) -> tuple[int, dict[str, Any], str]:
    """Exit code, error document, standard error of a command as the command line runs it."""
    with pytest.raises(SystemExit) as ended:
        performing.perform(
            command, as_json=True, settings=lambda _: bed.session().settings, factories=bed.factories
        )
    out, err = capsys.readouterr()
    document = json.loads(out)
    schema.validate(document)
    return int(str(ended.value.code)), document, err


def no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# A full disk


def test_a_file_that_does_not_fit_is_named_and_nothing_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "validation.json"
    target.write_text("old")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"No space left") as full:
        files.write_atomic(target, "new")
    assert full.value.filename == str(target)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_verdict_that_cannot_be_written_is_blocked_and_never_green(
    bed: Bed, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    assert up(bed.session(), NAME).code == 0
    real = files.write_atomic

    def write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
        if path.name == "validation.json":
            raise OSError(code, os.strerror(code), str(path))
        real(path, content, mode)

    bed.patch.setattr("lab.records.evidence.write_atomic", write)
    ended, document, err = performed(bed, capsys, lambda session: validate(session, NAME))
    run = bed.runs()[-1]
    assert ended == document["error"]["exit_code"] == 11
    assert (
        document["error"]["what"] == f"the disk is full where {run} is: validation.json could not be written"
    )
    assert "LAB_STATE_DIR" in document["error"]["hint"] and document["error"]["tail"] == ""
    assert "the disk is full" in err and "lab itself failed" not in err
    assert not (run / "validation.json").exists() and not (run / "report.html").exists()


def test_a_full_disk_that_names_no_file_names_the_state_folder(tmp_path: Path) -> None:
    found = refusal.known(OSError(errno.ENOSPC, "No space left on device"), folders=[tmp_path])
    assert isinstance(found, BlockedError) and str(tmp_path) in found.what


def test_any_other_fault_of_the_system_is_a_bug_and_said_as_one() -> None:
    try:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere")
    except OSError as error:
        found = refusal.known(error)
    assert (type(found), int(found.exit_code)) == (LabError, 1)
    assert "lab itself failed" in found.what and "test_refusal.py" in found.tail


def test_what_is_known_already_stays_as_it_is() -> None:
    known = DeadlineError("L2 was not heard", hint="look")
    assert refusal.known(known, again="never said") is known and known.hint == "look"


# Interrupted


def _stopped(*_: object, **__: object) -> None:
    """As Ctrl-C does it: the signal itself."""
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)  # not reached: the handler raises


@pytest.mark.parametrize(
    ("command", "where", "hint"),
    [
        (lambda session: up(session, NAME), "lab.tasks.lab.up.climb_lab", "goes on where this one stopped"),
        (lambda session: validate(session, NAME), "lab.tasks.lab.validate.climb_lab", "looks again"),
        (lambda session: compare(session, NAME, runs=1), "lab.experiments.turns.conduct", "measures anew"),
        (lambda session: experiment(session, runs=1), "lab.experiments.turns.conduct", "measures anew"),
    ],
)
def test_the_hint_says_what_the_same_command_does_next(
    bed: Bed,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[Session], Reply],
    where: str,
    hint: str,
) -> None:
    if "up.climb" not in where:
        up(bed.session(), NAME)
        capsys.readouterr()
    bed.patch.setattr(where, _stopped)
    ended, document, err = performed(bed, capsys, command)
    assert (ended, document["error"]["what"]) == (130, "interrupted")
    assert hint in document["error"]["hint"] and "hint: " in err
    if "measures anew" in hint:
        assert "goes on" not in document["error"]["hint"], "it does not"


def test_an_interruption_that_has_a_hint_keeps_it() -> None:
    assert refusal.known(InterruptedByUser("stopped", hint="its own"), again="another").hint == "its own"
    assert refusal.known(KeyboardInterrupt(), again="again").hint == "again"


def test_evidence_of_the_run_is_in_the_document(tmp_path: Path) -> None:
    run = Run(tmp_path, NAME, "up")
    document = refusal.document(LabError("no", evidence=["a.log"]), str(run.path))
    schema.validate(document)
    assert document["error"]["evidence"] == ["a.log", str(run.path)]
