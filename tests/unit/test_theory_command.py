"""theory.explain and theory.matrix as commands: documents, and what a person reads."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from lab.core import deadline
from lab.core.errors import ExitCode, UsageError
from lab.engines.protocol import Availability
from lab.history.model import Claimed, Ending, cell_columns
from lab.history.store import History
from lab.host import kvm
from lab.model.domain import Claim
from lab.tasks.theory import explain
from lab.theory import documents, knowledge
from lab.theory.documents import expected_row
from lab.theory.knowledge import Outlook, table
from lab.theory.situation import ENGINES, FLAGS, parse_host
from lab.workflow.session import Reply
from tests.unit.bed import Bed, checked
from tests.unit.test_theory_situation import CELL

ANSWER = kvm.KvmAnswer(False, "there is no /dev/kvm", False)


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    monkeypatch.setattr(explain.shutil, "which", lambda name: f"/usr/bin/{name}")
    bed = Bed(tmp_path, monkeypatch)
    bed.use(kvm=lambda *_: ANSWER)
    yield bed
    deadline.cancelled.clear()


@st.composite
def hosts(draw: st.DrawFn) -> str:
    """A host as `--host` names it, with any words that can be said together."""
    kind = draw(
        st.sampled_from(["linux-intel", "linux-amd", "linux-intel4", "linux-arm", "macos-intel", "macos-m1",
                         "macos-m3", "windows-intel", "windows-amd"])
    )  # fmt: skip
    release = draw(st.sampled_from(["", ":10", ":11", ":13", ":15"]))
    flags = draw(st.lists(st.sampled_from(list(FLAGS.values())), unique_by=lambda flag: flag.word))
    words = [draw(st.sampled_from(["", "no-"])) + flag.word for flag in flags]
    host = ",".join([kind + release, *words])
    try:
        parse_host(host)
    except UsageError:
        assume(False)
    return host


def shown(reply: Reply, width: int = 100) -> str:
    assert reply.show
    reply.show(Console(file=(written := io.StringIO()), width=width))
    return written.getvalue()


def engines_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["engine"]: row for row in document["engines"]}


def test_this_host(bed: Bed) -> None:
    with bed.untouched():
        reply = explain.explain(bed.session())
    document = checked(reply)
    assert reply.code == ExitCode.DONE
    assert document["asked"] == {"host": None, "engine": None}
    found = engines_of(document)
    assert list(found)[:2] == ["virtualbox", "qemu"] and "docker" in found
    assert found["qemu"]["available"] is True and found["qemu"]["version"]
    assert (found["docker"]["available"], found["docker"]["driven"]) == (None, False)
    text = shown(reply)
    assert "this host: Debian 12, Linux 6.1 on" in text and "What would work here" in text


def test_an_engine_that_cannot_be_asked_is_explained_all_the_same(bed: Bed) -> None:
    bed.world.available = Availability(False, "QEMU is not installed", "install it")
    found = engines_of(checked(explain.explain(bed.session())))
    assert found["qemu"]["available"] is False and found["qemu"]["availability"]
    assert found["qemu"]["fact"]["id"] == "qemu-emulation"


@pytest.mark.parametrize(
    ("answer", "installed", "expected"),
    [
        (ANSWER, True, False),
        (kvm.KvmAnswer(True, "a kernel boots", True), True, True),
        (ANSWER, False, None),
        (kvm.KvmAnswer(False, "not proven: there is no kernel", False), True, None),
    ],
)
def test_kvm_that_could_not_be_tried_is_not_known(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, answer: kvm.KvmAnswer, installed: bool, expected: bool | None
) -> None:
    bed.use(kvm=lambda *_, **__: answer)
    monkeypatch.setattr(explain.shutil, "which", lambda _: "/usr/bin/qemu" if installed else None)
    assert explain.here(bed.session()).kvm is expected


def test_the_probe_says_not_proven_as_expected_here() -> None:
    checked_with = {"qemu": "QEMU 7.2"}
    usable, why, kept = kvm._decide(kvm.Asking(), checked_with, None, "tcg", 1.0, "qemu-system-x86_64")
    assert not usable and not kept and why.startswith(explain._UNPROVEN)


def test_another_host_is_asked_nothing(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    bed.use(kvm=lambda *_, **__: pytest.fail("this host was probed"))
    reply = explain.explain(bed.session(), host="macos-intel:13", engine="virtualbox:7.1")
    document = checked(reply)
    (row,) = document["engines"]
    assert row["claims"] == {"nesting": "refuted", "android": "refuted", "theory": "refuted"}
    assert (row["fact"]["rung"], row["fact"]["grade"]) == ("guest.cpu", "source code")
    assert row["available"] is None
    text = " ".join(shown(reply).split())
    assert "the host asked about: macOS 13 on Intel" in text
    assert "nesting: refuted (expected not to work, at guest.cpu)" in text
    assert "theory: refuted" in text and "rgl/proxmox-ve#23" in text
    assert "the emulator on macOS itself" in text


def test_what_depends_on_a_version_is_told_by_version(bed: Bed) -> None:
    reply = explain.explain(bed.session(), host="macos-intel:13", engine="virtualbox")
    (row,) = checked(reply)["engines"]
    assert row["fact"] is None and len(row["open"]) == 3
    text = " ".join(shown(reply).split())
    assert "it depends on its version" in text and "if VirtualBox 7.0 to before 7.2" in text


@pytest.mark.parametrize(
    ("host", "engine", "expected"),
    [
        ("linux-intel", "", "to work here with docker; whether it does with virtualbox, qemu is not known"),
        (
            "windows-intel:11",
            "",
            "here with docker-desktop; whether it does with virtualbox, qemu, hyper-v is not known",
        ),
        # What was asked about is not all that is said: the ways to go are, too.
        (
            "linux-intel",
            "virtualbox:7.0",
            "expected to work here with docker; whether it does with virtualbox is not known",
        ),
        ("linux-amd,la57", "virtualbox:7.1", "here with docker; it is not expected to with virtualbox"),
        ("linux-intel,no-kvm", "virtualbox:7.0", "here; whether it does with virtualbox is not known"),
        # It depends on the release, which was not given.
        (
            "windows-amd",
            "docker-desktop",
            "nothing is sure to run x86 Android in a container here; "
            "it is expected to work in some cases with docker-desktop",
        ),
        ("macos-m3:15", "", "nothing is known to run x86 Android in a container here"),
        ("macos-intel:12", "virtualbox:6.1", "here; whether it does with virtualbox is not known"),
        ("macos-intel:12", "virtualbox:7.0", "nothing is known to run x86 Android in a container here"),
    ],
)
def test_the_answer_in_short(bed: Bed, host: str, engine: str, expected: str) -> None:
    document = checked(explain.explain(bed.session(), host=host, engine=engine))
    assert document["in_short"].endswith(expected)


@given(data=st.data())
def test_the_answer_in_short_follows_from_all_that_is_said_under_it(data: st.DataObject) -> None:
    host = data.draw(hosts())
    situation = parse_host(host)
    engine = data.draw(st.sampled_from(["", *ENGINES]))
    names = explain._names(engine, situation)
    rows = [expected_row(knowledge.predict(situation.on(name))) for name in names]
    found = documents.explained(situation, rows, host=host, engine=engine).as_json()
    works, said = "is expected to work here with", found["in_short"]
    known = {name: knowledge.predict(situation.on(name)) for name in ENGINES}
    named = {
        row["engine"] for row in found["engines"]
        if row["claims"]["android"] == "confirmed" and not row["open"]
    }  # fmt: skip
    ways = [way for way in knowledge.ways(situation) if way.engine]
    named |= {
        way.engine for way in ways
        if known[way.engine].claims[Claim.ANDROID] is Outlook.CONFIRMED and not known[way.engine].open
    }  # fmt: skip
    assert (works in said) is bool(named), said
    if named:
        first = said.split(";")[0].split(" with ")[1]
        assert set(first.split(", ")) == named, said
    hopeful = [fact for row in found["engines"] for fact in (row["fact"], *row["open"]) if fact]
    if any(fact["android"] == "confirmed" for fact in hopeful):
        assert "nothing is known to run" not in said
    # Nothing that is printed of the host contradicts the rest of it.
    described = found["situation"]["described"]
    assert not ("no usable KVM" in described and "KVM hands virtualization on" in described), described


def test_a_way_names_the_engine_it_takes_where_a_fact_speaks_of_it_there() -> None:
    """What is said to work in a container on the host as it is must be in the answer in short."""
    here = [way for way in table().way if re.search(r"(?i)docker|container", way.how)]
    elsewhere = {"linux-kvm-off", "linux-firmware", "cloud-nesting", "windows-10", "intel-mac-native",
                 "intel-mac-linux", "apple-silicon-native", "apple-silicon-elsewhere"}  # fmt: skip
    assert {way.id for way in here if way.engine is None} <= elsewhere
    assert {way.engine for way in table().way if way.engine} == {"docker", "docker-desktop", "hyper-v"}


@pytest.mark.parametrize(
    "host",
    [
        "linux-intel,vm,no-vm",
        "linux-intel,no-kvm,nested",
        "linux-intel,nested,no-kvm",
        "linux-amd,no-extensions,kvm",
        "linux-amd,kvm,no-extensions",
        "linux-amd,no-extensions,nested",
    ],
)
def test_a_host_that_cannot_be_is_refused(bed: Bed, host: str) -> None:
    with pytest.raises(UsageError, match="a host"):
        explain.explain(bed.session(), host=host)


def test_where_kvm_does_not_work_here_it_hands_nothing_on(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = kvm.KvmAnswer(False, "an ENTRY fails", True)  # the module's parameter is on all the same
    bed.use(kvm=lambda *_, **__: answer)
    situation = checked(explain.explain(bed.session()))["situation"]
    assert (situation["kvm"], situation["nested"]) == (False, False)
    assert "no usable KVM" in situation["described"] and "hands" not in situation["described"]


def test_windows_is_asked_for_its_hypervisor(bed: Bed) -> None:
    (row,) = checked(explain.explain(bed.session(), "windows-intel:11", "virtualbox"))["engines"]
    assert row["why"] == "it depends on its version and on whether Windows' own hypervisor is active"


def test_what_nobody_knows_is_said(bed: Bed) -> None:
    reply = explain.explain(bed.session(), host="linux-arm", engine="virtualbox")
    (row,) = checked(reply)["engines"]
    assert row["claims"]["nesting"] == "unknown"
    assert "lab knows nothing of this combination" in shown(reply)


@pytest.mark.parametrize(("host", "engine"), [("amiga", ""), ("", "bochs"), ("linux-amd", "virtualbox:x")])
def test_bad_words_are_usage_errors(bed: Bed, host: str, engine: str) -> None:
    with pytest.raises(UsageError):
        explain.explain(bed.session(), host=host, engine=engine)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("host", ["", "macos-m3:15", "windows-intel:11", "linux-intel"])
def test_it_fits_the_terminal(bed: Bed, host: str, width: int) -> None:
    for reply in (explain.explain(bed.session(), host=host), explain.matrix(bed.session())):
        lines = shown(reply, width).splitlines()
        assert max(map(len, lines)) <= width
        assert not any(re.search(r"\.\.$", line.rstrip()) for line in lines)


def test_the_whole_table(bed: Bed) -> None:
    reply = explain.matrix(bed.session())
    document = checked(reply)
    assert [row["fact"]["id"] for row in document["rows"]] == [fact.id for fact in table().fact]
    assert (document["observations"], document["contradictions"]) == (0, 0)
    assert sum(row["theory"] is not None for row in document["rows"]) == 4
    assert "0 observations in the history" in shown(reply)


def test_what_nights_found_stands_beside_the_predictions(bed: Bed) -> None:
    with History(bed.session().history_file) as past:
        for verdict, cell in (
            ("confirmed", CELL),
            ("refuted", CELL),
            ("confirmed", dataclasses.replace(CELL, engine="virtualbox", acceleration="hwvirt")),
        ):
            night = past.begin(planned=3, evidence="", boot_id="", lab_version="0.1.0")
            claims = [Claimed("nesting", verdict, "because", {verdict: 3})]
            columns = cell_columns(dataclasses.asdict(cell))
            past.end(night, Ending(verdict, "nesting", "because", claims, columns, 60.0))
    reply = explain.matrix(bed.session())
    document = checked(reply)
    assert (document["observations"], document["contradictions"]) == (3, 1)
    assert document["rows"][-1]["fact"] is None
    text = " ".join(shown(reply, 160).split())
    assert "3 observations in the history, 1 of which contradict their prediction" in text
    assert "contradicts" in text and "answers" in text and "(3 runs)" in text
