"""Makes this Python tell of a Mac (README.md). Python imports it before anything else, by PYTHONPATH."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

LINUX_ONLY: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *("O_DIRECT", "O_LARGEFILE", "O_NOATIME", "O_PATH", "O_RSYNC", "O_TMPFILE"),
        *("accept4", "copy_file_range", "eventfd", "eventfd_read", "eventfd_write", "fdatasync", "getrandom"),
        *("getresgid", "getresuid", "getxattr", "listxattr", "memfd_create", "pidfd_open", "pipe2"),
        *("posix_fadvise", "posix_fallocate", "removexattr", "sched_getaffinity", "sched_setaffinity"),
        *("sched_getscheduler", "sched_setscheduler", "sched_getparam", "sched_setparam", "setns"),
        *("setresgid", "setresuid", "setxattr", "splice", "unshare"),
    ),
    select: ("EPOLLIN", "EPOLLOUT", "epoll"),
    signal: ("SIGPWR", "SIGSTKFLT", "pidfd_send_signal", "sigtimedwait", "sigwaitinfo"),
    socket: (
        *("AF_NETLINK", "AF_PACKET", "AF_VSOCK", "SCM_CREDENTIALS", "SO_PEERCRED"),
        *("SOCK_CLOEXEC", "SOCK_NONBLOCK", "TCP_USER_TIMEOUT"),
    ),
    fcntl: ("F_ADD_SEALS", "F_GETPIPE_SZ", "F_OFD_GETLK", "F_OFD_SETLK", "F_OFD_SETLKW", "F_SETPIPE_SZ"),
    resource: ("RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_OFILE", "RLIMIT_RTPRIO", "prlimit"),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI"),
}
"""What macOS's Python does not have, by the availability notes of Python's library reference."""

PROCESS_LINUX_ONLY = ("cpu_affinity", "cpu_num", "io_counters", "ionice", "memory_maps", "rlimit")
"""Methods that psutil.Process has on Linux and not on macOS."""
OPEN_FILES = 256
"""launchctl limit maxfiles: the soft limit of a process on macOS."""


class Memory(NamedTuple):
    """psutil's svmem on macOS."""

    total: int
    available: int
    percent: float
    used: int
    free: int
    active: int
    inactive: int
    wired: int


def wear(mac: dict[str, Any]) -> None:
    # psutil chooses its system when it is imported: it stays Linux's, and is taught a Mac's answers.
    import psutil

    teach(psutil, mac)
    for module, names in LINUX_ONLY.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "darwin"
    os.uname = lambda: os.uname_result(mac["uname"])
    os.cpu_count = lambda: int(mac["sysctl"]["hw.logicalcpu"])
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        os.process_cpu_count = os.cpu_count
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


def teach(psutil: Any, mac: dict[str, Any]) -> None:
    """Memory is the recorded Mac's; processes are this machine's, read where the mask hides /proc."""
    total, free, inactive = int(mac["sysctl"]["hw.memsize"]), mac["free"], mac["inactive"]
    available = free + inactive  # psutil's sum on macOS: _psosx.virtual_memory
    percent = round(100 * (1 - available / total), 1)
    memory = Memory(total, available, percent, total - available, free, inactive, inactive, 0)

    def denied(*_: object, **__: object) -> None:
        raise psutil.AccessDenied

    psutil.virtual_memory = lambda: memory
    psutil.PROCFS_PATH = "/.mask/proc"
    psutil.net_connections = denied  # only root may ask on macOS (psutil's documentation)
    for name in PROCESS_LINUX_ONLY:
        if hasattr(psutil.Process, name):  # some are made only where /proc can be read
            delattr(psutil.Process, name)


try:
    wear(json.loads(Path("/.mask/mac.json").read_text()))
except BaseException:
    traceback.print_exc()
    os._exit(70)  # without its mask nothing may run: Python itself would go on
