"""The lines are those of real logs (VirtualBox#237, #336, #527, #603, WSL#798, virtualbox-kvm#3 and others).

Those of the interpreter are from the source (HM.cpp). Where excerpts were joined, time stamps are made up.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.engines.virtualbox.vboxlog import RunLog, parse, settings

INTEL = """\
00:00:01.227055 ********************* End of CFGM dump **********************
00:00:01.227155 HM: HMR3Init: VT-x w/ nested paging and unrestricted guest execution hw support
00:00:01.227211 CPUM: fXStateHostMask=0x7; host XCR0=0x1f
00:00:01.227848 CPUM: SetGuestCpuIdFeature: Enabled LONG MODE
"""
AMD = """\
00:00:00.400000 HM: HMR3Init: AMD-V w/ nested paging
00:00:00.716598 HM:   NESTED_PAGING
00:00:00.716600 HM:   NST_VIRT_VMCB_ADDR_CHK
00:00:00.716609 HM: Enabled SVM
00:00:00.716609 HM:   Enabled nested paging
00:00:00.716612 HM: VT-x/AMD-V init method: Local
"""
CONFIGURATION = """\
00:00:00.647583 [/CPUM/] (level 1)
00:00:00.647583   Enable64bit        <integer> = 0x0000000000000001 (1)
00:00:00.647584   GuestCpuName       <string>  = "host" (cb=5)
00:00:00.647584   NestedHWVirt       <integer> = 0x0000000000000000 (0)
00:00:00.647585   PortableCpuIdLevel <integer> = 0x0000000000000000 (0)
"""
CPUID = """\
00:00:11.660052   MONITOR - MONITOR/MWAIT instructions                    = 1 (1)
00:00:11.660056   VMX - Virtual Machine Extensions                        = 0 (1)
00:00:11.660057   SMX - Safer Mode Extensions                             = 0 (1)
00:00:11.661003   SVM - AMD Secure Virtual Machine extensions             = 0 (0)
"""
WINDOWS = """\
00:00:01.245390   UseNEMInstead      <integer> = 0x0000000000000000 (0)
00:00:01.245573 HM: HMR3Init: Attempting fall back to NEM: VT-x is not available
00:00:01.250000 NEM: info: Found optional import WinHvPlatform.dll!WHvQueryGpaRangeDirtyBitmap.
00:00:01.264000 NEM: WHvCapabilityCodeHypervisorPresent is TRUE
00:00:01.300000 NEM:
00:00:01.300001 NEM: NEMR3Init: Snail execution mode is active!
00:00:01.300002 NEM: Note! VirtualBox is not able to run at its full potential in this execution mode.
"""
WINDOWS_6_1 = """\
00:00:02.468829 HM: HMR3Init: Attempting fall back to NEM: VT-x is not available
00:00:02.522748 NEM: WHvCapabilityCodeHypervisorPresent is TRUE, so this might work...
00:00:02.523612 NEM: Created partition 0000000001d74800.
00:00:02.523713 NEM: NEMR3Init: Active.
00:00:02.523721 MM: cbHyperHeap=0x240000 (2359296)
"""
MACOS = """\
00:00:01.345849 HM: HMR3Init: Attempting fall back to NEM: Driverless mode
00:00:01.349809 NEM:  info: Found optional import Hypervisor!hv_capability.
00:00:01.349867 NEM:  info: Found optional import Hypervisor!hv_vmx_vcpu_read_shadow_vmcs.
00:00:01.352000 NEM: NEMR3Init: Turtle execution mode is active!
"""
INTERPRETER = """\
00:00:00.100000 HM: HMR3Init: Attempting fall back to NEM: Driverless mode
00:00:00.100001 NEM: NEMR3Init: Not available.
00:00:00.100002 HM: HMR3Init: Falling back on IEM: NEM not available
"""
KVM_BACKEND = """\
00:00:00.670160 NEM:                   KVM_CAP_NESTED_STATE: 0x2080 (8320)
00:00:00.671000 NEM: NEMR3Init: Turtle execution mode is active!
"""
REFUSED = """\
00:00:00.500000 HM: HMR3Init: AMD-V
00:00:00.5 VMSetError: Cannot enable nested VT-x/AMD-V without nested-paging and unrestricted guest execution!
00:00:00.500002 Power up failed (vrc=VERR_CPUM_INVALID_HWVIRT_CONFIG, hrc=NS_ERROR_FAILURE (0X80004005))
"""


@pytest.mark.parametrize(
    ("text", "engine", "line"),
    [
        (
            INTEL,
            "hwvirt",
            "HM: HMR3Init: VT-x w/ nested paging and unrestricted guest execution hw support",
        ),
        (AMD, "hwvirt", "HM: HMR3Init: AMD-V w/ nested paging"),
        ("00:00:00.1 HM: HMR3Init: VT-x\n", "hwvirt", "HM: HMR3Init: VT-x"),
        (WINDOWS, "native", "NEM: NEMR3Init: Snail execution mode is active!"),
        (WINDOWS_6_1, "native", "NEM: NEMR3Init: Active."),
        (MACOS, "native", "NEM: NEMR3Init: Turtle execution mode is active!"),
        (KVM_BACKEND, "native", "NEM: NEMR3Init: Turtle execution mode is active!"),
        (INTERPRETER, "interpreter", "HM: HMR3Init: Falling back on IEM: NEM not available"),
        (
            "00:00:00.1 HM: HMR3Init: Falling back on IEM\r\n",
            "interpreter",
            "HM: HMR3Init: Falling back on IEM",
        ),
        ("00:00:01.2 HM: HMR3Init: Attempting fall back to NEM: VT-x is not available\n", "", ""),
        ("00:00:01.2 HM: VT-x/AMD-V init method: Local\n", "", ""),
        ("", "", ""),
    ],
)
def test_the_engine_that_ran(text, engine, line):
    log = parse(text)
    assert (log.engine, log.engine_line) == (engine, line)


def test_nested_paging_is_another_matter_than_nested_virtualization():
    assert parse(AMD).nested_lines == ()


def test_what_became_of_nesting():
    log = parse(CONFIGURATION + CPUID)
    assert log.nested_lines == (
        "NestedHWVirt <integer> = 0x0000000000000000 (0)",
        "VMX - Virtual Machine Extensions = 0 (1)",
        "SVM - AMD Secure Virtual Machine extensions = 0 (0)",
    )
    assert parse(KVM_BACKEND).nested_lines == ("NEM: KVM_CAP_NESTED_STATE: 0x2080 (8320)",)


NO_NESTING = "CPUM: Warning! Can't turn on nested VT-x/AMD-V when NEM is used! (later)"
MAC = f"""\
00:00:01.811223 NEM: NEMR3Init: Turtle execution mode is active!
00:00:01.815114 {NO_NESTING}
"""


def test_a_mac_says_that_it_takes_the_setting_and_gives_nothing():
    log = parse(MAC)
    assert (log.engine, log.nested_refused) == ("native", NO_NESTING)
    assert settings(MAC)["nesting_refused"] == NO_NESTING
    for text in (INTEL, CPUID, KVM_BACKEND, REFUSED, f"00:00:09.1 VMMDev: Guest Log: {NO_NESTING}\n"):
        assert parse(text).nested_refused == "" and "nesting_refused" not in settings(text)
    assert len(parse(f"{NO_NESTING}{'x' * 5000}").nested_refused) == 200


def test_a_refused_start():
    log = parse(REFUSED)
    assert log.engine == "hwvirt"
    assert len(log.nested_lines) == 1


def test_the_guest_has_no_say():
    spoofed = "".join(
        f"00:00:09.000000 VMMDev: Guest Log: {line}\n"
        for line in ("HM: HMR3Init: VT-x w/ nested paging", "VERR_NO_MEMORY", "CPUM: nested on")
    )
    assert parse(spoofed) == RunLog()


def test_a_log_that_repeats_itself_stays_short():
    assert len(parse("".join(f"00:00:09.1 CPUM: nested {n}\n" for n in range(500))).nested_lines) == 40


FRAGMENTS = [*INTEL.split(), *CPUID.split(), *WINDOWS.split(), "\n", "\r", "\x00", "\u2028", "00:00:01.2 "]


@given(st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS)).map(" ".join)))
def test_any_text_is_read(text):
    log = parse(text)
    assert bool(log.engine) == bool(log.engine_line)
    assert all("\n" not in line for line in log.nested_lines)
