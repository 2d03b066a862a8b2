"""The rungs of L2: only one under KVM, of this lab, may pass; everything else must not.

The fakes here stand for what tests/integration and tests/e2e try for real.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, InconclusiveError
from lab.emulators.protocol import NestedFailedError, NestedProof
from lab.ladder.rungs import nested
from lab.ladder.site import Site
from lab.model.domain import Observation
from tests.unit.sites import GOOD, L1_BOOT, L2_BOOT, NONCE, FakeEmulator, site_of

_TEXTS = st.sampled_from(
    ["", "other", NONCE, L1_BOOT, L2_BOOT, "KVMKVMKVM", "TCGTCGTCGTCG", "kvm-clock", "tsc"]
)
_PROOFS = st.builds(
    NestedProof,
    nonce=_TEXTS,
    hypervisor=_TEXTS,
    clocksource=_TEXTS,
    boot_id=_TEXTS,
    boot_completed=st.booleans(),
    kernel=_TEXTS,
    seconds=st.sampled_from([None, 1.0]),
)


def _is_good(proof: NestedProof) -> bool:
    return (
        proof.nonce == NONCE
        and proof.hypervisor == "KVMKVMKVM"
        and proof.clocksource == "kvm-clock"
        and proof.boot_id not in ("", L1_BOOT)
    )


@given(_PROOFS)
def test_boot_passes_only_for_an_l2_under_kvm_with_the_nonce(proof: NestedProof) -> None:
    site = site_of(FakeEmulator(inside=proof))
    try:
        passed = nested.boot(site).ok
    except InconclusiveError:
        passed = False
    assert passed == _is_good(proof)
    # What did not pass must not be the reference for nested.adb, nor be measured as KVM.
    assert (site.booted is not None) == passed
    assert (site.facts.nested_boot is not None) == (passed and proof.seconds is not None)


@given(_PROOFS)
def test_only_our_own_l2_can_speak_against_nesting(proof: NestedProof) -> None:
    ours = proof.nonce == NONCE and proof.boot_id not in ("", L1_BOOT)
    for rung, emulator in (
        (nested.boot, FakeEmulator(inside=proof)),
        (nested.adb, FakeEmulator(outside=proof)),
    ):
        try:
            evidence = not rung(site_of(emulator)).ok
        except InconclusiveError:
            under_kvm = proof.hypervisor == "KVMKVMKVM"
            denied = rung is nested.adb and not proof.boot_completed
            assert not ours or denied or (under_kvm and proof.clocksource != "kvm-clock")
        else:
            assert ours
            # Whatever clock it keeps: an L2 that KVM runs says nothing against KVM.
            assert evidence is (proof.hypervisor != "KVMKVMKVM")


@given(_PROOFS)
def test_adb_passes_only_for_the_very_l2_that_booted(proof: NestedProof) -> None:
    site = site_of(FakeEmulator(outside=proof))
    site.booted = GOOD
    try:
        passed = nested.adb(site).ok
    except InconclusiveError:
        passed = False
    assert passed == (_is_good(proof) and proof.boot_id == L2_BOOT and proof.boot_completed)


@pytest.mark.parametrize(
    "stranger",
    [{"nonce": ""}, {"nonce": "of another lab"}, {"boot_id": L1_BOOT}, {"boot_id": "of another L2"}],
)
def test_an_adbd_from_elsewhere_is_no_evidence_against_nesting(stranger: dict[str, Any]) -> None:
    site = site_of(FakeEmulator(outside=replace(GOOD, **stranger)))
    site.booted = GOOD
    with pytest.raises(InconclusiveError, match="not this lab's L2"):
        nested.adb(site)


class Restarts(FakeEmulator):
    """An Android whose kernel is another each time the container is asked, and answers ADB from `at` on."""

    def __init__(self, at: int, **inside: Any) -> None:
        super().__init__(android=True)
        self.at, self.more, self.boots = at, inside, 0

    def booted(self, _guest: Any, _deadline: Deadline) -> NestedProof:
        self.boots += 1
        return replace(GOOD, boot_id=f"boot-{self.boots}", **self.more)

    def prove(self, _address: str, _folder: Path, _deadline: Deadline) -> NestedProof:
        nonce = NONCE if self.boots >= self.at else ""
        return replace(GOOD, boot_id=f"boot-{self.boots}", nonce=nonce)


def test_an_android_that_restarts_between_two_questions_is_asked_again() -> None:
    site = site_of(Restarts(at=3))
    assert nested.boot(site).ok
    assert nested.adb(site).ok
    assert site.booted and site.facts.nested_adb
    assert site.booted.boot_id == site.facts.nested_adb.boot_id == "boot-3"


@pytest.mark.parametrize("inside", [{"nonce": "of another lab"}, {"hypervisor": "TCGTCGTCGTCG"}])
def test_what_restarts_as_something_else_is_not_this_labs_l2(inside: dict[str, Any]) -> None:
    emulator = Restarts(at=2)
    site = site_of(emulator)
    assert nested.boot(site).ok
    emulator.more = inside
    with pytest.raises(InconclusiveError, match="not this lab's L2"):
        nested.adb(site)
    assert site.booted and site.booted.boot_id == "boot-1"


def test_our_own_l2_that_denies_the_end_of_its_boot_is_no_evidence_and_no_pass() -> None:
    site = site_of(FakeEmulator(outside=replace(GOOD, boot_completed=False)))
    site.booted = GOOD
    with pytest.raises(InconclusiveError, match=r"sys\.boot_completed is not 1"):
        nested.adb(site)


@pytest.mark.parametrize("rung", [nested.boot, nested.adb])
def test_an_answer_without_a_signature_is_no_evidence(rung: Callable[[Site], Observation]) -> None:
    """As one that was cut has none: what an L2 without a hypervisor tells is an empty one."""
    site = site_of(FakeEmulator(**{where: replace(GOOD, hypervisor=None) for where in ("inside", "outside")}))
    with pytest.raises(InconclusiveError, match="signature"):
        rung(site)


def test_our_own_l2_without_kvm_is_evidence() -> None:
    site = site_of(FakeEmulator(outside=replace(GOOD, hypervisor="TCGTCGTCGTCG")))
    site.booted = GOOD
    seen = nested.adb(site)
    assert not seen.ok
    assert "TCGTCGTCGTCG" in seen.observed


def test_a_lab_that_never_launched_l2_has_no_nonce_to_match() -> None:
    for rung in (nested.boot, nested.adb):
        silent = replace(GOOD, nonce="")
        with pytest.raises(InconclusiveError, match="nonce"):
            rung(site_of(FakeEmulator(inside=silent, outside=silent), nonce=""))


def test_a_monitor_that_says_no_fails_the_rung_and_silence_does_not_settle_it() -> None:
    said_no = NestedFailedError("KVM does not run L2", tail="KVM: entry failed")
    seen = nested.boot(site_of(FakeEmulator(inside=said_no)))
    assert not seen.ok
    assert "KVM: entry failed" in seen.observed
    with pytest.raises(DeadlineError):
        nested.boot(site_of(FakeEmulator(inside=DeadlineError("nothing was heard"))))


def test_failed_launches_before_the_good_one_are_told() -> None:
    seen = nested.boot(site_of(FakeEmulator(), failed_launches=["it fell"]))
    assert seen.ok
    assert "1 launches failed: it fell" in seen.observed
