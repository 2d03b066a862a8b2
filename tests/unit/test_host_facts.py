import json
import os
import platform
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.deadline import cancelled
from lab.core.errors import InterruptedByUser
from lab.host import facts
from lab.host.cpu import Cpu, parse_cpuinfo
from lab.host.cpuid import HARDWARE_SIGNATURES
from lab.host.facts import HostFacts, mac_cpu, mac_facts, parse_os_release, parse_sysctl, read, read_kvm

INTEL = """\
processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 158
model name	: Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz
stepping	: 10
microcode	: 0xf0
cpu MHz		: 4300.012
cache size	: 12288 KB
physical id	: 0
flags		: fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge nx rdtscp lm constant_tsc pni \
dtes64 monitor ds_cpl vmx smx est tm2 ssse3 fma cx16 avx2 ept ept_ad
vmx flags	: vnmi preemption_timer invvpid ept_x_only ept_ad ept_1gb flexpriority tsc_offset vtpr
bugs		: cpu_meltdown spectre_v1
bogomips	: 6399.96

processor	: 1
vendor_id	: GenuineIntel
model name	: Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz
"""
AMD_GUEST = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 23
model name	: AMD EPYC 7R32
flags		: fpu vme de pse tsc msr pae nx mmxext lm hypervisor lahf_lm cmp_legacy svm cr8_legacy npt la57
"""
CLOUD = """\
processor	: 0
vendor_id	: GenuineIntel
model name	: Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz
flags		: fpu vme de pse tsc msr pae nx lm hypervisor avx512f
"""
ARM = """\
processor	: 0
BogoMIPS	: 50.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32
CPU implementer	: 0x41
CPU part	: 0xd0c
"""
INTEL_MAC = """\
kern.osproductversion: 13.6.7
kern.osrelease: 22.6.0
kern.bootsessionuuid: 8C1E0A52-7A0B-4E2C-9E43-6E2A4D7D5B11
kern.hv_support: 1
kern.hv_vmm_present: 0
hw.model: MacBookPro16,1
machdep.cpu.brand_string: Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz
machdep.cpu.vendor: GenuineIntel
machdep.cpu.features: FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR SSE3 PCLMULQDQ MON VMX EST TM2 SSSE3
"""
M2_MAC = """\
kern.osproductversion: 14.5
kern.osrelease: 23.5.0
kern.bootsessionuuid: 2F0D6C3B-53C9-4C0B-8D57-2B6F0F0AB1E4
kern.hv_support: 1
kern.hv_vmm_present: 0
hw.model: Mac14,9
hw.optional.arm64: 1
machdep.cpu.brand_string: Apple M2 Pro
"""
MAC_VM = """\
kern.hv_support: 0
kern.hv_vmm_present: 1
machdep.cpu.features: FPU VME SSE3 VMM
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Puts a program before all others on PATH; gives its path."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name, content):
        path = folder / name
        path.write_text(content)
        path.chmod(0o755)
        return path

    return put


@pytest.fixture
def sysctl(tools):
    """Has macOS's sysctl print a text."""
    return lambda text: tools("sysctl", f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")


@pytest.mark.parametrize(
    ("text", "cpu"),
    [
        (INTEL, Cpu("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", "GenuineIntel", ("vmx",), False, False)),
        (AMD_GUEST, Cpu("AMD EPYC 7R32", "AuthenticAMD", ("svm",), True, True)),
        (CLOUD, Cpu("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", "GenuineIntel", (), True, False)),
        (ARM, Cpu("Arm, part 0xd0c", "Arm")),
        ("", Cpu()),
    ],
)
def test_cpuinfo(text, cpu):
    assert parse_cpuinfo(text) == cpu


def test_sysctl_of_an_intel_mac():
    values = parse_sysctl(INTEL_MAC)
    cpu = mac_cpu(values)
    assert (cpu.model, cpu.vendor) == ("Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz", "GenuineIntel")
    assert cpu.extensions == ("vmx", "hv_support")
    assert not cpu.hypervisor
    mac = mac_facts(values)
    assert (mac.model, mac.silicon) == ("MacBookPro16,1", False)


def test_sysctl_of_apple_silicon():
    values = parse_sysctl(M2_MAC)
    cpu = mac_cpu(values)
    assert (cpu.model, cpu.vendor, cpu.extensions) == ("Apple M2 Pro", "Apple", ("hv_support",))
    assert mac_facts(values).silicon


ROSETTA = """\
kern.osproductversion: 14.5
kern.hv_support: 1
kern.hv_vmm_present: 0
sysctl.proc_translated: 1
machdep.cpu.brand_string: VirtualApple @ 2.50GHz
machdep.cpu.vendor: GenuineIntel
machdep.cpu.features: FPU VME DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR SSE3 VMX SSSE3
"""


@pytest.mark.parametrize(
    "text",
    [
        ROSETTA,
        "sysctl.proc_translated: 1\nmachdep.cpu.vendor: GenuineIntel",
        "machdep.cpu.brand_string: VirtualApple @ 2.50GHz processor\nmachdep.cpu.vendor: GenuineIntel",
        "machdep.cpu.brand_string: Apple M1\nmachdep.cpu.vendor: GenuineIntel",
        "hw.optional.arm64: 1\nmachdep.cpu.vendor: GenuineIntel\nmachdep.cpu.features: VMX",
    ],
)
def test_rosetta_makes_no_intel_mac_of_one_with_apple_silicon(monkeypatch, sysctl, text):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    sysctl(text)
    here = read(signature=lambda: None)
    assert here.mac is not None and here.mac.silicon
    assert (here.arch, here.cpu.vendor, facts.architecture()) == ("arm64", "Apple", "arm64")
    assert "vmx" not in here.cpu.extensions


@pytest.mark.parametrize("program", ["#!/bin/sh\nexit 1\n", "\x7fELF and no more"])
def test_a_mac_whose_sysctl_does_not_answer_is_one_of_which_nothing_is_known(monkeypatch, tools, program):
    monkeypatch.setattr(sys, "platform", "darwin")
    tools("sysctl", program)
    here = read(signature=lambda: None)
    assert here.mac is not None and (here.os_version, here.cpu.model, here.cpu.emulated) == ("", "", None)


def test_who_is_to_stop_is_told_nothing_of_a_mac(monkeypatch, tools):
    monkeypatch.setattr(sys, "platform", "darwin")
    tools("sysctl", "#!/bin/sh\nsleep 60\n")
    cancelled.set()
    try:
        with pytest.raises(InterruptedByUser):
            read()
    finally:
        cancelled.clear()


def test_an_intel_mac_stays_one(monkeypatch, sysctl):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    text = f"{INTEL_MAC}sysctl.proc_translated: 0\n"
    sysctl(text)
    here = read(signature=lambda: None)
    assert here.mac is not None and not here.mac.silicon
    assert (here.arch, here.cpu.vendor, facts.architecture()) == ("x86_64", "GenuineIntel", "x86_64")


def test_sysctl_of_a_mac_that_is_a_virtual_machine():
    cpu = mac_cpu(parse_sysctl(MAC_VM))
    assert cpu.hypervisor
    assert cpu.extensions == ()


EMULATED = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 15
model		: 107
model name	: QEMU Virtual CPU version 2.5+
flags		: fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov syscall nx lm hypervisor lahf_lm svm
"""


@pytest.mark.parametrize(
    ("text", "signature", "board", "emulated"),
    [
        # Named as real processors are: `-accel tcg -cpu EPYC`, and the qemu64 that KVM's guests have, too.
        (EMULATED, "TCGTCGTCGTCG", "", True),
        (AMD_GUEST, "TCGTCGTCGTCG", "QEMU, Standard PC", True),
        (EMULATED, "KVMKVMKVM", "QEMU", False),
        (AMD_GUEST, "KVMKVMKVM", "Amazon EC2", False),
        (CLOUD, "Microsoft Hv", "Microsoft Corporation", False),
        (CLOUD, "VMwareVMware", "VMware, Inc.", False),
        (INTEL, "", "LENOVO", False),
        (INTEL, "", "", False),
        # What is not known is not real hardware.
        (EMULATED, None, "", None),
        (AMD_GUEST, None, "Amazon EC2", None),
        (INTEL, None, "LENOVO", None),
        (AMD_GUEST, "SomethingNew", "", None),
        (AMD_GUEST, "", "", None),  # it says that it is in a VM, and of which kind it does not
        (INTEL, "", "QEMU", None),  # `-cpu EPYC,-hypervisor`
        (INTEL, "", "Bochs", None),  # has no hypervisor, and is one
        # A name that no real processor has is a word, too, wherever KVM handed it on.
        ("model name : QEMU TCG CPU version 2.5+", "KVMKVMKVM", "", True),
        ("vendor_id : VirtualApple", None, "", True),
    ],
)
def test_emulation_is_judged_by_the_hypervisors_signature(text, signature, board, emulated):
    assert replace(parse_cpuinfo(text), signature=signature, board=board).emulated is emulated


@given(st.text(), st.text(), st.none() | st.text(), st.booleans(), st.text())
def test_only_a_known_signature_shows_real_hardware(model, vendor, signature, hypervisor, board):
    cpu = Cpu(model, vendor, (), hypervisor, False, signature, board)
    if cpu.emulated is False:
        apples = vendor == "Apple" and model.startswith("Apple, part")
        assert apples or signature in HARDWARE_SIGNATURES or (signature == "" and not hypervisor)
    assert cpu.emulated is True or signature != "TCGTCGTCGTCG"


@pytest.mark.parametrize(
    ("text", "signature", "emulated"),
    [
        (INTEL_MAC, "", False),
        (M2_MAC, "", False),
        (MAC_VM, None, None),  # sysctl says that there is a hypervisor, not which
        ("machdep.cpu.features: FPU VME", "", False),  # before kern.hv_vmm_present
        ("hw.optional.arm64: 1", None, None),
        ("", None, None),
    ],
)
def test_a_mac_is_real_when_it_says_that_it_is_no_virtual_machine(text, signature, emulated):
    cpu = mac_cpu(parse_sysctl(text))
    assert (cpu.signature, cpu.emulated) == (signature, emulated)


@pytest.mark.parametrize("text", [MAC_VM, INTEL_MAC])
def test_a_mac_that_is_a_virtual_machine_is_asked_for_the_signature(monkeypatch, sysctl, text):
    asked = []
    monkeypatch.setattr(sys, "platform", "darwin")
    sysctl(text)
    cpu = read(signature=lambda: asked.append("x") or "TCGTCGTCGTCG").cpu
    assert (cpu.emulated, asked) == ((True, ["x"]) if text == MAC_VM else (False, []))


@pytest.mark.parametrize(
    "program", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho something else\n", "\x7fELF and no more"]
)
def test_a_signature_that_cannot_be_read_is_not_known(monkeypatch, tools, program):
    monkeypatch.setattr(sys, "executable", str(tools("python3", program)))
    facts.signature.cache_clear()
    try:
        assert facts.signature() is None
        assert read().cpu.emulated is not False
    finally:
        facts.signature.cache_clear()


def test_the_signature_is_this_machines():
    cpu = read().cpu
    if sys.platform == "linux" and platform.machine() == "x86_64":
        assert (cpu.signature != "") == cpu.hypervisor


def test_os_release():
    assert parse_os_release('PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\nVERSION_ID="24.04"\n') == (
        "Ubuntu",
        "24.04",
    )
    assert parse_os_release("NAME=Gentoo\nID=gentoo\n") == ("Gentoo", "")
    assert parse_os_release("") == ("Linux", "")


def test_kvm_modules_parameters_and_device(tmp_path):
    for name, parameter, value in (
        ("kvm", "", ""),
        ("kvm_intel", "nested", "Y\n"),
        ("kvm_intel", "ept", "N\n"),
    ):
        folder = tmp_path / "sys/module" / name / "parameters"
        folder.mkdir(parents=True, exist_ok=True)
        if parameter:
            (folder / parameter).write_text(value)
    kvm = read_kvm(tmp_path)
    assert kvm.modules == ("kvm", "kvm_intel")
    assert kvm.parameters == {"kvm_intel.nested": "Y", "kvm_intel.ept": "N"}
    assert (kvm.device_mode, kvm.device_usable) == ("", False)

    (tmp_path / "dev").mkdir()
    device = tmp_path / "dev/kvm"
    device.touch()
    device.chmod(0o660)
    kvm = read_kvm(tmp_path)
    assert (kvm.device_mode, kvm.device_usable) == ("0660", True)
    assert read_kvm(tmp_path / "nothing").modules == ()


def test_this_host():
    facts = read()
    assert facts.os and facts.kernel and facts.boot_id
    assert facts.cpus >= 1
    assert 0 < facts.memory_available <= facts.memory_total
    assert (facts.mac is None) == (sys.platform != "darwin")
    assert (facts.kvm is None) == (sys.platform == "darwin")
    if facts.mac is None:
        assert facts.arch == platform.machine()
    assert json.loads(json.dumps(facts.as_dict()))["cpu"]["model"] == facts.cpu.model
    assert read().boot_id == facts.boot_id


def test_facts_come_back_from_json_as_they_were() -> None:
    here = read()
    assert HostFacts.from_dict(json.loads(json.dumps(here.as_dict()))) == here
    for damage in (None, [], {}, {"os": "Debian"}):
        with pytest.raises(ValueError, match="validation error"):
            HostFacts.from_dict(damage)
