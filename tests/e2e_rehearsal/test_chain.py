"""The theory's own chain, rung by rung, as it is seen on an emulated Intel PC.

The tests share one rehearsal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.core.files import read_object
from tests.rehearsing import rehearsed, rungs, task

pytestmark = pytest.mark.timeout(5500)

_RUNGS = {
    "host.cpu": "passed",
    "host.engine": "passed",
    "vm.settings": "passed",
    "vm.boot": "passed",
    "guest.paravirt": "passed",
    "guest.cpu": "passed",
    "guest.kvm": "passed",
    "docker.engine": "passed",
    "container.kvm": "passed",
    "nested.boot": "passed",
    "nested.adb": "passed",
    "android.boot": "skipped",
    "android.usable": "skipped",
}
_EVIDENCE = (
    "VBox.log",
    "console.log",
    "cpuinfo.txt",
    "dmesg.txt",
    "docker-info.txt",
    "journal.txt",
    "kvm-parameters.txt",
    "screenshot.png",
    "steps.jsonl",
    "validation.json",
    "report.html",
)


@pytest.fixture(scope="module")
def document(lines: list[str]) -> Iterator[dict[str, Any]]:
    with rehearsed("e2e-rehearsal", lines, status=0) as answer:
        yield answer


@pytest.fixture(scope="module")
def run(document: dict[str, Any]) -> Path:
    """The folder of lab.up's evidence, as it came out of the PC."""
    return Path(document["report"]).parent


def test_each_rung_is_what_was_seen(document: dict[str, Any]) -> None:
    by_name = rungs(document)
    assert {name: rung["status"] for name, rung in by_name.items()} == _RUNGS
    assert by_name["guest.cpu"]["observed"].startswith("vmx")
    assert by_name["guest.kvm"]["observed"] == "real mode: runs; long mode: runs"
    assert "KVMKVMKVM" in by_name["guest.paravirt"]["observed"]


def test_virtualbox_itself_says_that_its_driver_ran_the_vm(run: Path) -> None:
    log = (run / "VBox.log").read_text(errors="replace")
    assert "HM: HMR3Init: VT-x w/ nested paging and unrestricted guest execution" in log
    assert "CPUM: VT-x nested-guest init" in log
    assert "GIM: Using provider 'KVM'" in log


def test_nesting_is_confirmed_in_this_cell_and_nothing_else_is(document: dict[str, Any]) -> None:
    claims = {name: claim["verdict"] for name, claim in document["claims"].items()}
    assert claims == {"nesting": "confirmed", "android": "blocked", "theory": "not applicable"}
    cell = document["cell"]
    assert cell["emulated"] is True, "a processor emulated in software is at the bottom of it"
    assert cell["engine"] == "virtualbox" and cell["acceleration"] == "hwvirt"
    assert cell["host"]["pc"].startswith("Bochs ") and "haswell" in cell["host"]["pc"]


def test_lab_in_the_pc_was_well_and_left_nothing_of_its_vm(document: dict[str, Any]) -> None:
    assert [task(document, name)["status"] for name in ("lab.up", "lab.destroy")] == [0, 0]


def test_the_evidence_came_back_whole(document: dict[str, Any], run: Path) -> None:
    for name in _EVIDENCE:
        assert (run / name).stat().st_size, name
    assert not (run / "missing.txt").exists(), (run / "missing.txt").read_text()
    assert read_object(run / "validation.json")["claims"] == document["claims"]
    assert '"docker.install"' in (run / "steps.jsonl").read_text()


def test_its_report_says_what_is_below_l0(run: Path, document: dict[str, Any]) -> None:
    page = (run / "report.html").read_text()
    assert document["cell"]["host"]["pc"] in page
    assert "emulated" in page
