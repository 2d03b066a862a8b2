"""android.boot and android.usable: passed only when seen, failed only by what refutes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError
from lab.emulators.protocol import BootStage, Check, Diagnosis, Health, NestedProof, Speed
from lab.engines.protocol import EngineFacts
from lab.host.cpu import parse_cpuinfo
from lab.host.facts import HostFacts
from lab.ladder.rungs import android, nested
from lab.ladder.site import Site, speed
from lab.model.domain import Observation
from lab.probes.kvm import CpuFacts, KvmFacts, Probe
from tests.unit import probed

HEALTHY = Health(
    booted=True,
    usable=True,
    checks=(Check("packages", True, "package:/x"), Check("status", None, "the container itself says READY")),
    timeline=(BootStage("container", 0.0), BootStage("boot-completed", 93.4), BootStage("novnc", None)),
    diagnoses=(),
    facts={"release": "14", "fingerprint": "google/sdk"},
)
NOT_YET = replace(HEALTHY, booted=False, usable=False, checks=(Check("boot", False, "sys.boot_completed=0"),))


def diagnosis(name: str, *, refutes: bool = False, final: bool = False) -> Diagnosis:
    return Diagnosis(name, f"what of {name}", ("a line",), "a hint", final=final, refutes=refutes)


@dataclass
class FakeAndroid:
    health: Health = HEALTHY
    name: str = "docker-android"
    android: bool = True
    own_clock: bool = False
    asked: list[tuple[str, float]] = field(default_factory=list)
    proof: NestedProof | None = None
    at: Mapping[Speed, float] = field(default_factory=lambda: {"hardware": 1.0, "nested": 2.0, "shadow": 3.0})

    def boot_seconds(self, speed: Speed) -> float:
        return self.at[speed]

    def wait(self, _reach: Any, stage: str, _step: Any, deadline: Deadline) -> Health:
        self.asked.append((stage, deadline.seconds))
        return self.health

    def booted(self, _guest: Any, deadline: Deadline) -> NestedProof:
        self.asked.append(("nested", deadline.seconds))
        assert self.proof
        return self.proof

    def prove(self, _address: str, _folder: Path, _deadline: Deadline) -> NestedProof:
        assert self.proof
        return self.proof


class FakeTools:
    nonce = "n"
    adb_address = "127.0.0.1:15555"
    guest = None
    failed_launches: tuple[str, ...] = ()
    known_boot_id = ""

    def reach(self) -> None: ...


def site(emulator: FakeAndroid, **more: Any) -> Site:
    host = HostFacts("Debian", "12", "6.1", "x86_64", parse_cpuinfo("flags : fpu\n"), 2, 2**34, 2**33, "boot")
    return Site(host, FakeTools(), emulator, Path("/nowhere"), 1.0, 1.0, **more)  # type: ignore[arg-type]


def kvm_facts(**cpu: Any) -> KvmFacts:
    told = probed.cpu_facts()
    told["cpu"] |= cpu
    return KvmFacts(probe=Probe.model_validate(probed.kvm_probe()), facts=CpuFacts.model_validate(told))


def test_booted_android_passes_and_leaves_its_timeline() -> None:
    at = site(FakeAndroid())
    seen = android.boot(at)
    assert seen.ok and "Android 14" in seen.observed and "after 93 s" in seen.observed
    facts = at.facts.document()
    assert {"name": "boot-completed", "seconds": 93.4} in facts["android.boot"]["timeline"]
    assert facts["android.boot"]["fingerprint"] == "google/sdk" and facts["android.boot"]["double"] is False
    assert android.usable(at).ok and at.facts.document()["android.usable"]["checks"][0]["name"] == "packages"


def test_double_is_said_wherever_it_passes_or_fails() -> None:
    double = replace(HEALTHY, facts={**HEALTHY.facts, "double": "yes"})
    at = site(FakeAndroid(double))
    assert (
        "not Android" in android.boot(at).observed and at.facts.document()["android.boot"]["double"] is True
    )
    assert (
        "not Android" in android.usable(at).observed
        and at.facts.document()["android.usable"]["double"] is True
    )
    failed = replace(double, booted=False, diagnoses=(diagnosis("boot-loop", refutes=True),))
    assert "not Android" in android.boot(site(FakeAndroid(failed))).observed


def test_what_is_beside_a_pass_is_told() -> None:
    orphan = replace(HEALTHY, diagnoses=(diagnosis("dead-watcher"),))
    seen = android.boot(site(FakeAndroid(orphan)))
    assert seen.ok and "dead-watcher" in seen.observed


def test_refuting_diagnosis_fails_with_its_lines() -> None:
    loop = replace(
        NOT_YET, diagnoses=(diagnosis("slow-boot"), diagnosis("boot-loop", refutes=True, final=True))
    )
    seen = android.boot(site(FakeAndroid(loop)))
    assert (
        not seen.ok and "boot-loop" in seen.observed and "a line" in seen.observed and seen.hint == "a hint"
    )


@pytest.mark.parametrize("name", ["slow-boot", "stuck-boot", "no-adb", "container-exited", "kvm-denied"])
def test_all_else_is_inconclusive(name: str) -> None:
    at = site(FakeAndroid(replace(NOT_YET, diagnoses=(diagnosis(name),))))
    with pytest.raises(InconclusiveError, match=name):
        android.boot(at)
    # What was seen is kept all the same.
    assert at.facts.document()["android.boot"]["diagnoses"][0]["name"] == name


def test_want_of_memory_blocks_and_silence_says_what_is_missing() -> None:
    with pytest.raises(BlockedError, match="out-of-memory"):
        android.boot(site(FakeAndroid(replace(NOT_YET, diagnoses=(diagnosis("out-of-memory", final=True),)))))
    with pytest.raises(InconclusiveError, match=r"sys\.boot_completed=0"):
        android.boot(site(FakeAndroid(NOT_YET)))


_DIAGNOSES = st.lists(
    st.builds(
        diagnosis, st.sampled_from(["a", "b", "out-of-memory"]), refutes=st.booleans(), final=st.booleans()
    ),
    max_size=3,
).map(tuple)


@given(st.booleans(), st.booleans(), _DIAGNOSES)
def test_pass_needs_the_stage_and_fail_needs_a_refutation(
    booted: bool, usable: bool, diagnoses: tuple[Diagnosis, ...]
) -> None:
    found = replace(HEALTHY, booted=booted, usable=booted and usable, diagnoses=diagnoses)
    for look, reached in ((android.boot, found.booted), (android.usable, found.usable)):
        try:
            seen: Observation | None = look(site(FakeAndroid(found)))
        except (InconclusiveError, BlockedError):
            seen = None
        if reached:
            assert seen is not None and seen.ok
        elif any(one.refutes for one in diagnoses):
            assert seen is not None and not seen.ok
        else:
            assert seen is None


def _engine(acceleration: str = "kvm", nesting: Any = "hardware") -> EngineFacts:
    return EngineFacts("qemu", "7.2", acceleration, nesting, "fake")


@pytest.mark.parametrize(
    ("kvm", "engine", "key"),
    [
        (kvm_facts(hypervisor="", nested_paging=True), _engine(), "hardware"),
        (kvm_facts(nested_paging=True), _engine(), "nested"),
        (kvm_facts(nested_paging=None), _engine(), "nested"),
        (kvm_facts(nested_paging=False), _engine("hwvirt"), "shadow"),
        (kvm_facts(nested_paging=True), _engine("tcg", "emulated"), "shadow"),
        (None, None, "nested"),
    ],
)
def test_deadline_is_of_what_android_runs_on(
    kvm: KvmFacts | None, engine: EngineFacts | None, key: Any
) -> None:
    assert speed(kvm, engine) == key
    emulator = FakeAndroid()
    at = site(emulator)
    at.facts.guest, at.engine_facts = kvm, engine
    android.boot(at)
    assert emulator.asked == [("booted", emulator.at[key])]


@pytest.mark.parametrize(
    ("own", "nested_seconds", "waited"), [(1800.0, 900.0, 1800.0), (180.0, 900.0, 900.0)]
)
def test_l2_is_given_the_longer_of_both_deadlines(own: float, nested_seconds: float, waited: float) -> None:
    emulator = FakeAndroid(proof=PROOF, at={"nested": own})
    at = site(emulator)
    at.boot_id, at.nested_seconds = "boot-of-l1", nested_seconds
    assert nested.boot(at).ok
    emulator.at = {"nested": 0}
    nested.boot(at)
    assert emulator.asked == [("nested", waited), ("nested", nested_seconds)]


PROOF = NestedProof("n", "KVMKVMKVM", "", "boot-of-l2", False, "6.1-android14", seconds=30.0)


def test_l2_that_is_not_labs_own_may_keep_its_clock_to_itself_and_still_boot() -> None:
    for clock in ("", "tsc", "kvm-clock"):
        at = site(FakeAndroid(proof=replace(PROOF, clocksource=clock)))
        at.boot_id = "boot-of-l1"
        assert nested.boot(at).ok and nested.adb(at).ok
    at = site(FakeAndroid(proof=replace(PROOF, clocksource="hpet")))
    at.boot_id = "boot-of-l1"
    with pytest.raises(InconclusiveError, match="clocksource is hpet"):
        nested.boot(at)


@pytest.mark.parametrize("hypervisor", ["", "TCGTCGTCGTCG"])
def test_l2_without_kvm_fails_whatever_it_is(hypervisor: str) -> None:
    at = site(FakeAndroid(proof=replace(PROOF, hypervisor=hypervisor)))
    at.boot_id = "boot-of-l1"
    assert not nested.boot(at).ok
