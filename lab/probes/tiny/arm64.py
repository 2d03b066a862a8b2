"""The tiny guest for arm64: it writes a byte twice to an address that is no memory, and powers off by PSCI.

It is entered in EL1 with the MMU off, as every kernel is. The same bytes run on any 64-bit Arm processor.
Linux: Documentation/virt/kvm/api.rst; PSCI: Arm's DEN0022.
"""

import array
import mmap
import os
import struct
from typing import Optional

from lab.probes.tiny.talk import (
    DEVICE,
    EXIT_MMIO,
    EXIT_SYSTEM_EVENT,
    Say,
    ask,
    give_memory,
    give_processor,
    run,
)

ARM_CODE, ARM_DEVICE = 0x1000, 0x9000000
# add w0,w1,w2; strb w0,[x3]; strb w0,[x3]; mov x0,x4; hvc #0; strb w0,[x3]; b . : the call must not return.
ARM_PROGRAM = struct.pack(
    "<7I", 0x0B020020, 0x39000060, 0x39000060, 0xAA0403E0, 0xD4000002, 0x39000060, 0x14000000
)
PSCI_SYSTEM_OFF, PSCI_0_2 = 0x84000008, 1 << 2  # the call; the virtual processor's feature that answers it
SHUTDOWN = 1  # of KVM_EXIT_SYSTEM_EVENT
IPA_BITS = 165  # KVM_CAP_ARM_VM_IPA_SIZE
REGISTER, PC = 0x6030000000100000, 64  # KVM's number of x0; of xN and the pc in 32-bit words after it


def el1(say: Say) -> None:
    """Run the tiny guest once; `say(**facts)` is called as facts become known."""
    kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    bits = ask(kvm, "KVM_CHECK_EXTENSION", IPA_BITS)
    # 0 stands for 40 bits of address, of which Apple's processors have fewer.
    vm = ask(kvm, "KVM_CREATE_VM", bits if 32 <= bits < 40 else 0)
    memory = give_memory(vm)
    memory[ARM_CODE : ARM_CODE + len(ARM_PROGRAM)] = ARM_PROGRAM
    vcpu, area = give_processor(kvm, vm)
    target = bytearray(32)  # struct kvm_vcpu_init: the target, and seven words of features
    ask(vm, "KVM_ARM_PREFERRED_TARGET", target)
    struct.pack_into("<I", target, 4, struct.unpack_from("<I", target, 4)[0] | PSCI_0_2)
    ask(vcpu, "KVM_ARM_VCPU_INIT", target)
    first, second = os.urandom(2)
    registers = {1: first, 2: second, 3: ARM_DEVICE, 4: PSCI_SYSTEM_OFF}
    for number, value in [*((2 * name, value) for name, value in registers.items()), (PC, ARM_CODE)]:
        held = array.array("Q", [value])
        ask(vcpu, "KVM_SET_ONE_REG", struct.pack("<QQ", REGISTER | number, held.buffer_info()[0]))
    run(vcpu, area, device_byte, is_off, (first + second) & 0xFF, say)


def device_byte(reason: int, area: mmap.mmap) -> Optional[int]:  # noqa: UP045 - as Python 3.6 has it
    """The byte that this exit wrote to the address without memory."""
    address, data, size, writing = struct.unpack_from("<Q8sIB", area, 32)
    if reason == EXIT_MMIO and (address, size, writing) == (ARM_DEVICE, 1, 1):
        return int(data[0])
    return None


def is_off(reason: int, area: mmap.mmap) -> bool:
    """The guest powered itself off."""
    return reason == EXIT_SYSTEM_EVENT and struct.unpack_from("<I", area, 32)[0] == SHUTDOWN
