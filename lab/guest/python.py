"""The guest's own Python: lab's scripts (lab.probes) run under it, with its standard library alone."""

from __future__ import annotations

import ast
import re
from typing import Any

from lab.core.errors import BlockedError, CommandError, LabError, UsageError
from lab.guest.ssh import Guest, Result
from lab.probes.kvm import SCRIPTS, script

OLDEST = (3, 6)
"""The oldest Python that the scripts run under."""

_WANTED = f"Python {OLDEST[0]}.{OLDEST[1]} or newer with its whole standard library"
_HINT = f"lab looks into a VM with {_WANTED}: install it there (package python3)"
_VERSION = re.compile(r"^\d{1,3}\.\d{1,3}\.\d{1,3}$", re.MULTILINE)
# Also for a python3 that is older than the scripts' own syntax.
_LOOK = """
import sys
if sys.version_info < {oldest}:
    sys.exit("its python3 is Python %d.%d" % sys.version_info[:2])
for name in {modules}:
    try:
        __import__(name)
    except ImportError:
        sys.exit("its Python lacks the module " + name)
print("%d.%d.%d" % sys.version_info[:3])
"""


def require(guest: Guest) -> str:
    """The version of the machine's Python. Raises UsageError, which says why the scripts cannot run there."""
    version, why = look(guest)
    if why:
        raise UsageError(f"lab cannot look into the machine: {why}", hint=_HINT)
    return version


def look(guest: Guest) -> tuple[str, str]:
    """The version of the machine's Python, and why the scripts cannot run under it.

    What is not known, or is not so, is empty.
    """
    done = guest.run(["python3", "-c", _LOOK.format(oldest=OLDEST, modules=modules())], check=False)
    if done.status == 0:
        version = _VERSION.search(done.out)
        return (version[0] if version else ""), ""
    why = done.err.strip().splitlines()[-1:] if done.status == 1 else ["it has no python3"]
    return "", "".join(why) or "its python3 does not run"


def run(guest: Guest, name: str, *words: str, **options: Any) -> Result:
    """Run the script `name` with `words`; `options` are those of Guest.run.

    Raises what Guest.run raises, and BlockedError when it is the Python that is missing or lacks something.
    """
    try:
        return guest.run(["python3", "-", *words], stdin=script(name), **options)
    except CommandError as error:
        raise explained(error) from error


def explained(error: CommandError) -> LabError:
    """A script that did not run, as what its Python lacks; the same error where that is not the reason."""
    missing = re.search(r"No module named '?([\w.]+)", error.tail)
    if error.status in (126, 127) and "python3" in error.tail:
        what = "the VM has no python3 that can be run"
    elif missing:
        what = f"the VM's Python lacks the module {missing[1]}"
    elif "SyntaxError:" in error.tail:
        what = f"the VM's python3 is too old: lab needs {_WANTED}"
    else:
        return error
    return BlockedError(what, hint=_HINT, tail=error.tail)


def modules() -> list[str]:
    """Every module that a script imports."""
    trees = [ast.parse(script(name)) for name in SCRIPTS]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return sorted(imported - {"ctypes"})  # cpu_facts.py can do without
