"""A Mac's whole road, as far as it can be had without one: what is simulated, and what is real.

The Mac is a mask (tests/integration/darwin): its folders, with a space in them, its programs, its answers.
Real are the image's way (https, the signature, a streamOptimized VMDK that VirtualBox itself converts), both
ways to speak to VirtualBox, VirtualBox with its kernel driver and nested VT-x on an emulated Intel PC, and
all that runs in the VM. So what VirtualBox has below it here is Linux, and not Apple's Hypervisor.framework.

The tests share one PC. Over VBoxManage the road begins with nothing and goes to the last rung; over vboxapi
a new lab goes the same way, on the image that is in the Mac's cache by then.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.config import load
from lab.images import canary, debian
from lab.records.evidence import Run
from lab.rehearsal import image
from lab.rehearsal.rehearsal import Rehearsed
from lab.rehearsal.workdisk import TaskResult
from tests import schema
from tests.e2e.conftest import Lab, lab_environment
from tests.e2e_rehearsal_mac import road
from tests.rehearsing import rungs
from tests.signing import Signer

pytestmark = pytest.mark.timeout(9000)

_CPU = "haswell"
_STATE = "/Users/some body/Library/Application Support/lab"
_TRANSPORTS = ("VBoxManage", "vboxapi")
BOTH = pytest.mark.parametrize("transport", _TRANSPORTS)
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


@dataclass(frozen=True)
class Road:
    """What the tasks answered, and the folder of what was taken from the PC."""

    results: list[TaskResult]
    folder: Path

    def task(self, transport: str, name: str) -> TaskResult:
        return next(row for row in self.results if row.words[1:3] == (transport, name))

    def up(self, transport: str) -> dict[str, Any]:
        return self.task(transport, "lab.up").document

    def evidence(self, transport: str) -> Path:
        """The folder of that lab.up's run, out of the PC."""
        inside = Path(self.up(transport)["evidence"])
        return self.folder / "evidence" / inside.relative_to(f"{_STATE}/evidence")


@pytest.fixture(scope="module")
def went(lines: list[str], signer: Signer, signing_keys: dict[str, str]) -> Iterator[Road]:
    kept = Path(tempfile.mkdtemp(prefix="lab-e2e-rehearsal-mac-"))
    lines.append(f"evidence: {kept}")
    state = Path(tempfile.mkdtemp(prefix="lab-e2e-"))
    cache = load().cache_dir / "images"
    try:
        lab = Lab(state, lab_environment(state))
        for name, find in (("canary", canary.find), ("debian-13", debian.find), ("rehearsal", image.find)):
            if find(cache) is None:
                answer = lab.run("image.build", name, timeout=2400)
                assert answer.status == 0, answer.err
        system, guest, emulator = image.find(cache), debian.find(cache), canary.find(cache)
        assert system and guest and emulator
        road.make_files(state / "files", guest / "disk.qcow2", signer, signing_keys["good"])
        run = Run(kept, "mac", "road")
        done = road.drive(
            _CPU,
            state,
            state / "files",
            system,
            emulator.folder,
            *(f"{transport} {task}" for transport in _TRANSPORTS for task in ("lab.up", "lab.destroy")),
            run=run,
        )
        _tell(done, lines)
        assert done.trouble is None, done.trouble
        yield Road(done.results, run.path)
    finally:
        shutil.rmtree(state)


def _tell(done: Rehearsed, lines: list[str]) -> None:
    for result in done.results:
        lines.append(f"{' '.join(result.words[1:3])}: exit code {result.status}")
        for rung in result.document.get("rungs", []):
            lines.append(
                f"  {rung['rung']:<15} {rung['status']:<8} {rung['seconds']:7.1f} s  {rung['observed']}"
            )
    lines.append(f"{done.seconds / 60:.1f} min from power-on")


@BOTH
def test_the_road_goes_to_the_last_rung_the_canary_can_reach(went: Road, transport: str) -> None:
    done = went.task(transport, "lab.up")
    assert done.status == 0, done.err
    document = done.document
    schema.validate(document)
    by_name = rungs(document)
    assert {name: rung["status"] for name, rung in by_name.items()} == _RUNGS
    assert by_name["guest.cpu"]["observed"].startswith("vmx")
    assert document["evidence"].startswith(f"{_STATE}/evidence/")


@BOTH
def test_nesting_is_confirmed_of_this_cell_and_the_theory_is_not(went: Road, transport: str) -> None:
    document = went.up(transport)
    claims = {name: claim["verdict"] for name, claim in document["claims"].items()}
    assert claims == {"nesting": "confirmed", "android": "blocked", "theory": "blocked"}
    cell = document["cell"]
    assert (cell["host"]["system"], cell["engine"], cell["emulated"]) == ("macos", "virtualbox", True)
    assert cell["transport"].startswith(transport) and cell["image"].startswith(f"{road.NAME}-")


@BOTH
def test_virtualbox_itself_says_that_its_driver_ran_the_vm(went: Road, transport: str) -> None:
    log = (went.evidence(transport) / "VBox.log").read_text(errors="replace")
    assert "HM: HMR3Init: VT-x w/ nested paging and unrestricted guest execution" in log
    assert "CPUM: VT-x nested-guest init" in log
    assert f"{_STATE}/" in log, "the VM's files are in a folder with a space in its path"


def test_the_image_came_from_its_publisher_once_and_was_verified(went: Road) -> None:
    asked = (went.folder / "out/host/publisher.txt").read_text()
    assert asked.count(f'"GET /{road.DISK} HTTP/1.1" 200') == 1
    assert '"GET /SHA256SUMS.gpg HTTP/1.1" 200' in asked
    made = json.loads((went.evidence("VBoxManage") / "image.json").read_text())
    assert (made["format"], made["url"]) == ("vmdk", road.BASE + road.DISK)


@BOTH
def test_what_was_made_is_destroyed(went: Road, transport: str) -> None:
    destroyed = went.task(transport, "lab.destroy")
    assert destroyed.status == 0, destroyed.err
