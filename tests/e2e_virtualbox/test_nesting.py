"""What lab sees of nesting under a real VirtualBox, rung by rung, on an emulated PC with AMD-V.

VirtualBox is asked for nested virtualization and grants it: the VM's processor has svm, and /dev/kvm
appears in the VM. A guest entered in long mode runs under it; one entered in real mode, as firmware starts,
does not. lab has to see both, and then the claim is refuted in this cell, whatever else went well.

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
    "guest.kvm": "failed",
    "docker.engine": "passed",
    "container.kvm": "blocked",
    "nested.boot": "blocked",
    "nested.adb": "blocked",
    "android.boot": "skipped",
    "android.usable": "skipped",
}


@pytest.fixture(scope="module")
def document(lines: list[str]) -> Iterator[dict[str, Any]]:
    with rehearsed("e2e-virtualbox", lines, "--cpu", "amd", status=10) as answer:
        yield answer


@pytest.fixture(scope="module")
def run(document: dict[str, Any]) -> Path:
    """The folder of lab.up's evidence, as it came out of the PC."""
    return Path(document["report"]).parent


def test_each_rung_is_what_was_seen(document: dict[str, Any]) -> None:
    by_name = rungs(document)
    assert {name: rung["status"] for name, rung in by_name.items()} == _RUNGS
    assert by_name["guest.cpu"]["observed"] == "svm, no nested paging"
    assert "KVMKVMKVM" in by_name["guest.paravirt"]["observed"]
    assert "real mode: entry failed" in by_name["guest.kvm"]["observed"]
    assert "long mode: runs" in by_name["guest.kvm"]["observed"]


def test_virtualbox_itself_says_that_its_driver_ran_the_vm(run: Path) -> None:
    facts = read_object(run / "validation.json")["facts"]
    assert facts["guest"]["probe"]["device"]["opened"], "/dev/kvm is there, and is no proof"
    settings = facts["vm.settings"]
    assert settings["acceleration"] == "hwvirt"
    assert settings["log_engine"] == "HM: HMR3Init: AMD-V w/ nested paging"
    assert settings["nested"] == settings["nested_paging"] == "on"
    assert "Nested Virtualization enabled" in (run / "dmesg.txt").read_text()


def test_nesting_is_refuted_in_this_cell_and_nothing_is_confirmed(document: dict[str, Any]) -> None:
    claims = {name: claim["verdict"] for name, claim in document["claims"].items()}
    assert claims == {"nesting": "refuted", "android": "blocked", "theory": "not applicable"}
    assert document["claims"]["nesting"]["reason"].startswith("guest.kvm failed")
    cell = document["cell"]
    assert cell["emulated"] is True and cell["host"]["pc"].startswith("QEMU ")


def test_lab_in_the_pc_was_well_and_left_nothing_of_its_vm(document: dict[str, Any]) -> None:
    assert [task(document, name)["status"] for name in ("lab.up", "lab.destroy")] == [10, 0]
