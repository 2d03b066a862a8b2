"""Many short commands in L1 for the price of one: evidence is taken from a machine that may be slow."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence

from lab import redact
from lab.deadline import Deadline
from lab.errors import LabError
from lab.guest.ssh import Guest


def gather(guest: Guest, commands: Mapping[str, Sequence[str]], deadline: Deadline) -> dict[str, str]:
    """Run `commands` (name to argument list) as root, side by side: name to its output and errors.

    A command that fails gives what it said. Raises LabError when they could not be run at all, or
    what came back is not whole.
    """
    if not commands:
        return {}
    mark = secrets.token_hex(16)
    answer = guest.run(["sh", "-c", _script(commands, mark)], sudo=True, check=False, deadline=deadline)
    parts = answer.out.split(mark)
    if answer.status != 0 or len(parts) != len(commands) + 1:
        last = redact.clean(answer.err)[-2000:]
        raise LabError("the VM did not give the whole of what was asked for", tail=last)
    return {name: part.removeprefix("\n") for name, part in zip(commands, parts[1:], strict=True)}


def _script(commands: Mapping[str, Sequence[str]], mark: str) -> str:
    # In two halves: sudo logs the whole command, and the journal may be among what is asked for.
    lines = [f"mark={mark[:16]}; mark=${{mark}}{mark[16:]}"]
    lines += ["set -e", "folder=$(mktemp -d)", "trap 'rm -rf \"$folder\"' EXIT"]
    for number, words in enumerate(commands.values()):
        lines.append(f'({shlex.join(words)} >"$folder/{number}" 2>&1 </dev/null || :) &')
    lines.append("wait")
    lines += [f'echo $mark; cat "$folder/{number}"' for number in range(len(commands))]
    return "\n".join(lines)
