"""A night ended at each of its steps, and the night after it: each is told once, none is falsely green."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.config.model import NightlySection
from lab.core import deadline
from lab.core.errors import InterruptedByUser
from lab.core.web import Patience
from lab.history.model import Night
from lab.history.store import History
from lab.nights import following, night, telling
from lab.nights.night import Roads
from lab.notify.message import Notice
from lab.notify.webhook import DELIVERY, Webhook
from lab.tasks.nightly.run import ROADS
from tests.unit import sinks
from tests.unit.bed import Bed
from tests.unit.nights import before_comparing

WRITES = ("begin", "add", "end", "note", "set_findings", "set_report", "add_delivery", "mark_told", "prune")
ENDED = 4
"""What a child that was killed ends with here."""


@pytest.fixture(autouse=True)
def uncancelled() -> Iterator[None]:
    yield
    deadline.cancelled.clear()


def _bed(folder: Path, patch: pytest.MonkeyPatch, url: str, kvm_ok: bool) -> Bed:
    folder.mkdir()
    bed = Bed(folder, patch)
    bed.world.kvm_ok = kvm_ok
    patch.setenv("LAB_WEBHOOK_URL", url)
    patch.delenv("LAB_WEBHOOK_SECRET", raising=False)
    return bed


def _night(bed: Bed, roads: Roads = ROADS, **more: Any) -> None:
    settings = {"runs": 1, "webhook": "json", "notify": "always"} | more
    night.run(bed.session(nightly=NightlySection(**settings)), roads)


def _at(number: int, happen: Callable[[], None]) -> tuple[Roads, Callable[[], int]]:
    """Roads on which something happens before or after the step of that number; the second counts them."""
    passed = 0

    def tick() -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            happen()

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **more: Any) -> Any:
            tick()
            answer = real(*words, **more)
            tick()
            return answer

        return step

    class Ticking(Webhook):
        def deliver(self, notice: Notice) -> str:
            return str(wrapped(super().deliver)(notice))

    roads = Roads(
        up=wrapped(ROADS.up),
        validate=wrapped(ROADS.validate),
        compare=wrapped(ROADS.compare),
        destroy=wrapped(ROADS.destroy),
        history=type("Ticking", (History,), {name: wrapped(getattr(History, name)) for name in WRITES}),
        channels=lambda _session: [Ticking(os.environ["LAB_WEBHOOK_URL"])],
    )
    return roads, lambda: passed


def _nights(bed: Bed) -> list[Night]:
    """Oldest first, as they stand in the file."""
    if not bed.session().history_file.exists():
        return []
    with History(bed.session().history_file) as past:
        return past.nights()[::-1]


def _killed(bed: Bed, number: int) -> bool:
    """Whether a night in a process of its own was killed at that seam."""
    child = os.fork()
    if child == 0:
        try:
            _night(bed, _at(number, lambda: os._exit(ENDED))[0])
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ENDED


def _interrupted(bed: Bed, number: int) -> bool:
    def stop() -> None:
        deadline.cancelled.set()
        raise InterruptedByUser("stopped by SIGTERM")

    roads, count = _at(number, stop)
    try:
        _night(bed, roads)
    except InterruptedByUser:
        pass
    finally:
        deadline.cancelled.clear()
    return count() >= number


@pytest.mark.parametrize("ended", [_killed, _interrupted])
@pytest.mark.parametrize("kvm_ok", [True, False])
def test_every_night_is_told_once_wherever_it_was_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ended: Callable[[Bed, int], bool],
    kvm_ok: bool,
) -> None:
    number, verdicts = 0, Counter[str]()
    while True:
        number += 1
        with sinks.http() as sink:
            bed = _bed(tmp_path / str(number), monkeypatch, sink.url, kvm_ok)
            if not ended(bed, number):
                break
            before = _nights(bed)
            assert len(before) <= 1
            sent = len(sink.requests)
            unrecorded = sent - sum(len(each.deliveries) for each in before)
            bed.world.kvm_ok = True
            _night(bed, compare=False)
            nights, posts = _nights(bed), Counter(each.headers[DELIVERY] for each in sink.requests)
            where = f"seam {number}: {[(each.verdict, each.reason) for each in nights]}"
            assert len(nights) == len(before) + 1, where
            assert {each.state for each in nights} == {"ended"}
            assert not any(each.untold for each in nights), where  # no later night tells of them
            # Told once; again only where nobody could write down that it had been, and under the same id.
            twice = {each.uuid: 1 + unrecorded for each in before}
            assert posts == {each.uuid: twice.get(each.uuid, 1) for each in nights}, where
            for each in before:
                (first,) = [after for after in nights if after.uuid == each.uuid]
                posted = [post.json["verdict"] for post in sink.requests if post.json["uuid"] == each.uuid]
                assert set(posted) == {first.verdict}, where
                if each.verdict:
                    assert first.verdict == each.verdict, where
                wanted = "confirmed" if kvm_ok else "refuted"
                assert first.verdict in (wanted, "inconclusive"), where
                if first.verdict == wanted:  # every look that was to be is behind it
                    assert [look.verdict for look in first.runs] == [wanted] * (2 if kvm_ok else 1), where
                verdicts[first.verdict] += 1
    assert len(verdicts) == 2, verdicts  # some were ended before their verdict was on record, some after


def test_a_night_that_is_stopped_in_its_comparison_is_not_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every run that was planned was made."""
    with sinks.http() as sink:
        bed = _bed(tmp_path / "bed", monkeypatch, sink.url, kvm_ok=True)

        def stopped() -> None:
            raise InterruptedByUser("interrupted")

        with pytest.raises(InterruptedByUser):
            _night(bed, before_comparing(stopped), runs=2)
        (result,) = _nights(bed)
    assert (result.verdict, [look.verdict for look in result.runs][:2]) == ("inconclusive", ["confirmed"] * 2)


def test_a_channel_that_is_down_is_tried_again_by_the_next_nights_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = Patience(attempts=1, backoff=0.01, read=5.0)
    roads = replace(
        ROADS, channels=lambda _session: [Webhook(os.environ["LAB_WEBHOOK_URL"], patience=patience)]
    )
    with sinks.http(lambda _: sinks.Answer(503)) as down:
        bed = _bed(tmp_path / "bed", monkeypatch, down.url, kvm_ok=False)
        for _ in range(telling.TRIES + 1):
            _night(bed, roads)
    first = _nights(bed)[0]
    assert [each.delivered for each in first.deliveries] == [False] * telling.TRIES
    assert first.notes == []  # its command was not ended: nobody took what it had to tell
    with sinks.http() as up:
        monkeypatch.setenv("LAB_WEBHOOK_URL", up.url)
        _night(bed, roads)
        posted = [post.headers[DELIVERY] for post in up.requests]
    assert posted == [each.uuid for each in _nights(bed)[2:]]  # oldest first; the first two had their tries
    assert following.LATE not in _nights(bed)[2].notes
