"""lab: does the x86 Android emulator run in a container in a VM on this host?

L0 is the host's hypervisor, L1 the lab VM, L2 the guest under KVM in a container in L1.
"""

import sys

__version__ = "0.1.0"

if sys.platform in ("win32", "cygwin"):
    raise SystemExit(
        "lab does not run on Windows: it needs Linux or macOS.\n"
        "hint: on Windows 11, install WSL2 with Debian or Ubuntu, and run `bin/invoke lab.up` in it"
    )
