"""lab.open: an emulator's screen in the user's own browser."""

from __future__ import annotations

import os
import sys

from rich.console import Console

from lab import emulators, proc
from lab.commands.device import android_at
from lab.commands.emulator import require_running
from lab.commands.session import Reply, Session
from lab.commands.workbench import Workbench
from lab.errors import BlockedError


def open_(session: Session, name: str, emulator: str = emulators.MAIN, only_print: bool = False) -> Reply:
    """Open noVNC. The password is given to the browser, or to a person's terminal, and to nothing else."""
    bench = Workbench.open(session, name)
    try:
        android = android_at(bench, emulator, "lab.open")
        require_running(bench)
        address = bench.addresses(emulator).get("novnc")
        if address is None:
            raise BlockedError(f"{emulator} has no forward for noVNC", hint="`invoke emulator.up` makes it")
        secret = android.browser_url(bench.reach(emulator))
    finally:
        bench.close()
    plain = f"http://{address}/"
    opened = not only_print and _has_display() and proc.browse(secret)
    document = {
        "schema": "lab.open/1",
        "lab": name,
        "emulator": emulator,
        "address": plain,
        "opened": opened,
    }

    def tell(console: Console) -> None:
        if only_print and sys.stdout.isatty():
            line = secret
        elif only_print:
            line = plain  # a pipe or a file keeps what it is given
        elif opened:
            line = f"opened {plain}"
        else:
            line = f"{plain}   (no browser here; `--print` on a terminal shows it with its password)"
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    return Reply(document, tell)


def _has_display() -> bool:
    """Whether a browser would have a screen. Without one Python would start one in the terminal."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
