"""Many short commands in L1 for the price of one: evidence is taken from a machine that may be slow."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Collection, Mapping, Sequence

from lab.core import redact
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.guest.ssh import Guest

LIMIT_BYTES = 2 << 20
"""Of what one command says the end is kept."""
_SHORTEN = f"""
shorten() {{
    size=$(wc -c <"$1")
    [ "$size" -gt {LIMIT_BYTES} ] || return 0
    echo "[lab: $((size - {LIMIT_BYTES})) bytes were left out here]" >"$1.end"
    tail -c {LIMIT_BYTES} "$1" >>"$1.end"
    mv "$1.end" "$1"
}}
"""


def gather(
    guest: Guest,
    commands: Mapping[str, Sequence[str]],
    deadline: Deadline,
    *,
    apart: Collection[str] = (),
) -> dict[str, str]:
    """Run `commands` (name to argument list) as root, side by side: name to its output and errors.

    The errors of a command named in `apart`, whose output is to be read by a program, are an entry of
    their own, `NAME.stderr`, where there are any. A command that fails gives what it said. Raises LabError
    when they could not be run at all, or what came back is not whole.
    """
    if not commands:
        return {}
    mark = secrets.token_hex(16)
    script = _script(commands, apart, mark)
    answer = guest.run(["sh", "-c", script], sudo=True, check=False, deadline=deadline)
    names = [*commands, *(f"{name}.stderr" for name in commands if name in apart)]
    parts = answer.out.split(mark)
    if answer.status != 0 or len(parts) != len(names) + 1:
        last = redact.clean(answer.err)[-2000:]
        raise LabError("the VM did not give the whole of what was asked for", tail=last)
    texts = {name: part.removeprefix("\n") for name, part in zip(names, parts[1:], strict=True)}
    return {name: text for name, text in texts.items() if text or name in commands}


def _script(commands: Mapping[str, Sequence[str]], apart: Collection[str], mark: str) -> str:
    # In two halves: sudo logs the whole command, and the journal may be among what is asked for.
    lines = [f"mark={mark[:16]}; mark=${{mark}}{mark[16:]}"]
    lines += ["set -e", "folder=$(mktemp -d)", "trap 'rm -rf \"$folder\"' EXIT", _SHORTEN]
    files = [f'"$folder/{number}"' for number in range(len(commands))]
    errors = {name: f'"$folder/{number}.stderr"' for number, name in enumerate(commands) if name in apart}
    for (name, words), file in zip(commands.items(), files, strict=True):
        lines.append(f"({shlex.join(words)} >{file} 2>{errors.get(name, '&1')} </dev/null || :) &")
    lines.append("wait")
    lines += [f"shorten {file}\necho $mark; cat {file}" for file in (*files, *errors.values())]
    return "\n".join(lines)
