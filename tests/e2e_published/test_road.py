"""From a published image's server to a nested guest that answers, on a system that is stock, slow and busy.

The tests share one lab: they run in the order of this file.
"""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from lab.core.deadline import Deadline, poll
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim
from tests.e2e.conftest import Lab
from tests.e2e_published import build
from tests.e2e_published.conftest import FOLDER, NAME, Publisher

pytestmark = pytest.mark.timeout(3600)

_SECONDS = 3000.0
_WORDS = ["--engine", "qemu", "--emulator", "canary", "--image", NAME]
_WAITS = "another package manager is at work in the VM"
_UPGRADES = """
sudo grep -q 'Writing dpkg log' /var/log/unattended-upgrades/unattended-upgrades.log ||
    [ -n "$(systemctl show --property=ExecMainExitTimestamp --value apt-daily-upgrade.service)" ]
"""
"""Whether unattended upgrades are at work, or were."""


@pytest.fixture(scope="module")
def interrupted(lab: Lab, kept: Path) -> str:
    """The steps of a `lab.up` that was interrupted while it waited for apt's own timers.

    Gives them when those upgrade packages, or had none to upgrade.
    """
    process = lab.start("lab.up", *_WORDS)
    try:
        poll(lambda: _WAITS in _steps(lab) or process.poll(), Deadline.after(900), "waiting for apt")
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
    except BaseException:
        process.kill()
        process.communicate()
        raise
    (kept / "interrupted.err").write_text(err)
    assert process.returncode == 130, err
    steps = _steps(lab)
    poll(
        lambda: lab.run("lab.exec", "--", "sh", "-c", _UPGRADES).status == 0, Deadline.after(900), "upgrades"
    )
    return steps


@pytest.fixture(scope="module")
def document(lab: Lab, interrupted: str, kept: Path, told: list[str]) -> dict[str, Any]:
    """What the next `lab.up` printed."""
    answer = lab.run("lab.up", "--json", *_WORDS, timeout=_SECONDS)
    (kept / "lab.up.json").write_text(answer.out)
    (kept / "lab.up.err").write_text(answer.err)
    shutil.copytree(lab.state / "evidence", kept / "evidence")
    for rung in answer.document.get("rungs", []):
        told.append(f"{rung['rung']:<15} {rung['status']:<8} {rung['seconds']:7.1f} s  {rung['observed']}")
    assert answer.status == 0, answer.err
    return answer.document


def test_nesting_is_confirmed_on_an_image_that_is_not_labs(document: dict[str, Any]) -> None:
    rungs = {rung["rung"]: rung for rung in document["rungs"]}
    assert document["claims"]["nesting"]["verdict"] == "confirmed"
    for name in LADDER.required(Claim.NESTING):
        assert rungs[name]["status"] == "passed", rungs[name]
    assert document["cell"]["image"].startswith(f"{NAME}-")


def test_the_image_was_fetched_and_verified(publisher: Publisher, document: dict[str, Any]) -> None:
    asked = [request.path for request in publisher.server.requests if request.status == 200]
    for name in ("SHA256SUMS", "SHA256SUMS.gpg", build.FILE):
        assert f"{FOLDER}/{name}" in asked
    image = json.loads(Path(document["evidence"], "image.json").read_text())
    assert image["url"] == publisher.server.url(f"{FOLDER}/{build.FILE}")


def test_another_package_manager_was_waited_for(interrupted: str, document: dict[str, Any]) -> None:
    assert _WAITS in interrupted
    assert "fetching from the network" in Path(document["evidence"], "steps.jsonl").read_text()


def test_the_system_is_stock_and_as_large_as_the_vm(lab: Lab, document: dict[str, Any]) -> None:
    size = int(_inside(lab, "df", "--output=size", "--block-size=M", "/").split()[-1].rstrip("M"))
    assert size > 11_000, "of 12 GiB; the image has 3"
    assert _inside(lab, "systemctl", "is-enabled", "apt-daily.timer", "apt-daily-upgrade.timer").split() == [
        "enabled",
        "enabled",
    ]
    cloud = json.loads(_inside(lab, "cloud-init", "status", "--format=json"))
    assert (cloud["status"], cloud["datasource"], cloud["errors"]) == ("done", "nocloud", [])
    assert _inside(lab, "systemctl", "is-active", "lab-hold-kvm.service").strip() == "active"


def test_up_on_a_ready_lab_changes_nothing(lab: Lab, document: dict[str, Any]) -> None:
    again = lab.run("lab.up")
    assert again.status == 0, again.err
    assert "nothing was changed" in again.out


def _steps(lab: Lab) -> str:
    return "".join(path.read_text() for path in lab.state.glob("evidence/default/*-up/steps.jsonl"))


def _inside(lab: Lab, *words: str) -> str:
    """What a command in the VM says."""
    out: str = lab.json("lab.exec", "--", *words)["out"]
    return out
