"""The rungs that decide: only an L2 under KVM, of this lab, may pass; everything else must not.

The fakes here stand for what tests/integration and tests/e2e try for real.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError
from lab.emulators.protocol import NestedFailedError, NestedProof, Speed
from lab.engines.protocol import Availability, MachineSpec, State
from lab.host.facts import HostFacts, parse_cpuinfo
from lab.ladder.rungs import LADDER, container, docker, guest, host, nested, vm
from lab.ladder.site import Site
from lab.model.domain import Observation
from lab.probes.kvm import Device, GuestRun, KvmFacts, Probe
from tests.unit import fakes

NONCE, L1_BOOT, L2_BOOT = "nonce-of-this-launch", "boot-of-l1", "boot-of-l2"
GOOD = NestedProof(
    nonce=NONCE,
    hypervisor="KVMKVMKVM",
    clocksource="kvm-clock",
    boot_id=L2_BOOT,
    boot_completed=True,
    kernel="6.12",
    seconds=6.0,
)


@dataclass
class FakeTools:
    nonce: str = NONCE
    adb_address: str = "127.0.0.1:15555"
    guest: Any = None
    engine: Any = None
    machine: Any = None
    failed_launches: list[str] = field(default_factory=list)
    known_boot_id: str = ""

    def log_in(self, _deadline: Deadline) -> Any:
        return self.guest


@dataclass
class FakeEmulator:
    inside: NestedProof | Exception = GOOD
    outside: NestedProof = GOOD
    name: str = "canary"
    android: bool = False
    own_clock: bool = True

    def boot_seconds(self, _speed: Speed) -> float:
        return 0

    def booted(self, _guest: Any, _deadline: Deadline) -> NestedProof:
        if isinstance(self.inside, Exception):
            raise self.inside
        return self.inside

    def prove(self, _address: str, _folder: Path, _deadline: Deadline) -> NestedProof:
        return self.outside


def _host(cpuinfo: str = "flags : fpu\nmodel name : Some CPU\n") -> HostFacts:
    return HostFacts("Debian", "12", "6.1", "x86_64", parse_cpuinfo(cpuinfo), 2, 2**34, 2**33, "boot")


def _site(emulator: FakeEmulator, **tools: Any) -> Site:
    site = Site(_host(), FakeTools(**tools), emulator, Path("/nowhere"), 1.0, 1.0)  # type: ignore[arg-type]
    site.boot_id = L1_BOOT
    return site


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
    site = _site(FakeEmulator(inside=proof))
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
            evidence = not rung(_site(emulator)).ok
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
    site = _site(FakeEmulator(outside=proof))
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
    site = _site(FakeEmulator(outside=replace(GOOD, **stranger)))
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
    site = _site(Restarts(at=3))
    assert nested.boot(site).ok
    assert nested.adb(site).ok
    assert site.booted and site.facts.nested_adb
    assert site.booted.boot_id == site.facts.nested_adb.boot_id == "boot-3"


@pytest.mark.parametrize("inside", [{"nonce": "of another lab"}, {"hypervisor": "TCGTCGTCGTCG"}])
def test_what_restarts_as_something_else_is_not_this_labs_l2(inside: dict[str, Any]) -> None:
    emulator = Restarts(at=2)
    site = _site(emulator)
    assert nested.boot(site).ok
    emulator.more = inside
    with pytest.raises(InconclusiveError, match="not this lab's L2"):
        nested.adb(site)
    assert site.booted and site.booted.boot_id == "boot-1"


def test_our_own_l2_that_denies_the_end_of_its_boot_is_no_evidence_and_no_pass() -> None:
    site = _site(FakeEmulator(outside=replace(GOOD, boot_completed=False)))
    site.booted = GOOD
    with pytest.raises(InconclusiveError, match=r"sys\.boot_completed is not 1"):
        nested.adb(site)


@pytest.mark.parametrize("rung", [nested.boot, nested.adb])
def test_an_answer_without_a_signature_is_no_evidence(rung: Callable[[Site], Observation]) -> None:
    """As one that was cut has none: what an L2 without a hypervisor tells is an empty one."""
    site = _site(FakeEmulator(**{where: replace(GOOD, hypervisor=None) for where in ("inside", "outside")}))
    with pytest.raises(InconclusiveError, match="signature"):
        rung(site)


def test_our_own_l2_without_kvm_is_evidence() -> None:
    site = _site(FakeEmulator(outside=replace(GOOD, hypervisor="TCGTCGTCGTCG")))
    site.booted = GOOD
    seen = nested.adb(site)
    assert not seen.ok
    assert "TCGTCGTCGTCG" in seen.observed


def test_a_lab_that_never_launched_l2_has_no_nonce_to_match() -> None:
    for rung in (nested.boot, nested.adb):
        silent = replace(GOOD, nonce="")
        with pytest.raises(InconclusiveError, match="nonce"):
            rung(_site(FakeEmulator(inside=silent, outside=silent), nonce=""))


def test_a_monitor_that_says_no_fails_the_rung_and_silence_does_not_settle_it() -> None:
    said_no = NestedFailedError("KVM does not run L2", tail="KVM: entry failed")
    seen = nested.boot(_site(FakeEmulator(inside=said_no)))
    assert not seen.ok
    assert "KVM: entry failed" in seen.observed
    with pytest.raises(DeadlineError):
        nested.boot(_site(FakeEmulator(inside=DeadlineError("nothing was heard"))))


def test_failed_launches_before_the_good_one_are_told() -> None:
    seen = nested.boot(_site(FakeEmulator(), failed_launches=["it fell"]))
    assert seen.ok
    assert "1 launches failed: it fell" in seen.observed


def _entry(**changes: Any) -> GuestRun:
    good: dict[str, Any] = {
        "started": True,
        "entered": True,
        "ok": True,
        "exits": ["io", "io", "hlt"],
        "exit_reason": 5,
        "hardware_entry_failure_reason": None,
        "failure": "",
        "error": "",
        "seconds": 0.1,
    }
    return GuestRun(**(good | changes))


_DEVICE = Device.model_validate(fakes.kvm_probe()["device"])


def _probe(real: GuestRun | None, long: GuestRun | None, device: Device = _DEVICE) -> Probe:
    return Probe(schema="lab.kvm_probe/1", device=device, real_mode=real, long_mode=long)


_BAD = _entry(ok=False, failure="kvm", error="entry failed, hardware error 0xffffffff")


@pytest.mark.parametrize(("real", "long"), [(_BAD, _entry()), (_entry(), _BAD), (_BAD, _BAD)])
def test_kvm_works_only_when_both_modes_run(real: GuestRun | None, long: GuestRun | None) -> None:
    assert not guest.settled(_probe(real, long), "here").ok


@pytest.mark.parametrize(("real", "long"), [(None, None), (None, _entry()), (_entry(), None)])
def test_a_mode_that_was_not_tried_settles_nothing(real: GuestRun | None, long: GuestRun | None) -> None:
    with pytest.raises(InconclusiveError):
        guest.settled(_probe(real, long), "here")


_NOT_KVMS = ("permission", "resource", "killed", "timeout", "tool", "system", "unknown")
_CLASSES = {"timeout": DeadlineError, "tool": BlockedError}


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("failure", _NOT_KVMS)
def test_what_is_not_kvms_own_word_settles_nothing_and_names_itself(failure: str, started: bool) -> None:
    """A KVM_RUN that hangs is silence, too: a machine that stands still looks the same."""
    failed = _entry(started=started, entered=False, ok=False, failure=failure, error="KVM_RUN: ENOMEM")
    for probe in (_probe(failed, _entry()), _probe(_entry(), failed), _probe(failed, failed)):
        with pytest.raises(_CLASSES.get(failure, InconclusiveError), match="KVM_RUN: ENOMEM"):
            guest.settled(probe, "here")


@given(st.data())
def test_only_kvms_own_word_refutes(data: st.DataObject) -> None:
    """Whatever the probe reports, in L1 and in the container."""
    failures = st.sampled_from(["kvm", *_NOT_KVMS])
    entries = st.one_of(
        st.just(_entry()), failures.map(lambda kind: _entry(ok=False, failure=kind, error="it failed"))
    )
    kind = data.draw(st.sampled_from(["", *_NOT_KVMS]))
    device = _device(failure=kind, opened=not kind, error="it failed" if kind else "")
    tried = [None if kind else data.draw(entries) for _ in range(2)]
    probe = _probe(*tried, device)
    denied = any(entry and not entry.ok and entry.failure == "kvm" for entry in tried)
    try:
        settled = guest.settled(probe, "here")
    except (InconclusiveError, BlockedError):
        assert not denied and not probe.ok
    else:
        assert settled.ok != denied


@pytest.mark.parametrize(("flags", "ok"), [("fpu svm", True), ("fpu vmx", True), ("fpu hypervisor", False)])
def test_host_cpu_says_what_the_processor_offers(flags: str, ok: bool) -> None:
    site = _site(FakeEmulator())
    site.host = _host(f"model name : A CPU\nflags : {flags}\n")
    assert host.cpu(site).ok is ok


def _l1(world: fakes.World, tmp_path: Path) -> Site:
    """A site whose L1 is up, on the fakes."""
    spec = MachineSpec("uuid", "default", tmp_path, tmp_path / "d", tmp_path / "s", 2, 512, 12)
    world.state, world.l1_boots = State.RUNNING, 1
    return _site(FakeEmulator(), guest=fakes.FakeGuest(world), machine=fakes.FakeMachine(world, spec))


def test_boot_waits_for_the_end_of_the_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(deadline, "pause", pauses.append)
    world = fakes.World(boot_states=["", "initializing", "starting", "degraded"])
    site = _l1(world, tmp_path)
    seen = vm.boot(site)
    assert seen.ok
    assert "degraded" in seen.observed
    assert (len(pauses), world.boot_states) == (3, [])
    assert site.boot_id == world.l1_boot_id


@pytest.mark.parametrize(
    ("ahead", "said"), [(7200, r"its clock \+7\d{3} s"), (-90, r"its clock -\d\d s"), (5, "")]
)
def test_boot_tells_of_a_clock_that_is_wrong(
    ahead: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _l1(fakes.World(l1_ahead=ahead), tmp_path)
    seen = vm.boot(site)
    assert seen.ok and site.facts.vm_boot and site.facts.vm_boot.kernel == "Linux 6.12"
    assert site.facts.vm_boot.clock_ahead_seconds == pytest.approx(ahead, abs=2)
    assert re.search(said or "host key as pinned$", seen.observed)


def test_a_boot_that_never_ends_settles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = _l1(fakes.World(boot_states=["starting"] * 9), tmp_path)
    site.boot_seconds = 0
    with pytest.raises(DeadlineError, match="starting"):
        vm.boot(site)
    assert site.boot_id == L1_BOOT  # as it was: nothing was learned


_APT = "TriggeredBy=apt-daily.timer\nId=apt-daily.service\n"
_SSH = "TriggeredBy=\nId=ssh.service\n"
_PATH = "TriggeredBy=some.path\nId=some.service\n"


def test_what_an_overdue_timer_started_is_no_part_of_the_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _l1(fakes.World(boot_states=["starting"] * 9, boot_jobs=_APT), tmp_path)
    assert "running but for apt-daily.service" in vm.boot(site).observed


@pytest.mark.parametrize(("job", "name"), [(_SSH, "ssh.service"), (_PATH, "some.service")])
def test_what_anything_else_started_is_waited_for(
    job: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _l1(fakes.World(boot_states=["starting"] * 9, boot_jobs=f"{_APT}\n{job}"), tmp_path)
    site.boot_seconds = 0
    with pytest.raises(DeadlineError, match=f"starting, and waits for {name}"):
        vm.boot(site)


def test_a_boot_with_nothing_left_but_systemds_own_word_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two jobs there may be none, and before `starting` not every job is there yet."""
    monkeypatch.setattr(deadline, "pause", lambda _seconds: None)
    for jobs, states in (("", ["starting", "running"]), (_APT, ["initializing", "running"])):
        world = fakes.World(boot_states=list(states), boot_jobs=jobs)
        assert ", running, " in vm.boot(_l1(world, tmp_path)).observed
        assert world.boot_states == []


def test_settings_that_the_engine_did_not_take_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = _l1(fakes.World(), tmp_path)
    assert vm.settings(site).ok
    monkeypatch.setattr(fakes.FakeMachine, "settings", lambda _self: {"cpus": "2", "memory_mib": "512"})
    seen = vm.settings(site)
    assert not seen.ok
    assert "nested" in seen.hint


def test_a_machine_that_does_not_run_blocks(tmp_path: Path) -> None:
    world = fakes.World()
    site = _l1(world, tmp_path)
    world.state = State.SUSPENDED
    with pytest.raises(BlockedError, match="suspended"):
        vm.settings(site)


@pytest.mark.parametrize(
    ("changes", "paravirt", "ok"),
    [
        ({}, "kvm", True),
        ({"clocksources": ["tsc"]}, "kvm", False),
        ({}, "none", False),
        ({"clocksources": ["tsc"]}, "none", True),
    ],
)
def test_paravirt_is_what_was_asked_for(
    changes: dict[str, Any], paravirt: Any, ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes, "cpu_facts", partial(fakes.cpu_facts, **changes))
    site = _l1(fakes.World(), tmp_path)
    site.tools.machine.spec = replace(site.tools.machine.spec, paravirt=paravirt)
    assert guest.paravirt(site).ok is ok


def test_kvm_and_cpu_are_what_l1_itself_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert guest.kvm(_l1(fakes.World(), tmp_path)).ok
    broken = _l1(fakes.World(kvm_ok=False), tmp_path)
    assert guest.cpu(broken).ok
    seen = guest.kvm(broken)
    assert not seen.ok
    assert "entry failed" in seen.observed
    cpu = fakes.cpu_facts()["cpu"] | {"flags": ["hypervisor"], "nested_paging": None}
    monkeypatch.setattr(fakes, "cpu_facts", partial(fakes.cpu_facts, cpu=cpu))
    assert not guest.cpu(_l1(fakes.World(), tmp_path)).ok


@pytest.mark.parametrize("flags", [["hypervisor"], ["hypervisor", "svm"]])
def test_the_engines_own_word_on_nesting_is_shown_with_what_the_vm_has(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Mac that line of VBox.log is why: it says who withheld it, and the flags alone do not."""
    cpu = fakes.cpu_facts()["cpu"] | {"flags": flags}
    monkeypatch.setattr(fakes, "cpu_facts", partial(fakes.cpu_facts, cpu=cpu))
    site = _l1(fakes.World(), tmp_path)
    assert "log says" not in guest.cpu(site).observed
    site.facts.vm_settings = {"nesting_refused": "CPUM: Warning! Can't turn on nested VT-x/AMD-V"}
    seen = guest.cpu(site)
    assert seen.ok is ("svm" in flags)  # what the VM has decides; the log only explains
    assert seen.observed.endswith("; the engine's log says: CPUM: Warning! Can't turn on nested VT-x/AMD-V")


_ABSENT = {"exists": False, "opened": False, "api_version": None, "failure": "absent"}
_ABSENT |= {"error": "/dev/kvm: ENOENT (No such file or directory)"}
_LOADED = {"kvm": {}, "kvm_amd": {"nested": "1", "npt": "1"}}
_WAS_LOADED = ["[1.1] kvm_amd: Nested Virtualization enabled", "[1.1] SVM: kvm: Nested Paging disabled"]


_EMPTY = {
    "opened": False,
    "api_version": None,
    "failure": "absent",
    "error": "/dev/kvm: ENODEV (No such device)",
}


def _without_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any] = _ABSENT, **facts: Any
) -> Site:
    device = fakes.kvm_probe()["device"] | changes
    probe = fakes.kvm_probe(device=device, real_mode=None, long_mode=None)
    monkeypatch.setattr(fakes, "kvm_probe", lambda _ok: probe)
    monkeypatch.setattr(fakes, "cpu_facts", partial(fakes.cpu_facts, **facts))
    return _l1(fakes.World(), tmp_path)


@pytest.mark.parametrize("lines", [None, [], _WAS_LOADED])
@pytest.mark.parametrize("device", [_ABSENT, _EMPTY])
def test_a_module_that_was_kept_out_says_nothing_of_the_processor(
    device: dict[str, Any], lines: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _without_device(tmp_path, monkeypatch, device, modules={"kvm": {}}, kernel_lines=lines)
    with pytest.raises(BlockedError, match="has not loaded kvm_amd") as caught:
        guest.kvm(site)
    assert "modprobe kvm_amd" in caught.value.hint


@pytest.mark.parametrize(
    "facts",
    [
        {"modules": _LOADED, "kernel_lines": ["kvm: disabled by bios"]},
        {"kernel_lines": ["kvm_amd: SVM not supported by CPU 0"]},
        {
            "kernel_lines": ["kvm_intel: VMX not enabled (by BIOS) in MSR_IA32_FEAT_CTL on CPU 1"],
            "cpu": fakes.cpu_facts()["cpu"] | {"flags": ["vmx"]},
        },
        {"kernel_lines": ["kvm: disabled by bios"]},
        {"kernel_lines": ["kvm: enabling virtualization on CPU0 failed"]},
        # theory.experiment asks where the processor offers nothing, too: that is its finding.
        {"cpu": fakes.cpu_facts()["cpu"] | {"flags": ["hypervisor"], "nested_paging": None}},
    ],
)
def test_a_missing_device_is_evidence_once_the_processor_was_asked(
    facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = guest.kvm(_without_device(tmp_path, monkeypatch, **facts))
    assert not seen.ok and seen.observed.startswith(_ABSENT["error"])
    assert all(line in seen.observed for line in facts.get("kernel_lines", []))


@pytest.mark.parametrize(
    "line",
    [
        "kvm: no hardware support",
        "kvm_intel: CPU 0 doesn't support VMX",
        "kvm_intel: VMX not supported by CPU 0",
        "kvm_intel: VMX not enabled (by BIOS) in MSR_IA32_FEAT_CTL on CPU 1",
    ],
)
def test_the_other_vendors_module_says_nothing_of_this_processor(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {"kvm": {}, "kvm_intel": {"nested": "Y"}}
    site = _without_device(tmp_path, monkeypatch, modules=modules, kernel_lines=[line])
    with pytest.raises(BlockedError, match="has not loaded kvm_amd"):
        guest.kvm(site)


@pytest.mark.parametrize("line", ["kvm: no hardware support", "kvm_amd: CPU 0 isn't AMD or Hygon"])
def test_amds_module_says_nothing_of_intels_processor(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = fakes.cpu_facts()["cpu"] | {"flags": ["vmx"]}
    site = _without_device(tmp_path, monkeypatch, cpu=cpu, modules={"kvm_amd": {}}, kernel_lines=[line])
    with pytest.raises(BlockedError, match="has not loaded kvm_intel"):
        guest.kvm(site)


def test_a_report_from_before_failures_had_a_kind_is_read(tmp_path: Path) -> None:
    """As a clear Linux's, in which the module of the other vendor was loaded."""
    device = {"exists": False, "opened": False, "api_version": None, "mode": "", "owner": "", "group": ""}
    probe = {"device": device | {"error": "there is no /dev/kvm"}, "real_mode": None, "long_mode": None}
    facts = fakes.cpu_facts(modules={"kvm": {}, "kvm_intel": {"nested": "Y"}})
    facts["kernel_lines"] = ["[    0.894716] kvm: no hardware support"]
    site = _l1(fakes.World(), tmp_path)
    site.facts.guest = KvmFacts.model_validate(
        {"probe": {"schema": "lab.kvm_probe/1", **probe}, "facts": facts}
    )
    with pytest.raises(BlockedError, match="has not loaded kvm_amd"):
        guest.kvm(site)


@pytest.mark.parametrize("lines", [None, [], _WAS_LOADED])
def test_a_device_missing_beside_its_module_settles_nothing(
    lines: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InconclusiveError, match="kvm_amd is loaded, and the kernel does not say"):
        guest.kvm(_without_device(tmp_path, monkeypatch, modules=_LOADED, kernel_lines=lines))


def test_another_kind_of_processor_is_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = fakes.cpu_facts()["cpu"] | {"flags": []}
    monkeypatch.setattr(fakes, "cpu_facts", partial(fakes.cpu_facts, machine="aarch64", cpu=cpu))
    with pytest.raises(BlockedError, match="aarch64"):
        guest.cpu(_l1(fakes.World(), tmp_path))


def test_a_signature_that_cannot_be_read_is_not_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = fakes.cpu_facts()["cpu"] | {"hypervisor": None}
    monkeypatch.setattr(fakes, "cpu_facts", partial(fakes.cpu_facts, cpu=cpu))
    with pytest.raises(InconclusiveError, match="signature"):
        guest.paravirt(_l1(fakes.World(), tmp_path))


@pytest.mark.parametrize("ok", [True, False])
def test_a_container_is_probed_as_l1_is(ok: bool, tmp_path: Path) -> None:
    assert container.kvm(_l1(fakes.World(kvm_ok=ok), tmp_path)).ok is ok


def test_a_container_probe_that_was_killed_settles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = fakes.kvm_entry(False, started=False, failure="killed", error="it was killed by SIGKILL")
    killed = fakes.kvm_probe(long_mode=failed)
    monkeypatch.setattr(fakes, "kvm_probe", lambda _ok: killed)
    for rung in (guest.kvm, container.kvm):
        site = _l1(fakes.World(), tmp_path)
        with pytest.raises(InconclusiveError, match="killed by SIGKILL"):
            rung(site)
        assert "SIGKILL" in str(site.facts), "it is kept all the same"


@pytest.mark.parametrize("failure", ["absent", "permission"])
def test_a_device_that_docker_does_not_hand_on_is_no_word_of_kvms(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = fakes.kvm_probe()["device"] | {"opened": False, "api_version": None}
    device |= {"failure": failure, "error": "/dev/kvm: EPERM (Operation not permitted)"}
    probe = fakes.kvm_probe(device=device, real_mode=None, long_mode=None)
    monkeypatch.setattr(fakes, "kvm_probe", lambda _ok: probe)
    with pytest.raises(InconclusiveError, match="EPERM"):
        container.kvm(_l1(fakes.World(), tmp_path))


def _device(**changes: Any) -> Device:
    return Device(**(_DEVICE.model_dump() | changes))


def test_an_engine_that_cannot_be_used_blocks() -> None:
    site = _site(FakeEmulator())
    site.tools.engine = fakes.FakeEngine(fakes.World(available=Availability(False, "no qemu", "install it")))  # type: ignore[misc]
    with pytest.raises(BlockedError, match="no qemu"):
        host.engine(site)
    assert site.engine_facts is None


def test_docker_that_does_not_answer_blocks(tmp_path: Path) -> None:
    with pytest.raises(BlockedError, match="Docker"):
        docker.engine(_l1(fakes.World(docker=""), tmp_path))


def test_rungs_without_an_emulator_are_skipped_with_the_reason() -> None:
    site = _site(FakeEmulator())
    assert set(LADDER.skips(site)) == {"android.boot", "android.usable"}
    site.emulator = None
    assert set(LADDER.skips(site)) == {"nested.boot", "nested.adb", "android.boot", "android.usable"}
    assert not set(LADDER.checks(site)) & set(LADDER.skips(site))
