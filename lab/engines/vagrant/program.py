"""Vagrant's own program, told what to do with one machine of one Vagrantfile, and asked about it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import UsageError

PROGRAM = "vagrant"
HOOKS = "VAGRANT_LAB_HOOKS"
"""In the environment: `off` keeps lab's Vagrantfile from calling lab, which is the caller."""

_SETTINGS = {HOOKS: "off", "VAGRANT_NO_COLOR": "1", "VAGRANT_CHECKPOINT_DISABLE": "1"}
_ASK_SECONDS = 60.0
_VERSION = re.compile(r"Vagrant (\d[\w.+-]*)")


@dataclass(frozen=True)
class Entrance:
    """Where a machine's SSH server answers, and what Vagrant logs in with: `vagrant ssh-config`."""

    host: str
    port: int
    user: str
    keys: tuple[Path, ...]
    """Private keys, one at least: any of them may be the one that is let in."""


class Vagrant:
    """`root` is the Vagrantfile's folder, `machine` the name a machine is defined under in it."""

    def __init__(self, root: Path, machine: str) -> None:
        self.root = root
        self.machine = machine

    def provider(self) -> str:
        """The provider Vagrant uses, or would use, for this machine. UsageError when there is none such."""
        fields = told(self._ask("status", self.machine, "--machine-readable"), self.machine)
        return fields.get("provider-name", "")

    def entrance(self) -> Entrance:
        """UsageError when the machine does not run."""
        return entrance(self._ask("ssh-config", self.machine), self.machine)

    def identity(self, provider: str) -> str:
        """The hypervisor's own id of the machine; empty while there is none."""
        data = Path(os.environ.get("VAGRANT_DOTFILE_PATH") or ".vagrant")
        place = self.root / data / "machines" / self.machine / provider / "id"
        try:
            return place.read_text().strip()
        except OSError:
            return ""

    def act(self, verb: str, *flags: str, deadline: Deadline, log: Path | None = None) -> None:
        """Run `vagrant VERB MACHINE FLAGS` to its end. Raises CommandError with Vagrant's own words."""
        words = [PROGRAM, verb, self.machine, *flags]
        proc.run(words, cwd=self.root, env=_SETTINGS, deadline=deadline, log=log)

    def _ask(self, *words: str) -> str:
        done = proc.run(
            [PROGRAM, *words],
            cwd=self.root,
            env=_SETTINGS,
            deadline=Deadline.after(_ASK_SECONDS),
            check=False,
        )
        if done.status != 0:
            raise UsageError(
                f"`vagrant {' '.join(words)}` in {self.root} ended with {done.status}",
                tail=proc.tail(done.err or done.out),
                hint="its own words are below; `vagrant up` makes a machine",
            )
        return done.out


def told(lines: str, machine: str) -> dict[str, str]:
    """What `--machine-readable` lines say of a machine: `time,target,type,data`.

    https://developer.hashicorp.com/vagrant/docs/cli/machine-readable
    """
    parsed = {}
    for line in lines.splitlines():
        fields = line.split(",", 3)
        if len(fields) == 4 and fields[1] == machine:
            parsed[fields[2]] = fields[3].replace("%!(VAGRANT_COMMA)", ",").replace("\\n", "\n")
    return parsed


def entrance(config: str, machine: str) -> Entrance:
    """What `vagrant ssh-config` says, whatever else Vagrant and its plugins print around it.

    Raises UsageError with Vagrant's words when it lacks something.
    """
    lines = _host_block(config, machine)
    keys = tuple(Path(value) for name, value in lines if name == "identityfile")
    settings = dict(reversed(lines))  # ssh takes the first of each
    port = settings.get("port", "22")
    lacking = [name for name in ("hostname", "user") if name not in settings]
    if lacking or not keys or not port.isdecimal():
        what = ", ".join([*lacking, *([] if keys else ["private key"])]) or f"port, but {port!r}"
        raise UsageError(
            f"`vagrant ssh-config {machine}` does not say how to log in: it names no {what}",
            hint="its own words are below; lab logs in with a private key, as Vagrant makes one "
            "unless config.ssh in the Vagrantfile says otherwise",
            tail=proc.tail(config),
        )
    return Entrance(settings["hostname"], int(port), settings["user"], keys)


def _host_block(config: str, machine: str) -> list[tuple[str, str]]:
    """(keyword in lower case, value) of the indented lines under `Host MACHINE`, as far as they have one."""
    block: list[tuple[str, str]] = []
    inside = False
    for line in config.splitlines():
        words = line.split(maxsplit=1)
        if not line.startswith((" ", "\t")):
            inside = words == ["Host", machine]
        elif inside and len(words) == 2 and (value := words[1].strip().strip('"')):
            block.append((words[0].lower(), value))
    return block


@lru_cache
def version() -> str:
    """The installed Vagrant's version. BlockedError when there is none."""
    done = proc.run([PROGRAM, "--version"], deadline=Deadline.after(_ASK_SECONDS), env=_SETTINGS)
    match = _VERSION.search(done.out)
    return match[1] if match else ""
