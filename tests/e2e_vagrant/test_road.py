"""`vagrant up` to a confirmed verdict, and lab's view of what Vagrant does afterwards.

The tests share one machine and stand on each other: they run in the order of this file.
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import psutil
import pytest

from lab.ladder.rungs import LADDER
from lab.model.domain import Claim
from tests import schema
from tests.e2e_vagrant.road import NAME, Answer, Road

pytestmark = pytest.mark.timeout(1800)


def _document(answer: Answer, status: int = 0) -> dict[str, object]:
    assert answer.status == status, answer.said
    schema.validate(answer.document)
    return answer.document


def _state(road: Road) -> str:
    document = _document(road.lab("lab.status", "--json", "--name", NAME))
    return str(document["lab"]["state"])  # type: ignore[index]


def _newest(road: Road, kind: str) -> Path:
    return max((road.folder / "state" / "evidence" / NAME).glob(f"*-{kind}"))


def test_vagrant_up_ends_with_nesting_confirmed(road: Road) -> None:
    done = road.vagrant("up", "--provider", "libvirt")
    assert done.status == 0, done.said
    assert "nesting: confirmed" in done.said
    found = json.loads((_newest(road, "up") / "validation.json").read_text())
    schema.validate(found)
    assert found["claims"]["nesting"]["verdict"] == "confirmed"
    rungs = {rung["rung"]: rung for rung in found["rungs"]}
    for name in LADDER.required(Claim.NESTING):
        assert rungs[name]["status"] == "passed", rungs[name]
    assert found["cell"]["engine"] == "libvirt-qemu"
    assert re.search(r"^\d+\.\d+\.\d+ by Vagrant \d.* and libvirt \d", found["cell"]["engine_version"])
    assert found["facts"]["vm.settings"]["vagrant_provider"] == "libvirt"
    assert "KVMKVMKVM" in rungs["nested.adb"]["observed"]
    (_newest(road, "up") / "console.log").stat()


def test_vagrants_machine_is_a_lab_like_any_other(road: Road) -> None:
    status = _document(road.lab("lab.status", "--json", "--deep", "--name", NAME))
    assert status["lab"]["state"] == "running"  # type: ignore[index]
    assert status["container"]["running"]  # type: ignore[index]
    assert _document(road.lab("lab.validate", "--json", "--name", NAME))["verdict"] == "confirmed"
    (emulator,) = _document(road.lab("emulator.status", "--json", "--name", NAME))["emulators"]  # type: ignore[misc]
    assert emulator["health"]["usable"]
    runs = _document(road.lab("lab.evidence", "--collect", "--json", "--name", NAME))["runs"]
    bundle = Path(runs[-1]["path"])  # type: ignore[index]
    for name in ("settings.json", "dmesg.txt", "screenshot.png"):
        assert (bundle / name).stat().st_size > 0, name


def test_the_same_login_for_vagrant_and_for_lab(road: Road) -> None:
    said = road.vagrant("ssh", "--command", "id -un; hostname")
    assert said.status == 0, said.said
    assert said.out.split() == ["lab", f"lab-{NAME}"]
    assert road.lab("lab.exec", "--name", NAME, "--", "id", "-un").out.strip() == "lab"


def test_everything_listens_on_the_loopback_only(road: Road) -> None:
    status = _document(road.lab("lab.status", "--json", "--name", NAME))
    ports = {forward["host_port"] for forward in status["forwards"]}  # type: ignore[attr-defined]
    assert len(ports) == 2
    listening = [
        item.laddr
        for item in psutil.net_connections("tcp")
        if item.status == psutil.CONN_LISTEN and item.laddr.port in ports
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {address.port for address in listening} == ports
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass


def test_snapshots_are_left_to_vagrant_and_it_is_said(road: Road) -> None:
    refused = road.lab("lab.snapshot", "good", "--name", NAME)
    assert refused.status == 2
    assert "vagrant snapshot save" in refused.err


def test_attaching_again_changes_nothing(road: Road) -> None:
    document = _document(road.lab("lab.attach", "--vagrant", "--json"))
    assert (document["state"], document["changed"]) == ("running", False)


def test_provisioning_a_ready_machine_changes_nothing(road: Road) -> None:
    done = road.vagrant("provision")
    assert done.status == 0, done.said
    assert "nothing was changed" in done.said


def test_what_vagrant_suspends_lab_brings_back(road: Road) -> None:
    assert road.vagrant("suspend").status == 0
    assert _state(road) == "suspended"
    answer = _document(road.lab("lab.resume", "--json", "--name", NAME))
    assert answer["state"] == "running"
    assert any("ADB answers" in note for note in answer["notes"])  # type: ignore[attr-defined]


def test_what_vagrant_halts_is_stopped_for_lab(road: Road) -> None:
    assert road.vagrant("halt").status == 0
    assert _state(road) == "stopped"
    assert road.lab("lab.validate", "--json", "--name", NAME).status == 11


def test_what_vagrant_destroys_is_absent_for_lab(road: Road) -> None:
    assert road.vagrant("destroy", "--force").status == 0
    assert _state(road) == "absent"
    assert NAME not in road.virsh("list", "--all", "--name").out
    assert _document(road.lab("lab.destroy", "--json", "--name", NAME))["state"] == "absent"
    assert _document(road.lab("lab.list", "--json"))["labs"] == []
