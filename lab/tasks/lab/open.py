"""lab.open: an emulator's screen in the user's own browser.

The address has the screen's password in it, and every user of this machine sees what a program was started
with. So the browser is given a page that only its owner may read, and that page leads on.
"""

from __future__ import annotations

import os
import sys
from html import escape
from pathlib import Path

from lab import emulators
from lab.core import files, proc
from lab.core.errors import BlockedError
from lab.documents.labs import LabOpen
from lab.records.labs import Lab
from lab.tasks.emulator.device import android_at
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_DOOR = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>The emulator's screen</title>
<p><a href="{url}">The emulator's screen</a></p>
</html>
"""


def open_(session: Session, name: str, emulator: str = emulators.MAIN, only_print: bool = False) -> Reply:
    """Open noVNC. The password is given to the browser, or to a person's terminal, and to nothing else.

    The page that gives it stays, since nobody can tell when a browser has read it: until the next
    `lab.open`, and no longer than the VM runs. It lies beside the password itself.
    """
    bench = Workbench.open(session, name)
    try:
        android = android_at(bench, emulator, "lab.open")
        bench.require_running()
        address = bench.addresses(emulator).get("novnc")
        if address is None:
            raise BlockedError(f"{emulator} has no forward for noVNC", hint="`invoke emulator.up` makes it")
        secret = android.browser_url(bench.reach(emulator))
    finally:
        bench.close()
    plain = f"http://{address}/"
    opened = not only_print and _has_display() and _show(bench.lab, secret)
    if only_print:
        line = secret if sys.stdout.isatty() else plain  # a pipe or a file keeps what it is given
    elif opened:
        line = f"opened {plain}   (if the browser may not read lab's folder: `--print`)"
    else:
        line = f"{plain}   (no browser here; `--print` on a terminal shows it with its password)"
    return Reply.of(LabOpen(lab=name, emulator=emulator, address=plain, opened=opened), line)


def shut(lab: Lab) -> None:
    """Remove the page that `lab.open` left."""
    _door(lab).unlink(missing_ok=True)


def _show(lab: Lab, secret: str) -> bool:
    """Have the browser show the page that leads on to `secret`; whether one could be started."""
    files.write_atomic(_door(lab), _DOOR.format(url=escape(secret)))
    opened = False
    try:
        opened = proc.browse(_door(lab).as_uri())
    finally:
        if not opened:
            shut(lab)
    return opened


def _door(lab: Lab) -> Path:
    return lab.folder.absolute() / "keys" / "screen.html"


def _has_display() -> bool:
    """Whether a browser would have a screen. Without one Python would start one in the terminal."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True
