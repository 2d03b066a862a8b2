"""docker-android through the whole chain, as its test double plays it: healthy, and with every trap.

The double comes from a real registry on the loopback, runs in the real Docker of the lab's VM, and
its L2 under nested KVM. It is not Android, so nothing here can confirm the claim about Android. The
tests share one lab and run in the order of this file.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.double.build import built
from tests.e2e.conftest import Lab
from tests.integration import registryserver

pytestmark = pytest.mark.timeout(1800)

_NAME = "budtmo/docker-android"
_TAG = "emulator_14.0"
_SECONDS = "80"
"""How long the double may take to be usable: it takes forty."""

# One start serves two traps where neither hides the other. What each must be called, whether the
# emulator can be used all the same, and what `emulator.status` answers the shell.
TRAPS: dict[str, tuple[set[str], bool, int]] = {
    "no-kvm": ({"no-kvm"}, False, 10),
    "kvm-denied": ({"kvm-denied"}, False, 12),
    "novnc-no-emulator": ({"no-emulator"}, False, 12),
    "emulator-crash": ({"emulator-crashed"}, False, 10),
    "out-of-memory": ({"out-of-memory"}, False, 11),
    "no-adb": ({"no-adb"}, False, 12),
    "boot-loop": ({"boot-loop"}, False, 10),
    "booting-forever": ({"slow-boot"}, False, 12),
    "anr,novnc-dead": ({"anr", "novnc-dead"}, False, 12),
    "black-screen,package-manager-dead": ({"black-screen", "package-manager-dead"}, False, 12),
    "dead-watcher,telemetry": ({"dead-watcher", "telemetry"}, True, 0),
    "adb-offline,late-boot": (set(), True, 0),
}

_table: list[str] = []


@pytest.fixture(scope="module")
def registry() -> Iterator[registryserver.Registry]:
    """A real registry that has the double under docker-android's own name."""
    image = built()
    folder = Path(tempfile.mkdtemp(prefix="lab-registry-"))
    (folder / "data").mkdir()
    with tarfile.open(image.archive) as archive:
        listed = json.loads(_member(archive, "manifest.json"))[0]
        pushed = registryserver.Image(
            _member(archive, listed["Config"]), tuple(_member(archive, name) for name in listed["Layers"])
        )
    with registryserver.registry(folder / "data") as made:
        made.push(_NAME, _TAG, pushed)
        yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def android(lab: Lab, registry: registryserver.Registry) -> Iterator[Lab]:
    """The user's settings: a mirror, and what an emulated processor needs."""
    made = replace(
        lab,
        env=lab.env
        | {
            "LAB_EMULATOR__REGISTRY": registry.host,
            "LAB_EMULATOR__MEMORY_MIB": "1024",
            "LAB_DEADLINES__ANDROID_SHADOW": _SECONDS,
        },
    )
    yield made
    made.run("lab.destroy", "--purge", "--name", "android")
    print("\n" + "\n".join(_table))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    assert stream is not None
    return stream.read()


def _with(lab: Lab, *words: str) -> Lab:
    return replace(lab, env=lab.env | {"LAB_EMULATOR__ENV": json.dumps(words)})


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


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_is_named_and_none_is_green(android: Lab, trap: str) -> None:
    names, usable, code = TRAPS[trap]
    late = ["DOUBLE_LATE=15"] if "late" in trap else []
    answer = _with(android, f"DOUBLE_TRAP={trap}", *late).run(
        "emulator.restart", "--json", "--name", "android"
    )
    health = _emulator(answer.document)["health"]
    found = {one["name"]: one for one in health["diagnoses"]}
    said = "; ".join(f"{name}: {one['what']}" for name, one in found.items())
    _table.append(f"{trap:<36} exit {answer.status:>2}  {said or 'usable'}")
    assert names <= set(found), (sorted(found), health)
    assert health["usable"] is usable
    assert answer.status == code, (answer.status, answer.err[-2000:])
    for name in names - {"dead-watcher"}:
        assert found[name]["lines"] or name in ("no-adb", "novnc-dead", "black-screen"), found[name]


def test_a_trap_is_a_rung_that_fails_and_takes_no_other_claim_with_it(android: Lab) -> None:
    trapped = _with(android, "DOUBLE_TRAP=boot-loop")
    trapped.run("emulator.restart", "--name", "android")
    document = trapped.run("lab.validate", "--json", "--name", "android").document
    rungs = _rungs(document)
    assert rungs["android.boot"]["status"] == "failed" and "boot-loop" in rungs["android.boot"]["observed"]
    assert rungs["android.usable"]["status"] == "blocked"
    assert document["claims"]["android"]["verdict"] == "blocked"
    trapped = _with(android, "DOUBLE_TRAP=no-kvm")
    trapped.run("emulator.restart", "--name", "android")
    answer = trapped.run("lab.validate", "--json", "--name", "android")
    assert answer.status == 10 and answer.document["claims"]["nesting"]["verdict"] == "refuted"
    assert _rungs(answer.document)["nested.boot"]["status"] == "failed"


def test_up_mends_what_a_trap_broke(android: Lab) -> None:
    document = android.json("lab.up", "--name", "android")
    assert _rungs(document)["android.usable"]["status"] == "passed"
