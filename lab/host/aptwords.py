"""What apt and dpkg say when something is in the way: the same on this host and in L1.

From the sources of apt (apt-pkg, methods), dpkg (lib/dpkg) and debconf.
"""

from __future__ import annotations

import re

WAITS = re.compile(r"^\s*Waiting for cache lock", re.MULTILINE)
"""apt itself waits for another package manager, and then goes on (DPkg::Lock::Timeout)."""

LOCKED = re.compile(
    r"(?m)^(?!\s*Waiting for cache lock).*(?:[Cc]ould not get lock|[Uu]nable to lock|"
    r"[Uu]nable to acquire the dpkg|(?:is|was) locked by another process)"
)
"""It failed because another package manager is at work: to be waited for, and tried again.

Debconf's lock fails the package that asked it.
"""

BROKEN_OFF = "dpkg --configure -a"
"""An installation was broken off earlier: apt names the command that finishes it."""
