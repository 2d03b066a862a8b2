"""Every trap of docker-android's double, switched on in the Docker of a lab's VM: named, and never green.

The tests share one lab and run in the order of this file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from lab.emulators.docker_android.diagnosis import LOST
from tests.e2e.conftest import Answer, Lab, show
from tests.e2e.doubled import NAME, SECONDS, doubled, with_words

pytestmark = pytest.mark.timeout(1800)


@dataclass(frozen=True)
class Trap:
    """What it must be called (any one of `either` will do), whether the emulator can be used all the same,
    and what `emulator.restart` answers the shell."""

    names: frozenset[str] = frozenset()
    either: frozenset[str] = frozenset()
    usable: bool = False
    code: int = 12
    words: tuple[str, ...] = ()
    seconds: str = SECONDS


def _trap(*names: str, **more: Any) -> Trap:
    return Trap(frozenset(names), **more)


# Three boots take minutes on an emulated processor; it ends with the third, not with the deadline. Each is
# long enough to be asked all questions twice there: within the container, and from the host.
LOOP_SECONDS = "600"
LOOP_WORDS = ("DOUBLE_LATE=20",)

# One start serves two traps where neither hides the other.
TRAPS: dict[str, Trap] = {
    "no-kvm": _trap("no-kvm"),
    "kvm-denied": _trap("kvm-denied"),
    "novnc-no-emulator": _trap("no-emulator"),
    "emulator-crash": _trap("emulator-crashed"),
    "out-of-memory": _trap("out-of-memory"),
    "no-adb": _trap("no-adb"),
    "boot-loop": _trap("boot-loop", code=10, seconds=LOOP_SECONDS, words=LOOP_WORDS),
    # Which of them depends on when the last thing happened: neither says anything of the theory.
    "booting-forever": _trap(either=frozenset({"slow-boot", "stuck-boot"})),
    "anr,novnc-dead": _trap("anr", "novnc-dead"),
    "black-screen,package-manager-dead": _trap("black-screen", "package-manager-dead"),
    "dead-watcher,telemetry": _trap("dead-watcher", "telemetry", usable=True, code=0),
    "adb-offline,late-boot": _trap(usable=True, code=0, words=("DOUBLE_LATE=15",)),
}

_TRIES = 3
"""An emulated processor loses an L2 now and then, before its trap can spring, or the whole VM beside it."""
_LOST = "(L2 ended without a word, and was started again)"
_table: list[str] = []


@pytest.fixture(scope="module")
def android(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A lab whose docker-android was healthy once; the table is printed at its end."""
    with doubled(lab) as made:
        up = ("lab.up", "--json", "--name", NAME, "--emulator", "docker-android")
        for _ in range(_TRIES):
            answer = made.run(*up)
            if LOST not in answer.out:
                break
            _table.append(_LOST)
        assert answer.status == 0, answer.err
        yield made
    show(request, _table)


def _trapped(android: Lab, trap: str, *words: str, seconds: str = SECONDS) -> Lab:
    lab = with_words(android, f"DOUBLE_TRAP={trap}", *words)
    return replace(lab, env=lab.env | {"LAB_DEADLINES__ANDROID_SHADOW": seconds})


def _restart(android: Lab, trapped: Lab) -> Answer:
    """emulator.restart; once more after lab.up where the VM rebooted by itself beside it, which is told."""
    for _ in range(_TRIES):
        before = _boot_id(android)
        answer = trapped.run("emulator.restart", "--json", "--name", NAME)
        if before and _boot_id(android) == before:
            break
        _table.append("(the VM rebooted by itself, and was brought up again)")
        android.run("lab.up", "--name", NAME)
    return answer


def _boot_id(android: Lab) -> str:
    """The VM's; empty where it does not answer."""
    words = ("lab.exec", "--json", "--name", NAME, "--", "cat", "/proc/sys/kernel/random/boot_id")
    return str(android.run(*words).document.get("out", ""))


def _rungs(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rung["rung"]: rung for rung in document["rungs"]}


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_is_named_and_none_is_green(android: Lab, trap: str) -> None:
    expected = TRAPS[trap]
    trapped = _trapped(android, trap, *expected.words, seconds=expected.seconds)
    for _ in range(_TRIES):
        answer = _restart(android, trapped)
        assert "emulator" in answer.document, answer.err[-4000:]
        health = answer.document["emulator"]["health"]
        found = {one["name"]: one for one in health["diagnoses"]}
        if LOST not in found:
            break
        _table.append(_LOST)
    said = "; ".join(f"{name}: {one['what']}" for name, one in found.items())
    _table.append(f"{trap:<36} exit {answer.status:>2}  {said or 'usable'}")
    assert expected.names <= set(found), (sorted(found), health)
    assert not expected.either or expected.either & set(found), (sorted(found), health)
    assert health["usable"] is expected.usable
    assert answer.status == expected.code, (answer.status, answer.err[-2000:])
    for name in (expected.names | expected.either) & set(found) - {"dead-watcher"}:
        assert found[name]["lines"] or name in ("no-adb", "novnc-dead", "black-screen"), found[name]


def test_a_trap_is_a_rung_that_fails_and_takes_no_other_claim_with_it(android: Lab) -> None:
    trapped = _trapped(android, "boot-loop", *LOOP_WORDS, seconds=LOOP_SECONDS)
    for _ in range(_TRIES):
        restarted = _restart(android, trapped)
        assert restarted.status == 10, restarted.err[-4000:]
        document = trapped.run("lab.validate", "--json", "--name", NAME).document
        rungs = _rungs(document)
        if rungs["android.boot"]["status"] != "blocked":  # else ADB never found the same kernel there twice
            break
    assert rungs["android.boot"]["status"] == "failed" and "boot-loop" in rungs["android.boot"]["observed"]
    assert rungs["android.usable"]["status"] == "blocked"
    assert document["claims"]["android"]["verdict"] == "blocked"
    trapped = _trapped(android, "no-kvm")
    trapped.run("emulator.restart", "--name", NAME)
    answer = trapped.run("lab.validate", "--json", "--name", NAME)
    # The device is gone from the container alone: that is no word of KVM's.
    assert answer.status == 12 and answer.document["claims"]["nesting"]["verdict"] == "inconclusive"
    assert _rungs(answer.document)["nested.boot"]["inconclusive"]


def test_up_mends_what_a_trap_broke(android: Lab) -> None:
    document = android.json("lab.up", "--name", NAME)
    assert _rungs(document)["android.usable"]["status"] == "passed"
