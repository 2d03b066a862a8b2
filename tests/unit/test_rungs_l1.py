"""The rungs of the host, of L1 and of the container in it: only KVM's own word counts against them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline
from lab.core.errors import BlockedError, DeadlineError, InconclusiveError
from lab.engines.protocol import Availability, State
from lab.ladder.rungs import LADDER, container, docker, guest, host, vm
from lab.ladder.site import Site
from lab.probes.kvm import Device, GuestRun, KvmFacts, Probe
from tests.unit import fakes, probed
from tests.unit.sites import L1_BOOT, FakeEmulator, host_of, site_of, site_of_l1


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


_DEVICE = Device.model_validate(probed.kvm_probe()["device"])


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
    site = site_of(FakeEmulator())
    site.host = host_of(f"model name : A CPU\nflags : {flags}\n")
    assert host.cpu(site).ok is ok


def test_boot_waits_for_the_end_of_the_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(deadline, "pause", pauses.append)
    world = fakes.World(boot_states=["", "initializing", "starting", "degraded"])
    site = site_of_l1(world, tmp_path)
    seen = vm.boot(site)
    assert seen.ok
    assert "degraded" in seen.observed
    assert (len(pauses), world.boot_states) == (3, [])
    assert site.boot_id == world.l1_boot_id


@pytest.mark.parametrize(
    ("ahead", "said"), [(7200, r"its clock \+7\d{3} s"), (-90, r"its clock -\d\d s"), (5, "")]
)
def test_boot_tells_of_a_clock_that_is_wrong(ahead: int, said: str, tmp_path: Path) -> None:
    site = site_of_l1(fakes.World(l1_ahead=ahead), tmp_path)
    seen = vm.boot(site)
    assert seen.ok and site.facts.vm_boot and site.facts.vm_boot.kernel == "Linux 6.12"
    assert site.facts.vm_boot.clock_ahead_seconds == pytest.approx(ahead, abs=2)
    assert re.search(said or "host key as pinned$", seen.observed)


def test_a_boot_that_never_ends_settles_nothing(tmp_path: Path) -> None:
    site = site_of_l1(fakes.World(boot_states=["starting"] * 9), tmp_path)
    site.boot_seconds = 0
    with pytest.raises(DeadlineError, match="starting"):
        vm.boot(site)
    assert site.boot_id == L1_BOOT  # as it was: nothing was learned


_APT = "TriggeredBy=apt-daily.timer\nId=apt-daily.service\n"
_SSH = "TriggeredBy=\nId=ssh.service\n"
_PATH = "TriggeredBy=some.path\nId=some.service\n"


def test_what_an_overdue_timer_started_is_no_part_of_the_boot(tmp_path: Path) -> None:
    site = site_of_l1(fakes.World(boot_states=["starting"] * 9, boot_jobs=_APT), tmp_path)
    assert "running but for apt-daily.service" in vm.boot(site).observed


@pytest.mark.parametrize(("job", "name"), [(_SSH, "ssh.service"), (_PATH, "some.service")])
def test_what_anything_else_started_is_waited_for(job: str, name: str, tmp_path: Path) -> None:
    site = site_of_l1(fakes.World(boot_states=["starting"] * 9, boot_jobs=f"{_APT}\n{job}"), tmp_path)
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
        assert ", running, " in vm.boot(site_of_l1(world, tmp_path)).observed
        assert world.boot_states == []


def test_settings_that_the_engine_did_not_take_fail(tmp_path: Path) -> None:
    world = fakes.World()
    site = site_of_l1(world, tmp_path)
    assert vm.settings(site).ok
    world.accepted = {"nested": "off"}
    seen = vm.settings(site)
    assert not seen.ok
    assert "nested" in seen.hint


def test_a_machine_that_does_not_run_blocks(tmp_path: Path) -> None:
    world = fakes.World()
    site = site_of_l1(world, tmp_path)
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
    changes: dict[str, Any], paravirt: Any, ok: bool, tmp_path: Path
) -> None:
    site = site_of_l1(fakes.World(l1_facts=changes), tmp_path)
    site.tools.machine.spec = replace(site.tools.machine.spec, paravirt=paravirt)
    assert guest.paravirt(site).ok is ok


def test_kvm_and_cpu_are_what_l1_itself_finds(tmp_path: Path) -> None:
    assert guest.kvm(site_of_l1(fakes.World(), tmp_path)).ok
    broken = site_of_l1(fakes.World(kvm_ok=False), tmp_path)
    assert guest.cpu(broken).ok
    seen = guest.kvm(broken)
    assert not seen.ok
    assert "entry failed" in seen.observed
    cpu = probed.cpu_facts()["cpu"] | {"flags": ["hypervisor"], "nested_paging": None}
    assert not guest.cpu(site_of_l1(fakes.World(l1_facts={"cpu": cpu}), tmp_path)).ok


@pytest.mark.parametrize("flags", [["hypervisor"], ["hypervisor", "svm"]])
def test_the_engines_own_word_on_nesting_is_shown_with_what_the_vm_has(
    flags: list[str], tmp_path: Path
) -> None:
    """On a Mac that line of VBox.log is why: it says who withheld it, and the flags alone do not."""
    cpu = probed.cpu_facts()["cpu"] | {"flags": flags}
    site = site_of_l1(fakes.World(l1_facts={"cpu": cpu}), tmp_path)
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


def _without_device(tmp_path: Path, changes: dict[str, Any] = _ABSENT, **facts: Any) -> Site:
    device = probed.kvm_probe()["device"] | changes
    probe = probed.kvm_probe(device=device, real_mode=None, long_mode=None)
    return site_of_l1(fakes.World(probe=probe, l1_facts=facts), tmp_path)


@pytest.mark.parametrize("lines", [None, [], _WAS_LOADED])
@pytest.mark.parametrize("device", [_ABSENT, _EMPTY])
def test_a_module_that_was_kept_out_says_nothing_of_the_processor(
    device: dict[str, Any], lines: list[str] | None, tmp_path: Path
) -> None:
    site = _without_device(tmp_path, device, modules={"kvm": {}}, kernel_lines=lines)
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
            "cpu": probed.cpu_facts()["cpu"] | {"flags": ["vmx"]},
        },
        {"kernel_lines": ["kvm: disabled by bios"]},
        {"kernel_lines": ["kvm: enabling virtualization on CPU0 failed"]},
        # theory.experiment asks where the processor offers nothing, too: that is its finding.
        {"cpu": probed.cpu_facts()["cpu"] | {"flags": ["hypervisor"], "nested_paging": None}},
    ],
)
def test_a_missing_device_is_evidence_once_the_processor_was_asked(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    seen = guest.kvm(_without_device(tmp_path, **facts))
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
def test_the_other_vendors_module_says_nothing_of_this_processor(line: str, tmp_path: Path) -> None:
    modules = {"kvm": {}, "kvm_intel": {"nested": "Y"}}
    site = _without_device(tmp_path, modules=modules, kernel_lines=[line])
    with pytest.raises(BlockedError, match="has not loaded kvm_amd"):
        guest.kvm(site)


@pytest.mark.parametrize("line", ["kvm: no hardware support", "kvm_amd: CPU 0 isn't AMD or Hygon"])
def test_amds_module_says_nothing_of_intels_processor(line: str, tmp_path: Path) -> None:
    cpu = probed.cpu_facts()["cpu"] | {"flags": ["vmx"]}
    site = _without_device(tmp_path, cpu=cpu, modules={"kvm_amd": {}}, kernel_lines=[line])
    with pytest.raises(BlockedError, match="has not loaded kvm_intel"):
        guest.kvm(site)


def test_a_report_from_before_failures_had_a_kind_is_read(tmp_path: Path) -> None:
    """As a clear Linux's, in which the module of the other vendor was loaded."""
    device = {"exists": False, "opened": False, "api_version": None, "mode": "", "owner": "", "group": ""}
    probe = {"device": device | {"error": "there is no /dev/kvm"}, "real_mode": None, "long_mode": None}
    facts = probed.cpu_facts(modules={"kvm": {}, "kvm_intel": {"nested": "Y"}})
    facts["kernel_lines"] = ["[    0.894716] kvm: no hardware support"]
    site = site_of_l1(fakes.World(), tmp_path)
    site.facts.guest = KvmFacts.model_validate(
        {"probe": {"schema": "lab.kvm_probe/1", **probe}, "facts": facts}
    )
    with pytest.raises(BlockedError, match="has not loaded kvm_amd"):
        guest.kvm(site)


@pytest.mark.parametrize("lines", [None, [], _WAS_LOADED])
def test_a_device_missing_beside_its_module_settles_nothing(lines: list[str] | None, tmp_path: Path) -> None:
    with pytest.raises(InconclusiveError, match="kvm_amd is loaded, and the kernel does not say"):
        guest.kvm(_without_device(tmp_path, modules=_LOADED, kernel_lines=lines))


def test_another_kind_of_processor_is_no_evidence(tmp_path: Path) -> None:
    cpu = probed.cpu_facts()["cpu"] | {"flags": []}
    with pytest.raises(BlockedError, match="riscv64"):
        guest.cpu(site_of_l1(fakes.World(l1_facts={"machine": "riscv64", "cpu": cpu}), tmp_path))


def test_a_signature_that_cannot_be_read_is_not_none(tmp_path: Path) -> None:
    cpu = probed.cpu_facts()["cpu"] | {"hypervisor": None}
    with pytest.raises(InconclusiveError, match="signature"):
        guest.paravirt(site_of_l1(fakes.World(l1_facts={"cpu": cpu}), tmp_path))


@pytest.mark.parametrize("ok", [True, False])
def test_a_container_is_probed_as_l1_is(ok: bool, tmp_path: Path) -> None:
    assert container.kvm(site_of_l1(fakes.World(kvm_ok=ok), tmp_path)).ok is ok


def test_a_container_probe_that_was_killed_settles_nothing(tmp_path: Path) -> None:
    failed = probed.kvm_entry(False, started=False, failure="killed", error="it was killed by SIGKILL")
    killed = probed.kvm_probe(long_mode=failed)
    for rung in (guest.kvm, container.kvm):
        site = site_of_l1(fakes.World(probe=killed), tmp_path)
        with pytest.raises(InconclusiveError, match="killed by SIGKILL"):
            rung(site)
        assert "SIGKILL" in str(site.facts), "it is kept all the same"


@pytest.mark.parametrize("failure", ["absent", "permission"])
def test_a_device_that_docker_does_not_hand_on_is_no_word_of_kvms(failure: str, tmp_path: Path) -> None:
    device = probed.kvm_probe()["device"] | {"opened": False, "api_version": None}
    device |= {"failure": failure, "error": "/dev/kvm: EPERM (Operation not permitted)"}
    probe = probed.kvm_probe(device=device, real_mode=None, long_mode=None)
    with pytest.raises(InconclusiveError, match="EPERM"):
        container.kvm(site_of_l1(fakes.World(probe=probe), tmp_path))


def _device(**changes: Any) -> Device:
    return Device(**(_DEVICE.model_dump() | changes))


def test_an_engine_that_cannot_be_used_blocks() -> None:
    site = site_of(FakeEmulator())
    site.tools.engine = fakes.FakeEngine(fakes.World(available=Availability(False, "no qemu", "install it")))  # type: ignore[misc]
    with pytest.raises(BlockedError, match="no qemu"):
        host.engine(site)
    assert site.engine_facts is None


def test_docker_that_does_not_answer_blocks(tmp_path: Path) -> None:
    with pytest.raises(BlockedError, match="Docker"):
        docker.engine(site_of_l1(fakes.World(docker=""), tmp_path))


def test_rungs_without_an_emulator_are_skipped_with_the_reason() -> None:
    site = site_of(FakeEmulator())
    assert set(LADDER.skips(site)) == {"android.boot", "android.usable"}
    site.emulator = None
    assert set(LADDER.skips(site)) == {"nested.boot", "nested.adb", "android.boot", "android.usable"}
    assert not set(LADDER.checks(site)) & set(LADDER.skips(site))
