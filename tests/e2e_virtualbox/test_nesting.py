"""What lab sees of nesting under a real VirtualBox, rung by rung, on an emulated host.

VirtualBox is asked for nested virtualization and grants it: the VM's processor has svm, and /dev/kvm
appears in the VM. A guest entered in long mode runs under it; one entered in real mode, as firmware starts,
does not. lab has to see both, and then the claim is refuted in this cell, whatever else went well.

The tests share one host and one lab: they run in the order of this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab import schema
from lab.deadline import Deadline
from tests.e2e_virtualbox.machine import EmulatedHost

pytestmark = pytest.mark.timeout(3600)

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
)


@pytest.fixture(scope="module")
def log(kept: Path) -> Path:
    """Where the tasks' progress goes as it comes: what is watched meanwhile."""
    return kept / "progress.log"


@pytest.fixture(scope="module")
def document(host: EmulatedHost, kept: Path, told: list[str], log: Path) -> dict[str, Any]:
    """What `lab.up --engine virtualbox` printed."""
    answer = host.lab("lab.up", "--engine", "virtualbox", seconds=2400, log=log)
    (kept / "lab.up.json").write_text(json.dumps(answer.document, indent=2))
    (kept / "lab.up.err").write_text(answer.err)
    for rung in answer.document.get("rungs", []):
        told.append(f"{rung['rung']:<15} {rung['status']:<8} {rung['seconds']:7.1f} s  {rung['observed']}")
    told.append(f"lab.up: exit code {answer.status} after {answer.seconds:.0f} s")
    schema.validate(answer.document)
    assert answer.status == 10, answer.err
    return answer.document


def _rungs(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rung["rung"]: rung for rung in document["rungs"]}


def test_doctor_finds_virtualbox_with_its_driver(host: EmulatedHost, log: Path) -> None:
    answer = host.lab("lab.doctor", seconds=120, log=log)
    schema.validate(answer.document)
    assert answer.status == 0, answer.err
    engine = next(row for row in answer.document["engines"] if row["name"] == "virtualbox")
    assert engine["usable"], engine
    findings = {finding["name"]: finding for finding in engine["findings"]}
    for name in ("version", "api", "driver", "cpu", "kvm modules"):
        assert findings[name]["good"], findings[name]
    assert "five-level-paging" not in findings


def test_each_rung_is_what_was_seen(document: dict[str, Any]) -> None:
    rungs = _rungs(document)
    assert {name: rung["status"] for name, rung in rungs.items()} == _RUNGS
    assert rungs["guest.cpu"]["observed"] == "svm, no nested paging"
    assert "KVMKVMKVM" in rungs["guest.paravirt"]["observed"]
    assert "real mode: entry failed" in rungs["guest.kvm"]["observed"]
    assert "long mode: runs" in rungs["guest.kvm"]["observed"]
    assert document["facts"]["guest"]["probe"]["device"]["opened"], "/dev/kvm is there, and is no proof"


def test_virtualbox_itself_says_that_its_driver_ran_the_vm(document: dict[str, Any]) -> None:
    settings = document["facts"]["vm.settings"]
    assert settings["acceleration"] == "hwvirt"
    assert settings["log_engine"] == "HM: HMR3Init: AMD-V w/ nested paging"
    assert settings["nested"] == settings["nested_paging"] == "on"
    assert document["cell"]["engine"] == "virtualbox"
    assert document["cell"]["acceleration"] == "hwvirt"


def test_nesting_is_refuted_here_and_nothing_is_confirmed(document: dict[str, Any]) -> None:
    claims = {name: claim["verdict"] for name, claim in document["claims"].items()}
    assert claims == {"nesting": "refuted", "android": "blocked", "theory": "not applicable"}
    assert document["claims"]["nesting"]["reason"].startswith("guest.kvm failed")
    assert document["cell"]["emulated"], "a processor emulated in software is at the bottom of it"


def test_the_evidence_is_whole(host: EmulatedHost, document: dict[str, Any]) -> None:
    bundle = document["evidence"]
    for name in _EVIDENCE:
        host.guest.run(["test", "-s", f"{bundle}/{name}"])
    assert not host.guest.exists(f"{bundle}/missing.txt"), host.guest.read(f"{bundle}/missing.txt")
    assert "Nested Virtualization enabled" in host.guest.read(f"{bundle}/dmesg.txt")
    assert '"docker.install"' in host.guest.read(f"{bundle}/steps.jsonl")


def test_a_suspended_vm_goes_on_where_it_was(host: EmulatedHost, document: dict[str, Any], log: Path) -> None:
    suspended = host.lab("lab.suspend", seconds=300, log=log)
    assert suspended.document["state"] == "suspended", suspended.err
    resumed = host.lab("lab.resume", seconds=600, log=log)
    assert resumed.document["state"] == "running", resumed.err
    boot = host.lab("lab.exec", "--", "cat", "/proc/sys/kernel/random/boot_id", seconds=300, log=log)
    assert boot.document["out"].strip() == document["facts"]["vm.boot"]["boot_id"]


def test_destroy_leaves_nothing_of_the_vm(host: EmulatedHost, document: dict[str, Any], log: Path) -> None:
    destroyed = host.lab("lab.destroy", seconds=300, log=log)
    assert destroyed.document["state"] == "absent", destroyed.err
    for kind in ("vms", "hdds", "dvds"):
        listed = host.guest.run(["VBoxManage", "list", kind], deadline=Deadline.after(60)).out
        assert not listed.strip(), listed
    assert host.guest.run(["pgrep", "VBoxHeadless"], check=False).status == 1
    assert host.guest.exists(document["evidence"]), "evidence outlives the lab"
