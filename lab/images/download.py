"""Big files over HTTP: resumed, retried, bounded, and in place only when their hash is right."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from lab.core import files, lock, web
from lab.core.deadline import Deadline, pause
from lab.core.errors import BlockedError, DeadlineError
from lab.core.steps import Step
from lab.core.web import Patience, TransientError
from lab.images.errors import IncompleteError, WrongDigestError
from lab.images.part import Part
from lab.images.transport import opened, read_some

_BLOCK = 1 << 18
_MARGIN = 64 << 20
"""Bytes that must stay free beside the file."""
_LONGEST = 64 << 30
"""No image is longer: a server that never ends its body is cut off here."""
_REPORT_SECONDS = 0.25

Report = Callable[[int, int | None, str], None]
"""Told the bytes that are here, those there will be (where known), and the rate in words."""


def download(
    url: str,
    target: Path,
    *,
    sha256: str,
    step: Step,
    deadline: Deadline,
    session: web.HttpSession | None = None,
    patience: Patience | None = None,
    report: Report | None = None,
    immutable: bool = False,
    limit: int = _LONGEST,
) -> Path:
    """Fetch `url` into `target`, whose SHA-256 must be `sha256` (hex), and return `target`.

    What arrives goes to `target`.part; that file stays when the download is cancelled, killed
    or out of time, and the next one goes on from it if the server still has the same file.
    Two processes do not fetch the same target: the second waits and then uses the first's.
    `report` is `step.progress` unless given; `immutable` says that `url` names the content, so
    that a part of it is a part of the same file whoever serves the rest; no more than `limit` bytes are
    taken.
    Raises BlockedError (lab.images.errors: unreachable, refused, incomplete, wrong hash; no
    space), DeadlineError, BusyError, InterruptedByUser. In each case `target` is as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock.when_free(
        lock.beside(target), f"the download of {target.name}", say=step.note, deadline=deadline
    ):
        if target.is_file() and files.sha256(target) == sha256.lower():
            step.note(f"{target.name} is already here")
            return target
        with contextlib.ExitStack() as stack:
            used = session or stack.enter_context(web.HttpSession())
            part = Part(target, web.shown(url), sha256.lower(), immutable=immutable)
            report, patience = report or step.progress, patience or Patience()
            _Download(url, target, part, step, deadline, used, patience, report, limit).run()
    return target


@dataclass
class _Download:
    url: str
    target: Path
    part: Part
    step: Step
    deadline: Deadline
    session: web.HttpSession
    patience: Patience
    report: Report
    limit: int

    def __post_init__(self) -> None:
        self.sha256 = self.part.origin.sha256
        self.doubtful = self.part.size() > 0
        """Whether a wrong hash may come from the transfer, so that a try from zero can mend it."""

    def run(self) -> None:
        again = True
        while True:
            self._receive_all()
            observed = files.sha256(self.part.path)
            if observed == self.sha256:
                break
            self.part.drop()
            if not (self.doubtful and again):
                raise WrongDigestError(
                    f"{web.shown(self.url)} has another hash than it should: expected {self.sha256}, "
                    f"observed {observed}; the file was thrown away",
                    hint="the server holds another file than was published: try later, or another mirror",
                )
            again = False
            self.step.note(
                "the pieces do not make the right file (it may have changed midway): from the start"
            )
        self._install()

    def _receive_all(self) -> None:
        """Try until the part is whole, as long as tries bring something new."""
        failures, best = 0, self.part.size()
        while not self.part.whole():
            try:
                self._receive_once()
                return
            except TransientError as fault:
                grown = self.part.size() > best
                failures = 1 if grown else failures + 1
                best = max(best, self.part.size())
                seconds = self.patience.wait(failures, fault.after, self.deadline.left)
                if seconds is None:
                    raise fault.becomes(
                        f"{web.shown(self.url)} could not be downloaded: {fault}"
                        f" ({failures} tries brought nothing new)",
                        hint="try again later: what has arrived is kept; or name another mirror",
                    ) from fault
                self._wait(seconds, str(fault))

    def _wait(self, seconds: float, why: str) -> None:
        self._check_deadline(why)
        self.step.note(f"{why}; again in {seconds:.1f} s, from byte {self.part.size()}")
        pause(seconds)
        self._check_deadline(why)

    def _receive_once(self) -> None:
        headers = self.part.range_headers()
        with (
            self._deadline_explained(),
            opened(
                self.session, self.url, headers, self.patience, self.deadline, limit=self.limit
            ) as response,
        ):
            if response.status_code == 416:
                self.part.drop()
                raise TransientError("the server's file is shorter than the part that was here")
            if self.part.goes_on(response):
                self.doubtful = True
                self.step.note(f"going on from byte {self.part.size()}")
            else:
                # Without a length the end of the body cannot be told from a lost connection.
                self.doubtful = self.part.origin.total is None
            total = self.part.origin.total
            self._require_space(total)
            if total is not None and total > self.limit:
                self.part.drop()
                raise TransientError(f"the server's file has {total} bytes, and {self.limit} are right")
            self._receive_body(response, total)
        if total is not None and self.part.size() < total:
            raise TransientError(
                f"the connection ended at byte {self.part.size()} of {total}", IncompleteError
            )

    def _require_space(self, total: int | None) -> None:
        missing = (total or 0) - self.part.size()
        files.require_space(self.target.parent, missing + _MARGIN, f"the download of {self.target.name}")

    def _receive_body(self, response: requests.Response, total: int | None) -> None:
        done = first = self.part.size()
        started = reported = time.monotonic()
        with self.part.open() as stream:
            while block := read_some(response, _BLOCK):
                done += len(block)
                if done > (self.limit if total is None else total):
                    self.part.drop()
                    raise TransientError(
                        f"the server sent more than the {total or self.limit} bytes promised"
                    )
                self._write(stream.fileno(), block)
                self._check_deadline("")
                now = time.monotonic()
                if now - reported >= _REPORT_SECONDS:
                    reported = now
                    self._report(done, total, (done - first) / (now - started))
            os.fsync(stream.fileno())
        self._report(done, total, (done - first) / max(0.001, time.monotonic() - started))
        self._check_deadline("")

    def _write(self, descriptor: int, block: bytes) -> None:
        view = memoryview(block)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as error:
            raise BlockedError(
                f"{self.part.path} could not be written: {error.strerror}",
                hint="free some space (`invoke image.prune` removes unused images); what has arrived is kept",
            ) from error

    def _report(self, done: int, total: int | None, rate: float) -> None:
        self.report(done, total, f"{rate / 2**20:.1f} MiB/s")

    @contextlib.contextmanager
    def _deadline_explained(self) -> Iterator[None]:
        """Say what has arrived when the time is over in the middle of a read."""
        try:
            yield
        except DeadlineError:
            self._check_deadline("")
            raise

    def _check_deadline(self, because: str) -> None:
        if self.deadline.passed:
            at = f"{self.part.size()} of {self.part.origin.total or '?'} bytes"
            raise DeadlineError(
                f"{web.shown(self.url)} was not downloaded in {self.deadline.seconds:.0f} s: {because or at}",
                hint="run the same command again: it goes on from what has arrived",
            )

    def _install(self) -> None:
        with self.part.path.open("rb") as stream:
            os.fsync(stream.fileno())
        self.part.path.replace(self.target)
        self.part.drop()
        files.sync_folder(self.target.parent)
