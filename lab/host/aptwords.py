"""What apt and dpkg say when something is in the way: the same on this host and in L1.

From the sources of apt (apt-pkg, methods), dpkg (lib/dpkg) and debconf.
"""

from __future__ import annotations

import re

LOCKED = re.compile(
    r"[Cc]ould not get lock|[Uu]nable to lock|[Uu]nable to acquire the dpkg|"
    r"(?:is|was) locked by another process"
)
"""Another package manager is at work: to be waited for. Debconf's lock fails the package that asked it."""

BROKEN_OFF = "dpkg --configure -a"
"""An installation was broken off earlier: apt names the command that finishes it."""
