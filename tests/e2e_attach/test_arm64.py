"""An arm64 machine, attached: its KVM, a container with it, and the canary under it, in QEMU's emulated EL2.

The tests share one VM and stand on each other: they run in the order of this file. It is slow: twenty
minutes, and half an hour more for its disk, once.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.ladder.rungs import LADDER
from lab.model.domain import Claim
from lab.probes.kvm import SMCCC_SIGNATURE, CpuFacts, Probe, script
from tests.e2e.conftest import Lab, lab_environment
from tests.e2e_attach import armvm
from tests.e2e_attach.armvm import ArmVm

pytestmark = [
    pytest.mark.timeout(5400),
    pytest.mark.skipif(bool(armvm.missing()), reason=f"missing: {armvm.missing()}"),
]
NAME = "arm"


@pytest.fixture(scope="module")
def vm() -> Iterator[ArmVm]:
    folder = Path(tempfile.mkdtemp(prefix="lab-arm64-"))
    try:
        with armvm.running(folder / "vm") as vm:
            yield vm
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def docker_before(vm: ArmVm) -> str:
    """Docker's containers, images, volumes and networks, as they were."""
    return vm.docker_has()


@pytest.fixture(scope="module")
def lab(vm: ArmVm, docker_before: str) -> Iterator[Lab]:
    folder = Path(tempfile.mkdtemp(prefix="lab-arm64-state-"))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{vm.port} {vm.host_key()}\n")
    (folder / "ssh_config").write_text(
        f"Host {NAME}\n  HostName 127.0.0.1\n  Port {vm.port}\n  User dev\n  IdentityFile {vm.key}\n"
        f"  UserKnownHostsFile {folder / 'known_hosts'}\n"
    )
    slow = {"LAB_DEADLINES__NESTED_BOOT": "1200", "LAB_DEADLINES__SSH": "600"}
    env = lab_environment(folder / "state") | slow
    for name in ("LAB_ENGINE", "LAB_IMAGE", "LAB_EMULATOR__KIND"):
        env.pop(name, None)
    lab = Lab(folder / "state", env)
    yield lab
    lab.run("lab.detach", NAME, "--forget")
    shutil.rmtree(folder, ignore_errors=True)


def test_the_probe_runs_a_guest_there_by_ioctls(vm: ArmVm) -> None:
    """What lab's scripts say as the machine's own user runs them, without lab."""
    probe = Probe.model_validate_json(vm.python(script("kvm_probe.py"), "--seconds", "60"))
    assert probe.el1 is not None and probe.ok, probe.why
    assert probe.el1.exits == ["mmio", "mmio", "system_event"]
    facts = CpuFacts.model_validate_json(vm.python(script("cpu_facts.py"), user="owner", sudo=True))
    assert facts.machine == "aarch64" and facts.cpu.el2 is True
    assert facts.cpu.hypervisor is None, "the machine itself is emulated, and no KVM answers it"


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ((0x14000000,), "did not end in 20 s"),  # branch to itself
        ((0xAA0403E0, 0xD4000002), "halted after writing []"),
        ((0x39000060, 0xAA0403E0, 0xD4000002), "halted after writing"),  # once, and another byte
    ],
)
def test_a_guest_that_spins_or_lies_is_not_ok(vm: ArmVm, program: tuple[int, ...], error: str) -> None:
    """These are what a false green would look like."""
    replaced = f'ARM_PROGRAM = struct.pack("<{len(program)}I", *{program})\nif __name__ == "__main__":'
    text = script("kvm_probe.py").replace('if __name__ == "__main__":', replaced)
    probe = Probe.model_validate_json(vm.python(text, "--seconds", "20"))
    assert probe.el1 is not None and not probe.ok and error in probe.why


def test_it_is_attached_as_what_it_is(lab: Lab) -> None:
    config = str(lab.state.parent / "ssh_config")
    document = lab.json("lab.attach", "--ssh", NAME, "--ssh-config", config)
    assert document["notes"][0].startswith("it is a VM under QEMU's emulation, by SSH, Docker 26.1.5")


def test_up_ends_with_nesting_confirmed(lab: Lab) -> None:
    document = lab.json("lab.up", "--name", NAME)
    rungs = {rung["rung"]: rung for rung in document["rungs"]}
    for name in LADDER.required(Claim.NESTING):
        assert rungs[name]["status"] == "passed", rungs[name]
    assert document["claims"]["nesting"]["verdict"] == "confirmed"
    assert rungs["guest.cpu"]["observed"].startswith("EL2")
    assert rungs["guest.kvm"]["observed"] == rungs["container.kvm"]["observed"] == "EL1: runs"
    for rung in ("nested.boot", "nested.adb"):
        assert SMCCC_SIGNATURE in rungs[rung]["observed"]
    cell = document["cell"]
    assert (cell["architecture"], cell["emulator"], cell["nesting"]) == ("aarch64", "canary", "emulated")
    assert document["claims"]["android"]["verdict"] == "blocked"


def test_it_is_left_without_what_lab_made(lab: Lab, vm: ArmVm, docker_before: str) -> None:
    lab.json("lab.detach", NAME)
    assert vm.docker_has() == docker_before
    assert "lab-" not in vm.ssh("ls /var/tmp")[1]
