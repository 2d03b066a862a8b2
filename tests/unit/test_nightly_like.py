"""nightly.run --like: a night again, with its settings and digests; what could not be had again is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.config.model import VmSection
from lab.core import deadline
from lab.core.errors import UsageError
from lab.history.model import cell_columns
from lab.history.store import History
from lab.nights import likeness, night
from lab.tasks.nightly.run import ROADS, run
from lab.workflow.session import Reply, Session
from tests.unit.bed import Bed, checked
from tests.unit.nights import blocked, session

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def first(bed: Bed, **settings: Any) -> dict[str, Any]:
    """A night with one run, of a VM with one CPU."""
    made = session(bed, VmSection(cpus=1, memory_mib=1024), **{"runs": 1, "compare": False} | settings)
    return checked(night.run(made, ROADS, key="2026-12-01/a"))["night"]  # type: ignore[no-any-return]


def config(result: dict[str, Any], **values: Any) -> None:
    """Change what is on record of the night's settings."""
    file = Path(result["runs"][0]["evidence"]) / "config.json"
    rows = {row["key"]: row for row in json.loads(file.read_text())}
    for key, value in values.items():
        rows[key.replace("__", ".")] = {"key": key.replace("__", "."), "value": value, "origin": "x"}
    file.write_text(json.dumps(list(rows.values())))


def alike(bed: Bed, name: str = "2026-12-01/a", **flags: Any) -> likeness.Likeness:
    at = bed.session(**flags)
    with History(at.history_file) as history:
        return likeness.like(at, history, name)


def test_a_night_is_repeated_with_its_settings(bed: Bed) -> None:
    result = first(bed)
    used: list[Session] = []

    def up(session: Session, name: str) -> Reply:
        used.append(session)
        return ROADS.up(session, name)

    again = checked(run(bed.session(), like=str(result["id"]), roads=replace(ROADS, up=up)))["night"]
    settings = used[0].settings
    assert (settings.vm.cpus, settings.vm.memory_mib) == (1, 1024)
    assert (settings.nightly.runs, settings.nightly.compare, again["planned"]) == (1, False, 1)
    assert settings.origins["vm.cpus"] == f"night {result['id']}"
    assert settings.state_dir == bed.session().settings.state_dir
    assert again["notes"] == ["this repeats night 1, which was nesting confirmed, in the same cell"]
    assert again["claim"] == result["claim"]


def test_what_could_not_be_had_again_is_said(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    first(bed)
    bed.world.facts = replace(bed.world.facts, version="8.0")
    monkeypatch.setattr(likeness, "__version__", "9.9")
    again = checked(run(bed.session(), like="2026-12-01/a"))["night"]
    assert again["notes"] == [
        "this repeats night 1, which was nesting confirmed; could not be had again: lab 0.1.0 → 9.9; "
        "QEMU 7.2 → 8.0"
    ]


def test_one_that_does_not_come_to_know_its_cell_says_so(bed: Bed) -> None:
    first(bed)
    again = checked(run(bed.session(), like="1", roads=replace(ROADS, up=blocked)))["night"]
    assert again["verdict"] == "blocked"
    assert "this one did not come to know its cell" in again["notes"][0]


def test_what_was_left_to_lab_is_pinned_and_so_is_the_digest_that_was_pulled(bed: Bed) -> None:
    result = first(bed)
    with History(bed.session().history_file) as history:
        real = history.night(result["id"])
    cell = cell_columns(result["cell"]) | {
        "engine": "virtualbox",
        "emulator": "docker-android",
        "emulator_image": f"docker-android@{DIGEST}",
        "image": "ubuntu-24.04-0123456789ab",
        "acceleration": "hwvirt",
    }
    config(result, engine="auto", image="auto", emulator__kind="auto", qemu__acceleration="auto")
    recorded = likeness._recorded(replace(real, cell=cell))
    assert (recorded["engine"], recorded["image"]) == ("virtualbox", "ubuntu-24.04")
    assert (recorded["emulator.kind"], recorded["emulator.digest"]) == ("docker-android", DIGEST)
    assert recorded["qemu.acceleration"] == "auto"  # VirtualBox says nothing of it
    config(result, emulator__archive="/images/android.tar")
    assert likeness._recorded(replace(real, cell=cell))["emulator.digest"] == ""  # no registry's


def test_what_this_lab_cannot_be_set_to_is_missing_and_no_program_is_taken_over(bed: Bed) -> None:
    result = first(bed)
    config(
        result,
        vm__cpus="many",
        vm__colour="red",
        emulator__env=["TOKEN=[redacted]"],
        qemu__binary="/opt/evil",
        state_dir="/elsewhere",
    )
    found = alike(bed)
    assert found.settings.vm.cpus == bed.session().settings.vm.cpus
    assert found.settings.qemu.binary == "qemu-system-x86_64"
    assert found.settings.state_dir == bed.session().settings.state_dir
    assert [text.split(" ")[0] for text in found.missing] == ["vm.cpus", "emulator.env,", "vm.colour,"]


def test_a_flag_stands(bed: Bed) -> None:
    first(bed)
    at = bed.session(engine="qemu")
    with History(at.history_file) as history:
        found = likeness.like(replace(at, settings=at.settings), history, "1")
    assert found.settings.origins["engine"] == "flag --engine"


def test_nights_that_cannot_be_repeated_are_refused_and_nothing_is_begun(bed: Bed) -> None:
    result = first(bed)
    with pytest.raises(UsageError, match="no night"):
        run(bed.session(), like="2026-12-01/b")
    (Path(result["runs"][0]["evidence"]) / "config.json").unlink()
    with pytest.raises(UsageError, match="not on record"):
        run(bed.session(), like="1")
    with History(bed.session().history_file) as history:
        history.take(replace(history.night(1), uuid="u2", host="other", key=""))
        history.begin(planned=1, evidence="e", boot_id="", lab_version="1")
    for name, why in (("2", "another host"), ("3", "still runs")):
        with pytest.raises(UsageError, match=why):
            alike(bed, name)
    with History(bed.session().history_file) as history:
        assert len(history.nights()) == 3
