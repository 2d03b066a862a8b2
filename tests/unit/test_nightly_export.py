"""Nights carried to another host: whole, once, and believed as far as their rungs go."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.core import deadline, redact
from lab.core.errors import BlockedError, UsageError
from lab.history.store import History
from lab.nights import archive, importing, keeping, night
from lab.nights.rejudging import UNFOUNDED
from lab.tasks.nightly.export import export, import_
from lab.tasks.nightly.matrix import matrix
from lab.tasks.nightly.run import ROADS
from tests.unit.bed import Bed, checked
from tests.unit.fakes import TCG
from tests.unit.nights import before_looks, blocked, past, session, spent_budget

KEY = "2026-12-01/linux-kvm"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    yield Bed(tmp_path / "host", monkeypatch)
    deadline.cancelled.clear()


@pytest.fixture
def coordinator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(tmp_path / "coordinator", monkeypatch)


def spend(bed: Bed, roads: night.Roads = ROADS, key: str = KEY, **settings: Any) -> dict[str, Any]:
    return checked(night.run(session(bed, **settings), roads, key=key))["night"]  # type: ignore[no-any-return]


def exported(bed: Bed, file: Path, name: str = KEY) -> Path:
    checked(export(bed.session(), name, str(file)))
    return file


def taken(bed: Bed, file: Path) -> dict[str, Any]:
    (result,) = checked(import_(bed.session(), str(file)))["nights"]
    return result  # type: ignore[no-any-return]


def forged(file: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The same archive with its document changed, as a host could have made it."""
    with History(folder / "history.db") as scratch:
        unpacked = folder / "unpacked"
        manifest = archive.read(file, lambda _: unpacked)
        document = manifest.night.as_json()
        change(document)
        entry = manifest.model_copy(update={"night": type(manifest.night).model_validate(document)})
        known = scratch.take(importing._night(entry.night))
    target = folder / "forged"
    archive.write(replace(known, id=1), sorted(unpacked.iterdir()), target)
    return target


def strip(document: dict[str, Any]) -> dict[str, Any]:
    """A night without what is of the host it is kept on."""
    runs = [{name: value for name, value in run.items() if name != "evidence"} for run in document["runs"]]
    own = {name: value for name, value in document.items() if name not in ("id", "evidence", "report")}
    return own | {"runs": runs}


# --- there and back ---------------------------------------------------------------------------------


def test_a_night_is_the_same_on_the_coordinator(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    first = spend(bed)
    file = exported(bed, tmp_path / "a")
    result = taken(coordinator, file)
    assert (result["state"], strip(result["night"])) == ("imported", strip(first))
    kept = result["night"]
    assert Path(kept["report"]).name == "report.html"  # drawn there, not carried
    assert Path(kept["report"]).is_relative_to(coordinator.folder / "state" / "imported" / kept["uuid"])
    for run, there in zip(first["runs"], kept["runs"], strict=True):
        for name in ("validation.json", "steps.jsonl"):
            assert (Path(there["evidence"]) / name).read_bytes() == (
                Path(run["evidence"]) / name
            ).read_bytes()
        assert not (Path(there["evidence"]) / "report.html").exists()
    assert past(coordinator) == [kept]


def test_twice_is_once(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    spend(bed)
    file = exported(bed, tmp_path / "a")
    first, again = taken(coordinator, file), taken(coordinator, file)
    assert (first["state"], again["state"]) == ("imported", "known")
    assert first["night"] == again["night"]
    assert len(past(coordinator)) == 1
    assert taken(bed, file)["state"] == "known"  # its own host has it anyway


def test_an_import_that_was_killed_is_made_again(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    spend(bed)
    file = exported(bed, tmp_path / "a")
    child = os.fork()
    if child == 0:
        try:

            class Dying(History):
                def take(self, night: Any) -> Any:
                    os._exit(4)

            work = coordinator.session()
            importing.take(work, Dying(work.history_file), file)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert past(coordinator) == []
    assert taken(coordinator, file)["state"] == "imported"
    folder = keeping.imported(coordinator.session(), past(coordinator)[0]["uuid"])
    assert not list(folder.parent.glob(".part"))


def test_nights_of_every_kind_keep_their_verdict(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    def worse() -> None:
        assert bed.world.l2
        bed.world.l2.hypervisor = TCG

    def refuting() -> night.Roads:
        bed.world.before.clear()
        bed.world.kvm_ok = False
        return ROADS

    verdicts = []
    for number, (roads, settings) in enumerate(
        [
            (lambda: ROADS, {}),
            (lambda: before_looks(worse), {}),
            (lambda: replace(ROADS, up=blocked), {}),
            (lambda: replace(ROADS, budget=spent_budget(bed, "prove")), {}),
            (refuting, {"runs": 1}),
        ]
    ):
        key = f"2026-12-01/cell-{number}"
        first = spend(bed, roads(), key, **settings)
        deadline.cancelled.clear()
        kept = taken(coordinator, exported(bed, tmp_path / str(number), key))["night"]
        assert strip(kept) == strip(first)
        verdicts.append(kept["verdict"])
    assert verdicts == ["confirmed", "inconclusive", "blocked", "inconclusive", "refuted"]


def test_what_is_missing_is_handed_in_later(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    keys = [f"2026-12-0{day}/a" for day in (1, 2, 3)]
    for key in ("", *keys):
        spend(bed, replace(ROADS, up=blocked), key)
    taken(coordinator, exported(bed, tmp_path / "one", keys[1]))
    document = checked(export(bed.session(), since="2026-12-02", to=str(tmp_path / "all")))
    assert [each["key"] for each in document["nights"]] == keys[1:]
    results = checked(import_(coordinator.session(), str(tmp_path / "all")))["nights"]
    assert [each["state"] for each in results] == ["known", "imported"]
    assert sorted(each["key"] for each in past(coordinator)) == keys[1:]


def test_the_matrix_has_every_night_with_its_host(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    for each, key in ((bed, "2026-12-01/a"), (coordinator, "2026-12-01/b")):
        spend(each, replace(ROADS, up=blocked), key)
    taken(coordinator, exported(bed, tmp_path / "x", "2026-12-01/a"))
    document = checked(matrix(coordinator.session(), str(tmp_path / "page")))
    hosts = {"a": bed.session().host_id, "b": socket.gethostname()}
    assert {cell["name"]: cell["hosts"] for cell in document["cells"]} == {
        name: [host] for name, host in hosts.items()
    }
    (column,) = document["nights"]
    assert {each["cell"]: (each["host"], each["verdict"]) for each in column["entries"]} == {
        name: (host, "blocked") for name, host in hosts.items()
    }


def test_a_night_is_named_by_number_uuid_or_key(bed: Bed, tmp_path: Path) -> None:
    first = spend(bed, replace(ROADS, up=blocked))
    for name in (KEY, first["uuid"], str(first["id"])):
        exported(bed, tmp_path / "a", name)
    for words in ({"night": "2"}, {"night": KEY, "since": "2026-12-01"}, {}, {"since": "yesterday"}):
        with pytest.raises(UsageError):
            export(bed.session(), to=str(tmp_path / "b"), **words)
    assert not (tmp_path / "b").exists()


def test_forgotten_nights_take_their_evidence_along(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    for key in ("2026-12-01/a", "2026-12-02/a"):
        spend(bed, replace(ROADS, up=blocked), key)
        import_(session(coordinator, keep_nights=1), str(exported(bed, tmp_path / "x", key)))
    assert [each["key"] for each in past(coordinator)] == ["2026-12-02/a"]
    folders = (coordinator.folder / "state" / "imported").iterdir()
    assert [folder.name for folder in folders if folder.is_dir()] == [past(coordinator)[0]["uuid"]]


# --- what is not believed ---------------------------------------------------------------------------


def _rung_failed(document: dict[str, Any]) -> None:
    for run in document["runs"]:
        next(row for row in run["rungs"] if row["rung"] == "guest.kvm")["status"] = "failed"


FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a rung that failed": _rung_failed,
    "no rungs": lambda document: document["runs"][0].update(rungs=[]),
    "no cell": lambda document: document["runs"][0].update(cell=None),
    "a run left out": lambda document: document.update(runs=document["runs"][:1]),
    "no runs": lambda document: document.update(runs=[]),
    "a clock that jumped": lambda document: document.update(clock_jump=3600.0),
    "a run that was cut": lambda document: document["runs"][1].update(cut=True),
    "another claim": lambda document: document.update(claim="theory"),
    "a run that says no": lambda document: document["runs"][1].update(verdict="refuted"),
    "cells that differ": lambda document: document["runs"][1]["cell"].update(engine_version="9.9"),
}


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a night that confirmed, in two runs."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("confirmed")
        bed = Bed(folder / "host", patch)
        assert spend(bed, runs=2, compare=False)["verdict"] == "confirmed"
        return exported(bed, folder / "archive")


@pytest.mark.parametrize("change", FORGERIES.values(), ids=list(FORGERIES))
def test_a_verdict_that_does_not_follow_is_inconclusive(
    confirmed: Path, coordinator: Bed, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    kept = taken(coordinator, forged(confirmed, tmp_path, change))["night"]
    assert kept["verdict"] == "inconclusive"
    assert UNFOUNDED in kept["reason"]
    assert UNFOUNDED in kept["notes"]
    left = [claim["claim"] for claim in kept["claims"] if claim["verdict"] in ("confirmed", "refuted")]
    assert left == (["nesting"] if kept["claim"] == "theory" else [])  # what does follow stands


def test_a_refutation_that_does_not_follow_is_one_as_little(
    bed: Bed, coordinator: Bed, tmp_path: Path
) -> None:
    bed.world.kvm_ok = False
    assert spend(bed, runs=1)["verdict"] == "refuted"
    file = exported(bed, tmp_path / "a")

    def inconclusive(document: dict[str, Any]) -> None:
        next(row for row in document["runs"][0]["rungs"] if row["status"] == "failed")["inconclusive"] = True

    assert taken(coordinator, forged(file, tmp_path, inconclusive))["night"]["verdict"] == "inconclusive"
    assert taken(bed, file)["night"]["verdict"] == "refuted"


def test_evidence_that_says_something_else_than_the_night(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    result = spend(bed, runs=1, compare=False)
    file = Path(result["runs"][0]["evidence"]) / "validation.json"
    document = json.loads(file.read_text())
    next(row for row in document["rungs"] if row["rung"] == "guest.kvm")["status"] = "failed"
    file.write_text(json.dumps(document))
    kept = taken(coordinator, exported(bed, tmp_path / "a"))["night"]
    assert kept["verdict"] == "inconclusive"
    assert not (Path(kept["runs"][0]["evidence"]) / "validation.json").exists()  # nothing is drawn of it


@pytest.mark.parametrize(
    "change",
    [
        {"uuid": "../../etc"},
        {"uuid": "00000000-0000-0000-0000-00000000000A"},
        {"host": "../x"},
        {"host": ""},
        {"key": "2026-12-01/../x"},
        {"state": "running", "verdict": None},
    ],
    ids=str,
)
def test_a_night_that_is_none_is_refused_and_nothing_is_kept(
    bed: Bed, coordinator: Bed, tmp_path: Path, change: dict[str, Any]
) -> None:
    first = spend(bed, replace(ROADS, up=blocked))
    with History(bed.session().history_file) as history:
        real = history.by_uuid(first["uuid"])
    assert real
    members = {name: value or "" for name, value in change.items()}
    archive.write(replace(real, **members), [], tmp_path / "a")
    reply = import_(coordinator.session(), str(tmp_path / "a"))
    assert (checked(reply)["nights"][0]["state"], reply.code) == ("refused", 11)
    assert past(coordinator) == []
    assert [path.name for path in (coordinator.folder / "state" / "imported").glob("*")] == []


def test_nobody_hands_in_a_night_of_this_host(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    """It would be returned for its key as one that ran here."""
    first = spend(bed, replace(ROADS, up=blocked))
    with History(bed.session().history_file) as history:
        real = history.by_uuid(first["uuid"])
    assert real
    archive.write(replace(real, host=coordinator.session().host_id), [], tmp_path / "a")
    result = taken(coordinator, tmp_path / "a")
    assert (result["state"], "ran here" in result["why"]) == ("refused", True)
    assert spend(coordinator, replace(ROADS, up=blocked))["uuid"] != first["uuid"]


def test_secrets_and_pages_are_not_taken(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    first = spend(bed, replace(ROADS, up=blocked))
    folder = Path(first["evidence"])
    (folder / "words.txt").write_text("the password is hunter2-hunter2")
    (folder / "raw.bin").write_bytes(b"\xff\xfe hunter2-hunter2")
    (folder / "x.svg").write_text("<svg onload='alert(1)'/>")
    (folder / "summary.md").write_text("<script>alert(1)</script>")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "fifo.txt").unlink(missing_ok=True)
    os.mkfifo(folder / "fifo.txt")
    (folder / "linked").symlink_to(tmp_path)
    document = checked(export(bed.session(), KEY, str(tmp_path / "a")))
    assert {Path(out["path"]).name for out in document["nights"][0]["left_out"]} == {
        "link",
        "fifo.txt",
        "linked",
    }
    redact.register("hunter2-hunter2")
    kept = Path(taken(coordinator, tmp_path / "a")["night"]["evidence"])
    names = {path.name for path in kept.iterdir()}
    assert {"words.txt", "raw.bin"} <= names
    assert not names & {"x.svg", "link", "linked", "fifo.txt"}
    assert "hunter2" not in (kept / "words.txt").read_text()
    assert (kept / "raw.bin").read_bytes() == b"\xff\xfe [redacted]"
    assert "<script>" not in (kept / "summary.md").read_text()  # it is this host's own


def test_a_full_disk_takes_nothing(bed: Bed, coordinator: Bed, tmp_path: Path) -> None:
    spend(bed, replace(ROADS, up=blocked))
    exported(bed, tmp_path / "a")

    def full(*_: Any) -> None:
        raise BlockedError("no room")

    coordinator.use(require_space=full)
    with pytest.raises(BlockedError, match="no room"):
        taken(coordinator, tmp_path / "a")
    assert past(coordinator) == []
    assert not keeping.imported(coordinator.session(), past(bed)[0]["uuid"]).exists()
