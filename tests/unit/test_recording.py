"""A recording of a run's terminal: what its steps say, in their order, escaped; nothing is made up."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.core.errors import UsageError
from lab.reports import recording
from lab.reports.model import ReportedRun
from lab.tasks.lab.record import record
from lab.tasks.lab.up import up
from tests.unit.bed import Bed, checked
from tests.unit.reports import DOCUMENTS, steps


def run(name: str = "confirmed", failing: str = "", folder: Path | None = None) -> ReportedRun:
    return ReportedRun(DOCUMENTS[name], folder, (), steps(failing))


def texts(svg: str) -> list[str]:
    """The lines of the terminal, by what a browser shows of each."""
    tree = ElementTree.fromstring(svg)  # noqa: S314 - lab's own
    return ["".join(part.itertext()) for part in tree if part.attrib.get("class") == "shown"]


def test_every_step_is_a_line_at_its_moment_and_the_verdict_is_the_last() -> None:
    made = recording.record(run(), 20.0)
    real = run().steps.spans
    assert len(made.lines) == len(real) + 1 and made.seconds == pytest.approx(20.0)
    assert [line.at for line in made.lines] == sorted(line.at for line in made.lines)
    scale = made.seconds / made.real_seconds
    boot = next(line for line in made.lines if line.text.startswith("vm.boot"))
    assert boot.text == "vm.boot 33.7 s" and boot.at == pytest.approx((0.5 + 33.7) * scale)
    assert made.lines[-1].text.startswith("nesting: confirmed: every rung it needs passed")
    assert recording.record(run()).seconds == pytest.approx(made.real_seconds), "0: as long as it took"


def test_a_failure_is_shown_as_one_and_a_red_run_does_not_end_green() -> None:
    made = recording.record(run("refuted", "guest.kvm"), 20.0)
    assert [line.text.split()[0] for line in made.lines if line.look == "bad"] == ["guest.kvm", "android:"]
    assert "refuted" in made.lines[-1].text


def test_what_was_at_work_is_shown_until_it_ended() -> None:
    made = recording.record(run(), 20.0)
    beside = [part for part in made.running if "emulator.upload" in part.text]
    assert beside and all("docker.install" in part.text or "vm.boot" in part.text for part in beside)
    for part in made.running:
        assert part.below == sum(line.at <= part.at + 1e-6 for line in made.lines)


def test_the_svg_has_every_line_where_nothing_may_move(tmp_path: Path) -> None:
    svg = recording.svg(recording.record(run(), 20.0))
    assert len(texts(svg)) == len(run().steps.spans) + 1
    assert "prefers-reduced-motion" in svg and "<script" not in svg and "href" not in svg
    assert len(svg) < 60_000


def test_nothing_a_guest_said_becomes_markup_or_leaves_the_state_folder(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "evidence" / "default" / "1-up"
    plain = dataclasses.replace(
        run(folder=tmp_path / "moved" / "evidence" / "default" / "1-up"),
        document=DOCUMENTS["confirmed"] | {"evidence": str(folder)},
    )
    hostile = [
        span.model_copy(update={"text": f"<script>\x1b[31m &{'x' * 300} {folder}"})
        for span in plain.steps.spans[:1]
    ]
    hostile += [plain.steps.spans[1].model_copy(update={"text": f"20 files in {folder}"})]
    made = recording.record(
        dataclasses.replace(plain, steps=dataclasses.replace(plain.steps, spans=tuple(hostile))), 5.0
    )
    svg, cast = recording.svg(made), recording.asciicast(made)
    assert "<script" not in svg and "\x1b[31m &" not in json.loads(cast.splitlines()[2])[2]
    assert all(len(line) <= recording.COLUMNS for line in texts(svg))
    assert "20 files in evidence/default/1-up" in svg and str(tmp_path) not in svg + cast


def test_the_asciicast_is_one(tmp_path: Path) -> None:
    head, *events = map(json.loads, recording.asciicast(recording.record(run(), 20.0)).splitlines())
    assert (head["version"], head["width"]) == (2, 100)
    assert [event[0] for event in events] == sorted(event[0] for event in events)
    assert events[0][1:] == ["o", "$ bin/invoke lab.up\r\n"]


def test_the_task_records_the_newest_run_or_the_one_that_is_named(bed: Bed, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="came to a verdict"):
        record(bed.session(), "default")
    up(bed.session(), "default")
    (kept,) = bed.runs()
    document = checked(record(bed.session(), "default"))
    assert (document["run"], document["path"]) == (kept.name, str(kept / "recording.svg"))
    assert "nested.adb" in (kept / "recording.svg").read_text()
    checked(record(bed.session(), "default", run=kept.name, to=str(tmp_path / "it.cast"), seconds=0))
    assert json.loads((tmp_path / "it.cast").read_text().splitlines()[0])["version"] == 2
    for wrong in ({"to": "it.gif"}, {"seconds": -1}, {"run": "another"}):
        with pytest.raises(UsageError):
            record(bed.session(), "default", **wrong)  # type: ignore[arg-type]
