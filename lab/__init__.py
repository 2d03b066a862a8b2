"""lab: does the x86 Android emulator run in a container in a VM on this host?

L0 is the host's hypervisor, L1 the lab VM, L2 the guest under KVM in a container in L1.
"""

__version__ = "0.1.0"
