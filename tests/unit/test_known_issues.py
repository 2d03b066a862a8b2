"""Known issues: what is told as known, what as news, and that no verdict changes for either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.core.errors import UsageError
from lab.history.model import ClimbRecord, Night, NightFinding, RungRecord
from lab.nights import known, telling
from lab.notify.message import Notice
from lab.tasks.nightly.issues import issues
from tests.unit import nights
from tests.unit.bed import Bed, checked

OPEN = """
[[issue]]
id = "kvm-refuses"
title = "KVM refuses the tiny guest"
url = "https://example.org/issues/17"
culprit = "tool"
by = "Ada"
since = 2026-11-20
[[issue.match]]
rung = "guest.kvm"
message = "fail"
cell = { engine = "qemu", engine_version = "*" }
[[issue.match]]
rung = "container.kvm"
"""
CLOSED = OPEN.replace("since = 2026-11-20", 'since = 2026-11-20\nstate = "closed"\nclosed = 2026-11-30')
CELL = {"engine": "qemu", "engine_version": "7.2.22", "system": "linux"}


def written(bed: Bed, text: str) -> Path:
    path = bed.session().settings.state_dir / "known-issues.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def run(*rungs: tuple[str, str, str], verdict: str = "refuted", error: str = "") -> ClimbRecord:
    rows = [
        RungRecord(
            name, "failed" if status == "inconclusive" else status, status == "inconclusive", 1.0, text
        )
        for name, status, text in rungs
    ]
    reason = "it failed"
    return ClimbRecord(1, "up", "", 1.0, verdict, "nesting", reason, error=error, cell=CELL, rungs=rows)


def night(*runs: ClimbRecord, verdict: str = "refuted", reason: str = "because") -> Night:
    return Night(1, "u", "ended", "2026-12-01T00:00:00+00:00", 1, "/e", "0", verdict=verdict, claim="nesting",
                 reason=reason, runs=runs)  # fmt: skip


def issue(**match: Any) -> known.KnownIssue:
    members = {"id": "one", "title": "t", "culprit": "host", "since": "2026-11-20", "match": [match]}
    return known.KnownIssue.model_validate(members)


def recognised(one: Night, *issues: known.KnownIssue) -> list[str]:
    return [each.id for each in known.recognise(one, issues).issues]


def test_a_known_failure_is_told_as_known_and_its_verdict_stays(bed: Bed) -> None:
    nights.spend(bed)
    bed.world.kvm_ok = False
    written(bed, OPEN)
    red, code = nights.spend(bed)
    assert (red["verdict"], code) == ("refuted", 10)
    (finding,) = red["findings"]
    assert (finding["key"], finding["worse"]) == ("known: kvm-refuses", False)
    assert (
        "KVM refuses the tiny guest (tool, open since 2026-11-20 by Ada, https://example.org/issues/17)"
        in (finding["text"])
    )
    assert "was confirmed on 1 of the 1 nights" in finding["text"], "what was lost is not forgotten"
    summary = (Path(red["evidence"]) / "summary.md").read_text()
    assert "nesting refuted, known" in summary and "known issue: kvm-refuses" in summary
    assert "regression" not in summary
    document = checked(issues(bed.session()))
    assert (document["issues"][0]["nights"], document["issues"][0]["last"]) == ([2], red["started"])


def test_a_known_failure_that_goes_on_is_no_news_and_a_new_one_is(bed: Bed) -> None:
    session = nights.session(bed, notify="changes")
    written(bed, OPEN)
    nights.spend(bed)
    bed.world.kvm_ok = False
    nights.spend(bed)
    again, _ = nights.spend(bed)

    def worth(number: int) -> bool:
        with nights.night.keeping.opened(session) as history:
            return telling._worth_telling(session, history.night(number), history)

    assert worth(2), "another verdict than the night before's is told: as known"
    assert again["findings"][0]["key"] == "known: kvm-refuses" and not worth(3)
    written(bed, "")
    nights.spend(bed)
    assert worth(4), "without the file it is a regression every night"


def test_a_closed_issue_that_matches_again_is_news(bed: Bed) -> None:
    nights.spend(bed)
    bed.world.kvm_ok = False
    written(bed, CLOSED)
    red, _ = nights.spend(bed)
    back, lost = red["findings"]
    assert (back["key"], back["worse"]) == ("back: kvm-refuses", True)
    assert "closed on 2026-11-30 by Ada" in back["text"] and "matches again" in back["text"]
    assert lost["key"].startswith("verdict: ")
    assert "2 regressions" in (Path(red["evidence"]) / "summary.md").read_text()


def test_a_night_with_another_failure_beside_a_known_one_is_not_known() -> None:
    both = night(run(("guest.kvm", "failed", "no"), ("docker.engine", "failed", "no room")))
    seen = known.recognise(both, [issue(rung="guest.kvm")])
    assert not seen.wholly and seen.issues
    lost = NightFinding("verdict: nesting", "lost")
    assert known.findings(seen, [lost]) == [lost]
    assert known.partly(seen).endswith("not known: docker.engine")
    assert known.recognise(both, [issue(rung="guest.kvm"), issue(message="room")]).wholly


def test_a_run_of_its_own_failure_is_not_excused_by_anothers() -> None:
    known_run, strange = run(("guest.kvm", "failed", "no")), run(verdict="inconclusive", error="no answer")
    assert not known.recognise(night(known_run, strange), [issue(rung="guest.kvm")]).wholly
    assert known.recognise(
        night(known_run, strange), [issue(rung="guest.kvm"), issue(message="^no an")]
    ).wholly


def test_what_matches() -> None:
    one = night(run(("guest.kvm", "failed", "real mode: entry failed, hardware error 0xffffffff")))
    assert recognised(one, issue(rung="guest.kvm")) == ["one"]
    assert recognised(one, issue(message="hardware error 0x[0-9a-f]+")) == ["one"]
    assert recognised(one, issue(rung="guest.kvm", message="timeout")) == []
    assert recognised(one, issue(rung="guest.kvm", cell={"engine_version": "7.2.*"})) == ["one"]
    assert recognised(one, issue(rung="guest.kvm", cell={"engine_version": "7.1.*"})) == []
    assert recognised(one, issue(rung="guest.kvm", cell={"kernel": "*"})) == [], "it is not known"


def test_what_only_informs_and_what_follows_from_a_failure_is_no_failure_of_its_own() -> None:
    one = night(
        run(
            ("host.cpu", "failed", "no vmx"),
            ("guest.kvm", "inconclusive", "the VM froze"),
            ("container.kvm", "blocked", "not tried: guest.kvm did not pass"),
        )
    )
    assert [(failure.rung, failure.message) for failure in known.failures(one)] == [
        ("guest.kvm", "the VM froze")
    ]
    blocked = night(run(("host.engine", "blocked", "no QEMU"), verdict="blocked"), verdict="blocked")
    assert [failure.rung for failure in known.failures(blocked)] == ["host.engine"]


def test_a_green_night_has_no_failure_and_a_night_cut_short_has_its_reason() -> None:
    green = night(run(verdict="confirmed"), verdict="confirmed")
    assert known.failures(green) == [] and not known.recognise(green, [issue(rung="guest.kvm")]).wholly
    short = night(run(verdict="confirmed"), verdict="inconclusive", reason="the budget was spent")
    assert recognised(short, issue(message="budget")) == ["one"]
    assert not known.recognise(short, [issue(rung="guest.kvm")]).wholly


def test_an_open_issue_is_believed_before_a_closed_one() -> None:
    one = night(run(("guest.kvm", "failed", "no")))
    members = issue(rung="guest.kvm").model_dump() | {"id": "old", "state": "closed", "closed": "2026-11-21"}
    assert recognised(one, known.KnownIssue.model_validate(members), issue(rung="guest.kvm")) == ["one"]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (OPEN.replace('rung = "guest.kvm"', 'rung = "guest.kvn"'), "there is no rung guest.kvn"),
        (OPEN.replace('message = "fail"', 'message = "("'), "no regular expression"),
        (OPEN.replace('rung = "container.kvm"', 'cell = { engine = "qemu" }'), "a rung or a message"),
        (OPEN.replace("engine_version =", "engine_versoin ="), "engine_versoin"),
        (OPEN.replace('culprit = "tool"', 'culprit = "fate"'), "culprit"),
        (OPEN.replace("since = 2026-11-20", "since = 2026-11-20\nclosed = 2026-11-21"), "closed"),
        (OPEN + OPEN, "two known issues are called kvm-refuses"),
        ("[[issue", "no TOML"),
    ],
)
def test_a_wrong_file_is_named_and_costs_no_night(bed: Bed, wrong: str, why: str) -> None:
    written(bed, wrong)
    with pytest.raises(UsageError, match=why):
        known.read(bed.session())


def test_a_night_goes_on_without_a_file_that_is_wrong(bed: Bed) -> None:
    written(bed, "[[issue")
    green, code = nights.spend(bed)
    assert (green["verdict"], code) == ("confirmed", 0)
    (note,) = green["notes"]
    assert "what is known was not looked at" in note


def test_the_files_of_the_project_are_right(bed: Bed) -> None:
    assert known.read(bed.session()) == list(known._read(known.ROOT / known.NAME))
    example = "\n".join(
        line.removeprefix("# ") for line in (known.ROOT / known.NAME).read_text().splitlines()[4:]
    )
    written(bed, example.replace('"l2-lost', '"of-the-example-l2-lost'))
    assert known.read(bed.session())[-1].match[0].rung == "nested.boot", "the example in it can be taken"


def test_a_notice_counts_no_known_issue_as_a_regression() -> None:
    entry = telling.NoticeFinding(marker="0" * 12, text="x", worse=False, known=True)
    notice = Notice(1, "u", "h", "s", "nesting", "refuted", "r", "", findings=[entry])
    assert notice.title == "lab on h: nesting refuted, known" and "known issue: x" in notice.lines
