"""Every trap of docker-android's double, switched on in the Docker of a lab's VM: named, and never green.

The tests share one lab and run in the order of this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Lab
from tests.e2e.doubled import doubled, with_words

pytestmark = pytest.mark.timeout(1800)

# One start serves two traps where neither hides the other. What each must be called, whether the
# emulator can be used all the same, and what `emulator.status` answers the shell.
TRAPS: dict[str, tuple[set[str], bool, int]] = {
    "no-kvm": ({"no-kvm"}, False, 10),
    "kvm-denied": ({"kvm-denied"}, False, 12),
    "novnc-no-emulator": ({"no-emulator"}, False, 12),
    "emulator-crash": ({"emulator-crashed"}, False, 10),
    "out-of-memory": ({"out-of-memory"}, False, 12),
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
def android(lab: Lab) -> Iterator[Lab]:
    """A lab whose docker-android was healthy once; the table is printed at its end."""
    with doubled(lab) as made:
        made.json("lab.up", "--name", "android", "--emulator", "docker-android")
        yield made
    print("\n" + "\n".join(_table))


def _rungs(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rung["rung"]: rung for rung in document["rungs"]}


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_is_named_and_none_is_green(android: Lab, trap: str) -> None:
    names, usable, code = TRAPS[trap]
    late = ["DOUBLE_LATE=15"] if "late" in trap else []
    answer = with_words(android, f"DOUBLE_TRAP={trap}", *late).run(
        "emulator.restart", "--json", "--name", "android"
    )
    health = answer.document["emulator"]["health"]
    found = {one["name"]: one for one in health["diagnoses"]}
    said = "; ".join(f"{name}: {one['what']}" for name, one in found.items())
    _table.append(f"{trap:<36} exit {answer.status:>2}  {said or 'usable'}")
    assert names <= set(found), (sorted(found), health)
    assert health["usable"] is usable
    assert answer.status == code, (answer.status, answer.err[-2000:])
    for name in names - {"dead-watcher"}:
        assert found[name]["lines"] or name in ("no-adb", "novnc-dead", "black-screen"), found[name]


def test_a_trap_is_a_rung_that_fails_and_takes_no_other_claim_with_it(android: Lab) -> None:
    trapped = with_words(android, "DOUBLE_TRAP=boot-loop")
    trapped.run("emulator.restart", "--name", "android")
    document = trapped.run("lab.validate", "--json", "--name", "android").document
    rungs = _rungs(document)
    assert rungs["android.boot"]["status"] == "failed" and "boot-loop" in rungs["android.boot"]["observed"]
    assert rungs["android.usable"]["status"] == "blocked"
    assert document["claims"]["android"]["verdict"] == "blocked"
    trapped = with_words(android, "DOUBLE_TRAP=no-kvm")
    trapped.run("emulator.restart", "--name", "android")
    answer = trapped.run("lab.validate", "--json", "--name", "android")
    assert answer.status == 10 and answer.document["claims"]["nesting"]["verdict"] == "refuted"
    assert _rungs(answer.document)["nested.boot"]["status"] == "failed"


def test_up_mends_what_a_trap_broke(android: Lab) -> None:
    document = android.json("lab.up", "--name", "android")
    assert _rungs(document)["android.usable"]["status"] == "passed"
