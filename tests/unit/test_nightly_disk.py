"""A night whose disk is full: blocked, with the folder and what to do, wherever that was met."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.core import deadline
from lab.core.errors import BlockedError
from lab.engines.protocol import State
from lab.history.database import HistoryError
from lab.history.model import ClimbRecord
from lab.history.store import History
from lab.nights.night import Roads
from lab.notify import webhook
from lab.tasks.nightly.run import ROADS
from tests.unit import sinks
from tests.unit.bed import Bed
from tests.unit.nights import past, spend

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    for name in ("LAB_WEBHOOK_URL", "LAB_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def test_under_the_vm(bed: Bed) -> None:
    bed.world.broken["create"] = FULL
    result, code = spend(bed)
    assert (result["verdict"], code) == ("blocked", 11)
    assert "the disk is full" in result["reason"]
    assert bed.session().store.find("nightly") is None


def test_under_the_evidence_and_no_lab_is_left_behind(bed: Bed) -> None:
    """Else the lab would fill the disk for every night that follows."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        file = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if bed.world.state is State.RUNNING and "/evidence/" in file:
            raise FULL
        real(descriptor)

    bed.patch.setattr(os, "fsync", fsync)
    result, code = spend(bed)
    assert (result["verdict"], code) == ("blocked", 11)
    assert f"the disk is full where {bed.folder / 'state' / 'evidence' / 'nightly'}" in result["reason"]
    assert "free some space" in result["reason"]
    assert bed.session().store.find("nightly") is None
    assert [item["state"] for item in past(bed)] == ["ended"]


def _limited(bed: Bed, lifted: Callable[[], bool]) -> Roads:
    """The night's history may not grow once its runs begin, until `lifted`: SQLite's own full disk."""

    class Limited(History):
        def add(self, key: int, run: ClimbRecord) -> None:
            self.limit(0 if not lifted() else 1 << 20)
            super().add(key, replace(run, reason=run.reason + "x" * 50_000))

        def end(self, key: int, ending: Any) -> None:
            self.limit(0 if not lifted() else 1 << 20)
            super().end(key, replace(ending, reason=ending.reason + "x" * 50_000))

        def limit(self, more: int) -> None:
            pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
            self._connection.execute(f"PRAGMA max_page_count = {pages + more}")

    return replace(ROADS, history=Limited)


def test_under_the_history_is_no_success(bed: Bed) -> None:
    with pytest.raises(HistoryError, match="the disk is full where") as caught:
        spend(bed, _limited(bed, lambda: False))
    assert (caught.value.exit_code, "free some space" in caught.value.hint) == (11, True)
    with History(bed.session().history_file) as record:
        (result,) = record.nights()
    assert (result.state, result.verdict) == ("running", "")  # whoever looks next says inconclusive


def test_a_night_that_could_not_be_written_down_and_its_end_in_the_history_are_one_night(bed: Bed) -> None:
    with sinks.http() as sink:
        bed.patch.setenv("LAB_WEBHOOK_URL", sink.url)
        with pytest.raises(HistoryError, match="full"):
            spend(bed, _limited(bed, lambda: False), webhook="json")
        spend(bed, runs=1, webhook="json")
    first, again, tonight = (request.headers[webhook.DELIVERY] for request in sink.requests)
    assert first == again != tonight
    assert [post.json["verdict"] for post in sink.requests] == ["blocked", "inconclusive", "confirmed"]


def test_a_disk_that_has_room_again_once_the_lab_is_gone(bed: Bed) -> None:
    lifted = _limited(bed, lambda: bed.world.state is State.ABSENT and bed.world.l1_boots > 0)
    result, code = spend(bed, lifted, compare=False)
    assert (result["verdict"], code, len(result["runs"])) == ("confirmed", 0, 3)


def test_before_the_night_is_on_record(bed: Bed) -> None:
    class Full(History):
        def __init__(self, path: Path) -> None:
            raise OSError(*FULL.args, str(path))

    with pytest.raises(BlockedError, match="the disk is full where") as caught:
        spend(bed, replace(ROADS, history=Full))
    assert caught.value.exit_code == 11 and "LAB_STATE_DIR" in caught.value.hint
