"""docker-android through the whole chain, as its healthy test double plays it.

The double comes from a real registry on the loopback, runs in the real Docker of the lab's VM, and
its L2 under nested KVM. It is not Android, so nothing here can confirm the claim about Android. The
tests share one lab and run in the order of this file. Its traps are tests/e2e_android.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Lab
from tests.e2e.doubled import doubled

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def android(lab: Lab) -> Iterator[Lab]:
    with doubled(lab) as made:
        yield made


def _rungs(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rung["rung"]: rung for rung in document["rungs"]}


def _emulator(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["emulator"]
    return found


def test_healthy_double_climbs_to_the_top_and_confirms_no_android(android: Lab) -> None:
    document = android.json("lab.up", "--name", "android", "--emulator", "docker-android")
    rungs = _rungs(document)
    for name in ("nested.boot", "nested.adb", "android.boot", "android.usable"):
        assert rungs[name]["status"] == "passed", rungs[name]
    assert "not Android" in rungs["android.boot"]["observed"]
    assert document["claims"]["nesting"]["verdict"] == "confirmed"
    assert document["claims"]["android"]["verdict"] == "blocked"
    assert "sha256:" in document["cell"]["emulator_image"] and document["cell"]["android"] is False
    stages = {one["name"]: one["seconds"] for one in document["facts"]["android.boot"]["timeline"]}
    assert stages["kvm-open"] < stages["adb-online"] <= stages["boot-completed"]
    folder = Path(document["evidence"])
    secret = (android.state / "labs" / "android" / "keys" / "vnc-password").read_text().strip()
    for path in (path for path in folder.rglob("*") if path.is_file()):
        assert secret.encode() not in path.read_bytes(), f"{path.name} has the screen's password"
    assert "Sending user behavior analytics" not in (folder / "device.stdout.log").read_text()


def test_what_a_user_does_with_it(android: Lab, tmp_path: Path) -> None:
    status = android.json("emulator.status", "--name", "android")["emulators"][0]
    assert status["health"]["usable"], status
    picture = tmp_path / "screen.png"
    android.json("emulator.screenshot", "--name", "android", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
    answer = android.run("emulator.shell", "--name", "android", "--", "getprop", "ro.lab.double")
    assert "not Android" in answer.out, answer.err
    assert android.json("lab.open", "--name", "android", "--print")["address"].startswith("http://127.0.0.1:")


def test_its_logs_are_followed_until_somebody_has_enough(android: Lab) -> None:
    process = android.start("emulator.logs", "--follow", "--name", "android")
    heads: set[str] = set()
    try:
        for line in process.stdout or ():
            if line.startswith("==> "):
                heads.add(line.strip("=<> \n"))
            if heads == {"container.log", "device.stdout.log"}:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert heads == {"container.log", "device.stdout.log"}, err
    assert process.returncode == 130, err


def test_other_settings_are_another_emulator(android: Lab) -> None:
    """The same again changes nothing; with one setting changed it is launched anew, and that is said."""
    assert android.json("emulator.up", "--name", "android")["launched"] is False
    changed = replace(android, env=android.env | {"LAB_EMULATOR__DEVICE": "Nexus 5"})
    answer = changed.run("emulator.up", "--json", "--name", "android")
    assert answer.status == 0 and answer.document["launched"] is True, answer.err
    assert "launched anew" in answer.err and "other settings" in answer.err
    assert _emulator(answer.document)["health"]["facts"]["device"] == "Nexus 5"


def test_a_second_emulator_beside_it_has_ports_of_its_own(android: Lab) -> None:
    up = _emulator(
        android.json("emulator.up", "--emulator", "second", "--name", "android", "--kind", "canary")
    )
    assert up["kind"] == "canary"
    both = android.json("emulator.list", "--name", "android")["emulators"]
    addresses = [port["address"] for one in both for port in one["ports"]]
    assert [one["name"] for one in both] == ["main", "second"] and len(set(addresses)) == len(addresses)
    android.json("emulator.down", "--name", "android", "--emulator", "second")
    left = android.json("emulator.list", "--name", "android")["emulators"]
    assert [one["name"] for one in left] == ["main"]
