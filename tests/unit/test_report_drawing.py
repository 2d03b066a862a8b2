"""The drawings' geometry, and the timeline they are drawn from."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.core.steps import JsonLines, Steps
from lab.documents.reports import PastClaim, PastRun, ReportStage
from lab.model.domain import Claim, Verdict
from lab.reports import spans
from lab.reports.html.drawing import NARROW, WIDE, draw_layers, text_width, ticks, wrapped
from lab.reports.html.gantt import draw_stages, draw_steps
from lab.reports.html.trend import draw_trend
from lab.reports.layers import layers
from lab.reports.model import ReportedRun
from tests.unit.reports import AT, DOCUMENTS, TEXTS, documents, steps

UNHURRIED = settings(deadline=None, max_examples=60)
WIDTHS = pytest.mark.parametrize("width", [WIDE, NARROW])


@UNHURRIED
@given(TEXTS, st.floats(60, 600), st.integers(1, 4))
def test_wrapped_text_fits(text: str, width: float, lines: int) -> None:
    found = wrapped(text, width, lines)
    assert 1 <= len(found) <= lines
    assert all(text_width(line) <= width for line in found)
    said = "".join("".join(found).split())
    whole = "".join(text.split())
    assert said == whole or (said.endswith("…") and whole.startswith(said[:-1]))


@given(st.floats(0.001, 1e6), st.integers(2, 9))
def test_ticks_are_few_round_and_in_range(end: float, most: int) -> None:
    found = ticks(end, most)
    assert found[0] == 0 and found == sorted(found)
    assert len(found) <= most and found[-1] <= end * (1 + 1e-6)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@UNHURRIED
@given(found=documents())
def test_each_layer_is_drawn_inside_the_one_around_it(width: float, found: dict[str, Any]) -> None:
    drawing = draw_layers(layers(ReportedRun(found)), width)
    assert [box.layer.name for box in drawing.boxes] == ["L0", "L1", "Container", "L2"]
    outer = None
    for box in drawing.boxes:
        assert box.x >= 0 and box.x + box.width <= drawing.width and box.y + box.height <= drawing.height
        for row in box.rows:
            for line in row.lines:
                assert box.y < line.y < box.y + box.height
                assert line.x + text_width(line.text) <= box.x + box.width
        if outer is not None:
            assert outer.x < box.x and outer.x + outer.width > box.x + box.width
            assert outer.y < box.y and outer.y + outer.height > box.y + box.height
            lowest = max(line.y for row in outer.rows for line in row.lines)
            assert lowest < box.y, "a layer's own findings stand above the layer inside it"
        outer = box


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        ("confirmed", ["works", "works", "works", "works"]),
        ("refuted", ["works", "fails here", "not reached", "not reached"]),
        ("blocked", ["blocked here", "not reached", "not reached", "not reached"]),
        ("inconclusive", ["works", "works", "works", "not settled here"]),
        ("cut short", ["works", "works", "not looked at", "not looked at"]),
        ("android blocked", ["works", "works", "works", "skipped"]),
    ],
)
def test_what_is_said_of_the_layers(kind: str, states: list[str]) -> None:
    assert [layer.state for layer in layers(ReportedRun(DOCUMENTS[kind]))] == states


@WIDTHS
def test_an_emulated_pc_is_the_layer_below_the_host(width: float) -> None:
    document = copy.deepcopy(DOCUMENTS["confirmed"])
    document["cell"] |= {"nesting": "hardware", "emulated": True}
    document["cell"]["host"]["pc"] = "Bochs 2.7, corei7_haswell_4770"
    pc, host, *rest = layers(ReportedRun(document))
    assert (pc.name, pc.state, pc.findings[0].text) == (
        "PC",
        "all software",
        "Bochs 2.7, corei7_haswell_4770",
    )
    assert (host.name, host.what, len(rest)) == ("L0", "the host: the Linux of that PC", 3)
    engine = next(finding for finding in host.findings if finding.label == "Engine")
    assert engine.text.endswith("nesting on an emulated host")
    outer, inner, *_ = draw_layers((pc, host, *rest), width).boxes
    assert outer.x < inner.x and outer.x + outer.width > inner.x + inner.width
    lowest = max(line.y for row in outer.rows for line in row.lines)
    assert outer.y < lowest < inner.y and outer.y + outer.height > inner.y + inner.height
    for row in outer.rows:
        assert all(line.x + text_width(line.text) <= outer.x + outer.width for line in row.lines)
        assert width == NARROW or row.label_x + text_width(row.finding.label) < row.lines[0].x


@WIDTHS
def test_bars_and_their_labels_are_inside(width: float) -> None:
    timeline = steps("guest.kvm")
    drawing = draw_steps(timeline, width)
    shown = [span for span in timeline.spans if span.seconds >= 0.05 or span.name == "guest.kvm"]
    assert len(drawing.bars) == len(shown) and drawing.left_out == len(timeline.spans) - len(shown)
    assert [bar.kind for bar in drawing.bars].count("failed") == 1
    for bar, span in zip(drawing.bars, shown, strict=True):
        assert bar.x >= 0 and bar.x + bar.width <= width
        assert bar.x + bar.width < bar.label_x and bar.label_x + text_width(bar.label) <= width
        assert (bar.kind == "rung") == ("." in span.name and span.name in RUNGS and span.state == "finished")
    assert all(0 <= tick.x <= width for tick in drawing.ticks)


RUNGS = {row["rung"] for row in DOCUMENTS["confirmed"]["rungs"]}


@WIDTHS
@UNHURRIED
@given(st.lists(st.builds(ReportStage, name=TEXTS, seconds=st.none() | st.floats(0, 1e5)), max_size=8))
def test_stages_follow_one_another(width: float, stages: list[ReportStage]) -> None:
    drawing = draw_stages(stages, width)
    assert len(drawing.bars) == sum(stage.seconds is not None for stage in stages)
    assert all(bar.x >= 0 and bar.x + bar.width <= width + 0.01 for bar in drawing.bars)


@WIDTHS
@UNHURRIED
@given(
    st.lists(
        st.tuples(st.sampled_from([*Verdict, None]), st.none() | st.floats(0, 1e4), st.sampled_from("ab")),
        max_size=80,
    )
)
def test_the_trend_shows_the_newest_runs(
    width: float, rows: list[tuple[Verdict | None, float | None, str]]
) -> None:
    history = [
        PastRun(
            when=AT + timedelta(days=day),
            verdicts=[PastClaim(claim=Claim.NESTING, verdict=verdict)] if verdict else [],
            cell=cell,
            note="",
            nested_boot_seconds=boot,
        )
        for day, (verdict, boot, cell) in enumerate(rows)
    ]
    drawing = draw_trend(history, Claim.NESTING, width)
    assert drawing.of == len(history)
    assert [point.row for point in drawing.points] == history[len(history) - len(drawing.points) :]
    for point in drawing.points:
        assert 8 <= point.x <= width - 8
        assert point.y is None or 0 <= point.y <= drawing.height
        assert point.y is None or point.row.nested_boot_seconds is not None
    gaps = [here.x - before.x for before, here in zip(drawing.points, drawing.points[1:], strict=False)]
    assert all(gap >= 16 for gap in gaps), "marks do not touch"


# --- the timeline ------------------------------------------------------------------------------


def test_a_real_step_log(tmp_path: Path) -> None:
    sink = JsonLines(tmp_path / "steps.jsonl")
    work = Steps(sink)
    with work.step("vm.boot") as boot:
        with work.step("vm.start", "how") as start:
            start.result = "started"
        boot.note("a note is no step")
        with pytest.raises(ValueError, match="no"), work.step("docker.install"):
            raise ValueError("no")
    with (tmp_path / "steps.jsonl").open("a") as stream:
        stream.write('{"kind": "finished", "st')  # what a crash leaves
    found = spans.read(tmp_path / "steps.jsonl")
    assert [(span.name, span.state, span.text) for span in found.spans] == [
        ("vm.boot", "finished", ""),
        ("vm.start", "finished", "started"),
        ("docker.install", "failed", "ValueError('no')"),
    ]
    assert [found.depth(span) for span in found.spans] == [0, 1, 1]
    assert not found.clock_jumped
    assert spans.read(tmp_path / "none.jsonl") == spans.Timeline()


def log(*events: tuple[float, str, int, float]) -> list[dict[str, Any]]:
    return [
        {
            "at": AT + timedelta(seconds=moment),
            "kind": kind,
            "step": step,
            "parent": 0,
            "name": f"step {step}",
            "seconds": took,
            "text": "",
        }
        for moment, kind, step, took in events
    ]


def test_a_step_that_never_ended_was_cut_short() -> None:
    found = spans.timeline(log((0, "started", 1, 0), (2, "started", 2, 0), (5, "note", 2, 3)))
    assert [(span.start, span.seconds, span.state) for span in found.spans] == [
        (0, 5, "cut short"),
        (2, 3, "cut short"),
    ]


def test_a_clock_that_was_set_is_noticed() -> None:
    assert spans.timeline(log((0, "started", 1, 0), (3600, "finished", 1, 4.0))).clock_jumped
    assert spans.timeline(log((0, "started", 1, 0), (-3600, "finished", 1, 4.0))).clock_jumped
    assert not spans.timeline(log((0, "started", 1, 0), (4.2, "finished", 1, 4.0))).clock_jumped


LINES = st.one_of(
    st.text(max_size=30),
    st.builds(
        json.dumps,
        st.fixed_dictionaries(
            {},
            optional={
                "kind": st.sampled_from(["started", "finished", "failed", "note"]) | st.integers(),
                "step": st.integers(0, 3) | st.none(),
                "parent": st.integers(0, 3),
                "name": TEXTS,
                "at": st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)).map(
                    datetime.isoformat
                )
                | TEXTS,
                "seconds": st.floats(0, 1e6) | TEXTS,
                "text": TEXTS,
            },
        ),
    ),
)


@UNHURRIED
@given(lines=st.lists(LINES, max_size=20))
def test_any_step_log_can_be_read(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("log") / "steps.jsonl"
    path.write_text("\n".join(lines), errors="replace")
    found = spans.read(path)
    for span in found.spans:
        assert span.start >= 0 and span.seconds >= 0 and found.depth(span) >= 0
        assert span.start + span.seconds <= found.seconds + 1e-9
    draw_steps(found, WIDE)
