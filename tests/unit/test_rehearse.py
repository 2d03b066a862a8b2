"""theory.rehearse: what the PC's lab answered is believed as far as it follows, and never further."""

from __future__ import annotations

import copy
import html
import io
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.config import Settings, load
from lab.config.model import RehearsalSection
from lab.core.deadline import cancelled
from lab.core.errors import BlockedError, InterruptedByUser, UsageError
from lab.core.steps import Event, Steps
from lab.core.tell import Terminal
from lab.experiments import trial
from lab.experiments.result import Experiment
from lab.experiments.turns import plan
from lab.host import packages
from lab.images import cache, canary, debian
from lab.ladder.climb import Climb
from lab.ladder.report import document
from lab.ladder.rungs import LADDER
from lab.ladder.verdict import judge
from lab.model.domain import Cell, Claim, Host, Nesting, Outcome, Status
from lab.rehearsal import image
from lab.rehearsal.image import SystemImage
from lab.reports import RunFolder, history
from lab.tasks.image.images import build, list_images, prune
from lab.tasks.theory.rehearse import RehearsalTools, rehearse
from lab.theory.experiment import CELLS, DeliveredEntry, TrialOutcome
from lab.workflow.factories import Factories
from lab.workflow.session import Session
from tests import schema
from tests.unit.bed import host
from tests.unit.fakepc import NAME, FakePcs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="an emulated PC is for Linux")

AT = datetime(2026, 12, 1, 3, 4, 5, tzinfo=UTC)
CELL = Cell(
    Host("linux", "Debian GNU/Linux sid", "7.2.13", "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz", NAME),
    "virtualbox",
    "7.2.22",
    "hwvirt",
    Nesting.HARDWARE,
    True,
    "kvm",
    "debian-13-0a1b",
    "canary",
    "canary@sha256:4bd5",
)


class Desk:
    """A session in which images are there and the emulated PC is a script."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch, self.pcs = folder, patch, FakePcs()
        self.needed: list[set[str]] = []
        self.built: list[str] = []
        self.events: list[Event] = []
        for name in ("rehearsal-sid-1", "debian-13-1", "canary-1"):
            (folder / "cache" / "images" / name).mkdir(parents=True)
        self.images = folder / "cache" / "images"
        cached = (
            SystemImage(self.images / "rehearsal-sid-1"),
            [self.images / "debian-13-1", self.images / "canary-1"],
        )
        self.tools = RehearsalTools(self.pcs.workshop, lambda _session: cached)
        patch.setattr(platform, "machine", lambda: "x86_64")
        self.factories = Factories(
            host=host,
            install=lambda purposes, **_: self.needed.append(set(purposes)),
            require_space=lambda *_: None,
        )

    @property
    def session(self) -> Session:
        settings = Settings(
            state_dir=self.folder / "state",
            cache_dir=self.folder / "cache",
            rehearsal=RehearsalSection(bochs="my-bochs", deadline=30),
        )
        return Session(settings, Steps(self.events.append), False, factories=self.factories)

    def answers(self, code: int, climbed: dict[str, Any], kept: dict[str, Any] | None = None) -> None:
        """Have lab.up in the PC answer so, and leave its evidence: the same, or `kept`."""
        folder = "evidence/default/20261201T000000.000Z-up"
        validation = {key: value for key, value in (kept or climbed).items() if key != "access"}
        files = {
            f"{folder}/run.json": {"lab": "default", "verb": "up", "started": AT.isoformat(), "order": 1},
            f"{folder}/validation.json": validation | {"schema": "lab.validation/1"},
        }
        self.pcs.leaves(files=files, **{"lab.up": (code, climbed)})

    def nothing_was_made(self) -> bool:
        return not self.pcs.disk.jobs and not (self.folder / "state" / "evidence").exists()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    yield Desk(tmp_path, monkeypatch)
    cancelled.clear()


def climbed(fails: str = "", cell: Cell = CELL) -> dict[str, Any]:
    """lab.up/1 of a climb in the PC, in which every rung passed up to `fails`."""
    outcomes = []
    for name in LADDER.names:
        if name.startswith("android."):
            outcomes.append(Outcome(name, Status.SKIPPED, observed="canary is not Android"))
        elif name == fails:
            outcomes.append(Outcome(name, Status.FAILED, "it holds", "it does not hold"))
        else:
            outcomes.append(Outcome(name, Status.PASSED, "it holds", "it holds: <b>so</b>", 1.5))
    claims = judge(outcomes, cell, "canary")
    found = document(
        lab_name="default",
        lab_uuid="0b0e7a52-7a2c-4f0c-9f2e-0f6e0a3f8f11",
        cell=cell,
        climbed=Climb(tuple(outcomes)),
        claims=claims,
        claim=Claim.NESTING,
        started=AT,
        ended=AT + timedelta(minutes=9),
        evidence=Path("/srv/state/evidence/default/20261201T000000.000Z-up"),
    )
    return found | {"schema": "lab.up/1", "access": None}


def checked(desk: Desk, **flags: Any) -> tuple[dict[str, Any], int, str]:
    """The document, which keeps to its schema and is in the evidence; the exit code; what a person sees."""
    reply = rehearse(desk.session, tools=desk.tools, **flags)
    schema.validate(reply.document)
    told = io.StringIO()
    assert reply.show is not None
    reply.show(Terminal(told, width=120))
    kept = json.loads((Path(reply.document["evidence"]) / "rehearse.json").read_text())
    assert kept == json.loads(json.dumps(reply.document))
    assert list((desk.folder / "state" / "rehearsals").iterdir()) == []
    return reply.document, reply.code, told.getvalue()


# --- the ladder ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fails", "verdict", "code"), [("", "confirmed", 0), ("guest.kvm", "refuted", 10)])
def test_the_verdict_on_nesting_is_the_answer(desk: Desk, fails: str, verdict: str, code: int) -> None:
    answer = climbed(fails)
    desk.answers(code, answer)
    found, exit_code, told = checked(desk)
    assert (found["verdict"], exit_code) == (verdict, code)
    assert found["claims"]["theory"]["verdict"] == "not applicable"
    assert found["claims"]["android"]["verdict"] == "blocked"
    assert found["pc"]["processor"] == "corei7_haswell_4770" and found["pc"]["trouble"] is None
    assert found["pc"]["image"] == "rehearsal-sid-1"
    assert found["cell"] == answer["cell"] and len(found["rungs"]) == len(LADDER.names)
    assert [(task["words"][0], task["status"]) for task in found["tasks"]] == [
        ("lab.up", code),
        ("lab.destroy", None),
    ]
    for word in (
        f"nesting: {verdict}",
        NAME,
        "nested VT-x",
        "Hypervisor.framework",
        "lab.destroy did not end",
    ):
        assert word in told, word


def test_the_report_is_written_here_and_names_the_layer_below(desk: Desk) -> None:
    desk.answers(0, climbed())
    found, _, told = checked(desk)
    page = Path(found["report"])
    run = Path(found["evidence"])
    assert page == run / "evidence/default/20261201T000000.000Z-up/report.html"
    assert "the emulated PC below L0" in page.read_text() and NAME in page.read_text()
    assert "<b>so</b>" not in page.read_text()
    assert str(page) in told
    assert {"report.md", "report.json", "junit.xml"} <= {path.name for path in page.parent.iterdir()}
    assert (run / "pc" / "serial.log").is_file() and (run / "steps.jsonl").is_file()
    assert history([RunFolder(run)]) == (), "it is no run of a lab here"


def test_it_is_lab_up_on_virtualbox_that_runs_in_there(desk: Desk) -> None:
    desk.answers(0, climbed())
    checked(desk)
    ((job, images),) = zip(desk.pcs.disk.jobs, desk.pcs.disk.images, strict=True)
    assert job.tasks == (
        ("lab.up", "--engine", "virtualbox", "--json"),
        ("lab.destroy", "--json"),
    )
    assert job.environment["LAB_REHEARSAL__PC"] == NAME
    assert {path.name for path in images} == {"debian-13-1", "canary-1"}
    assert desk.needed == [{"rehearsal"}]
    assert desk.pcs.asked[-1] == ("haswell", "my-bochs")


def test_what_lab_is_told_in_there_is_a_configuration_that_lab_takes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.answers(0, climbed())
    checked(desk)
    for name, value in desk.pcs.disk.jobs[0].environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lab.config.loading.host_limits", lambda: (1, 2048))
    settings = load()
    assert (settings.rehearsal.pc, settings.install, settings.image) == (NAME, "never", "debian-13")
    assert (settings.vm.memory_mib, settings.vm.cpus, settings.emulator.kind) == (1024, 1, "canary")
    assert settings.virtualbox.allow_nested_on_host


# --- what is not believed --------------------------------------------------------------------------


def _of_no_pc(found: dict[str, Any]) -> None:
    del found["cell"]["host"]["pc"]


def _of_another_pc(found: dict[str, Any]) -> None:
    found["cell"]["host"]["pc"] = "Bochs 3.0, ryzen"


def _real(found: dict[str, Any]) -> None:
    found["cell"]["emulated"] = False


def _better_than_its_rungs(found: dict[str, Any]) -> None:
    found["claims"]["android"]["verdict"] = "confirmed"


def _worse_than_its_rungs(found: dict[str, Any]) -> None:
    found["claims"]["nesting"]["verdict"] = found["verdict"] = "refuted"


def _a_rung_twice(found: dict[str, Any]) -> None:
    found["rungs"][2] = copy.deepcopy(found["rungs"][1])


def _of_no_schema(found: dict[str, Any]) -> None:
    found["rungs"] = "all passed"


def _of_another_schema(found: dict[str, Any]) -> None:
    found.clear()
    found.update({"schema": "lab.action/1"})


@pytest.mark.parametrize(
    "lie",
    [
        _of_no_pc,
        _of_another_pc,
        _real,
        _better_than_its_rungs,
        _worse_than_its_rungs,
        _a_rung_twice,
        _of_no_schema,
        _of_another_schema,
    ],
)
def test_an_answer_that_does_not_follow_settles_nothing(
    desk: Desk, lie: Callable[[dict[str, Any]], None]
) -> None:
    answer = climbed()
    lie(answer)
    desk.answers(0, answer)
    found, code, _ = checked(desk)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"] is found["cell"] is found["report"] is None and found["rungs"] == []


def test_no_page_is_made_of_evidence_that_lies(desk: Desk) -> None:
    lie = climbed()
    _better_than_its_rungs(lie)
    desk.answers(0, climbed(), kept=lie)
    found, code, _ = checked(desk)
    assert (found["verdict"], code, found["report"]) == ("confirmed", 0, None)


@pytest.mark.parametrize(("exit_code", "verdict", "code"), [(11, "blocked", 11), (1, "inconclusive", 12)])
def test_an_error_in_there_is_named_and_refutes_nothing(
    desk: Desk, exit_code: int, verdict: str, code: int
) -> None:
    error = {"what": "vboxdrv is not loaded", "hint": "", "evidence": [], "tail": "", "exit_code": exit_code}
    desk.pcs.leaves(**{"lab.up": (exit_code, {"schema": "lab.error/1", "error": error})})
    found, exited, told = checked(desk)
    assert (found["verdict"], exited) == (verdict, code)
    assert "vboxdrv is not loaded" in found["reason"] and "vboxdrv is not loaded" in told


def test_no_answer_at_all_is_inconclusive(desk: Desk) -> None:
    desk.pcs.leaves(**{"lab.up": (137, {})})
    found, code, told = checked(desk)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert "the last words of lab.up" in told
    assert "ended with status 137, and gave no answer" in found["reason"]


def test_a_pc_that_ended_badly_settles_nothing_and_says_what_it_had_come_to(desk: Desk) -> None:
    desk.answers(0, climbed())
    desk.pcs.script += "\necho 'BUG: soft lockup' >>serial.log\nexit 7"
    found, code, told = checked(desk)
    assert (found["verdict"], code) == ("inconclusive", 12)
    assert found["claims"]["nesting"]["verdict"] == "inconclusive"
    assert "status 7" in found["pc"]["trouble"]
    assert "lab.up had come to confirmed" in found["reason"]
    assert "BUG: soft lockup" in told
    assert found["report"]


def test_ctrl_c_keeps_the_evidence(desk: Desk) -> None:
    desk.answers(0, climbed())
    desk.pcs.script += "\nsleep 60"

    def interrupt(event: Event) -> None:
        if event.name == "host.cpu" and event.kind == "finished":
            cancelled.set()

    session = desk.session
    session.steps.subscribe(interrupt)
    with pytest.raises(InterruptedByUser):
        rehearse(session, tools=desk.tools)
    assert session.evidence is not None and "measures anew" in session.again
    kept = json.loads((session.evidence / "rehearse.json").read_text())
    schema.validate(kept)
    assert (kept["verdict"], kept["pc"]["trouble"]) == ("inconclusive", "interrupted")
    assert list((desk.folder / "state" / "rehearsals").iterdir()) == []


# --- the experiment --------------------------------------------------------------------------------


def tried(pc: str = NAME) -> dict[str, Any]:
    """theory.experiment/1 of the PC, in which nesting decides."""
    trials = []
    accepted = {
        "cpus": "1",
        "memory_mib": "1024",
        "nested": "on",
        "paravirt": "kvm",
        "acceleration": "hwvirt",
    }
    for turn in plan(CELLS, 1, 7):
        nested, paravirt = turn.cell.nested, turn.cell.paravirt != "none"
        got = DeliveredEntry(
            paravirt=paravirt,
            nested=nested,
            signature="KVMKVMKVM" if paravirt else "",
            clocksources=("kvm-clock", "tsc") if paravirt else ("tsc",),
            extensions=("vmx",) if nested else (),
        )
        observed = {"worked": nested, "delivered": got, "accepted": accepted, "seconds": 180.0}
        trials.append(trial.entry(turn, TrialOutcome.OBSERVED, "seen", **observed))
    where = {
        "host": {"os": "Debian GNU/Linux sid", "cpu": "Intel i7-4770", "arch": "x86_64", "pc": pc},
        "engine": "virtualbox",
        "engine_version": "7.2.22",
        "acceleration": "hwvirt",
        "nesting": "hardware",
        "image": "debian-13-0a1b",
    }
    known = {"started": AT.isoformat(), "seconds": 1080.0, "evidence": "/srv/state/evidence/experiment/1"}
    return Experiment.of(trials, where=where, seed=7, lab_version="1", **known).document.as_json()


def _left_experiment(desk: Desk, found: dict[str, Any]) -> None:
    folder = "evidence/experiment/20261201T000000.000Z-experiment"
    run = {"lab": "experiment", "verb": "experiment", "started": AT.isoformat(), "order": 1}
    desk.pcs.leaves(files={f"{folder}/run.json": run}, **{"theory.experiment": (0, found)})


def test_the_experiment_has_its_table_its_picture_and_its_sentence(desk: Desk) -> None:
    _left_experiment(desk, tried())
    found, code, told = checked(desk, experiment=True)
    assert (found["verdict"], code, found["claims"]) == (None, 0, None)
    assert found["experiment"]["finding"] == "nesting decides"
    assert found["reason"] == found["experiment"]["sentence"]
    assert found["reason"] in told and "paravirt kvm, nested on" in told
    page = Path(found["report"])
    assert page.parent == Path(found["experiment"]["evidence"])
    assert page.name == "experiment.html" and found["reason"] in html.unescape(page.read_text())
    assert (page.parent / "experiment.png").read_bytes().startswith(b"\x89PNG")
    assert desk.pcs.disk.jobs[0].tasks == (("theory.experiment", "--engine", "virtualbox", "--json"),)


def test_an_experiment_of_another_host_settles_nothing(desk: Desk) -> None:
    other = tried()
    del other["where"]["host"]["pc"]
    unlike = tried()
    unlike["trials"][0]["worked"] = None  # observed, and not
    for answer in (other, unlike, tried("Bochs 3.0, ryzen"), climbed()):
        _left_experiment(desk, answer)
        found, code, _ = checked(desk, experiment=True)
        assert (found["experiment"], found["report"], code) == (None, None, 12)


# --- before anything is made -----------------------------------------------------------------------


def test_what_cannot_be_done_here_is_said_before_anything_is_made(desk: Desk) -> None:
    with pytest.raises(UsageError, match="no emulated processor 'z80'"):
        rehearse(desk.session, cpu="z80", tools=desk.tools)
    desk.patch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(BlockedError, match="Linux on x86_64"):
        rehearse(desk.session, tools=desk.tools)
    desk.patch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(BlockedError, match="`bochs` is not installed"):
        rehearse(desk.session, tools=desk.tools)  # whose script is empty
    desk.answers(0, climbed())
    desk.factories = replace(desk.factories, host=lambda: host(memory=2 << 30))
    with pytest.raises(BlockedError, match="takes 2560 MiB of memory, and 2048 MiB is available"):
        rehearse(desk.session, tools=desk.tools)
    desk.factories = Factories(host=host, install=lambda *_, **__: None)
    usage = shutil._ntuple_diskusage(1 << 40, 0, 7 << 30)  # type: ignore[attr-defined]
    desk.patch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(BlockedError, match=r"a rehearsal needs 8\.0 GiB"):
        rehearse(desk.session, tools=desk.tools)
    assert desk.nothing_was_made()


def test_amd_is_another_emulators(desk: Desk) -> None:
    desk.answers(0, climbed())
    _, _, told = checked(desk, cpu="amd")
    assert desk.needed == [{"rehearsal-amd"}] and "nested AMD-V" in told
    for purpose in ("rehearsal", "rehearsal-amd"):
        programs = {name for item in packages.TABLE if purpose in item.needed_for for name in item.programs}
        assert {"mke2fs", "debugfs", "e2fsck"} <= programs
        assert ("bochs" in programs) is (purpose == "rehearsal")
        assert ("qemu-system-x86_64" in programs) is (purpose == "rehearsal-amd")


def test_a_bochs_of_ones_own_is_not_asked_of_the_package_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    settings = Settings(
        state_dir=tmp_path, cache_dir=tmp_path, rehearsal=RehearsalSection(bochs="/opt/bochs")
    )
    factories = Factories(install=lambda _purposes, **more: asked.update(more))
    Session(settings, Steps(), False, factories=factories).need({"rehearsal"})
    assert asked["instead"]["bochs"] == "/opt/bochs"


def test_images_that_are_missing_are_built_first(desk: Desk) -> None:
    desk.answers(0, climbed())
    for module, built in (
        (image, lambda _cache, _step: SystemImage(desk.images / "rehearsal-sid-1")),
        (debian, lambda _cache, _step: desk.images / "debian-13-1"),
        (canary, lambda _cache, _step, _archive: cache.CachedImage(desk.images / "canary-1", None)),  # type: ignore[arg-type]
    ):
        desk.patch.setattr(module, "find", lambda _: None)
        desk.patch.setattr(module, "build", built)
    desk.patch.setattr("lab.workflow.mirror.debian", lambda _session: "http://mirror.example/debian")
    desk.tools = RehearsalTools(desk.pcs.workshop)
    found, code, _ = checked(desk)
    assert (found["verdict"], code) == ("confirmed", 0)
    assert desk.needed == [{"rehearsal"}, {"build-image"}]
    built = [event.text for event in desk.events if (event.kind, event.name) == ("started", "image.build")]
    assert sorted(built) == ["canary", "debian-13", "rehearsal"]


# --- its image in the cache ------------------------------------------------------------------------


def test_the_pcs_image_is_listed_and_pruned_as_any_other(desk: Desk) -> None:
    folder = desk.images / "rehearsal-sid-2"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(b"a disk")
    manifest = cache.Manifest(
        id=folder.name, kind="rehearsal", name="rehearsal-sid", file="disk.raw", format="raw", bytes=6,
        sha256="0" * 64, created=AT,
    )  # fmt: skip
    cache.seal(folder, manifest)
    listed = list_images(desk.session).document
    schema.validate(listed)
    assert [(row["id"], row["kind"]) for row in listed["images"]] == [("rehearsal-sid-2", "rehearsal")]
    pruned = prune(desk.session).document
    schema.validate(pruned)
    assert ("rehearsal-sid-2", "removed") in [(row["id"], row["result"]) for row in pruned["results"]]
    assert not folder.exists()


def test_the_pcs_image_is_built_beforehand_where_it_is_asked_for(desk: Desk) -> None:
    folder = desk.images / "rehearsal-sid-3"
    for name in ("rehearsal-sid-3", "debian-13-3", "canary-3"):
        (desk.images / name).mkdir()
        kind = {"d": "guest", "c": "canary", "r": "rehearsal"}[name[0]]
        (desk.images / name / "disk.raw").write_bytes(b"a disk")
        made = {"id": name, "kind": kind, "name": name[:-2], "file": "disk.raw", "format": "raw", "bytes": 6}
        manifest = cache.Manifest.model_validate(made | {"sha256": "0" * 64, "created": AT})
        cache.seal(desk.images / name, manifest)
    desk.patch.setattr(image, "build", lambda _cache, _step: SystemImage(folder))
    desk.patch.setattr(debian, "build", lambda _cache, _step: desk.images / "debian-13-3")
    canary_3 = cache.find(desk.images, "canary-3")
    desk.patch.setattr(canary, "build", lambda _cache, _step, _archive: canary_3)
    desk.patch.setattr("lab.workflow.mirror.debian", lambda _session: "http://mirror.example/debian")
    both = build(desk.session, "").document
    assert [row["id"] for row in both["results"]] == ["canary-3", "debian-13-3"] and both["notes"] == []
    named = build(desk.session, "rehearsal").document
    schema.validate(named)
    assert [(row["id"], row["kind"]) for row in named["results"]] == [("rehearsal-sid-3", "rehearsal")]
    desk.patch.setattr(platform, "system", lambda: "Darwin")
    with pytest.raises(BlockedError, match="built on Linux only") as caught:
        build(desk.session, "rehearsal")
    assert "theory.rehearse" in caught.value.hint
