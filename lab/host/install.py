"""Installs missing system packages where lab may, and says the exact command where it may not."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from lab.core import lock, proc
from lab.core.deadline import Deadline, NotYet, check_cancelled, poll
from lab.core.errors import BlockedError
from lab.core.steps import Step, Steps
from lab.host import aptwords
from lab.host.packages import TABLE, Installer, Purpose, Requirement, missing

_STATUS = ("dlstatus:", "pmstatus:", "pmerror:", "pmconffile:", "media-change:")
_APT_OPTIONS = ("-q", "-o", "APT::Status-Fd=2", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30")
_UNREACHABLE = (
    "Failed to fetch",
    "Unable to locate package",
    "no installation candidate",
    "Could not resolve",
)


def ensure(
    purposes: Collection[Purpose],
    *,
    policy: Literal["auto", "never"],
    steps: Steps,
    deadline: Deadline,
    interactive: bool,
    ask: Callable[[str], bool],
    cache_dir: Path,
    instead: Mapping[str, str] | None = None,
    installer: Installer | None = None,
    table: Sequence[Requirement] = TABLE,
) -> list[str]:
    """Have everything `purposes` need; returns the names of the packages this call installed.

    Raises BlockedError with the exact command when lab may not install them or the package
    manager fails, BusyError, DeadlineError, InterruptedByUser. Nothing is asked when nothing is missing.
    """
    absent = partial(missing, purposes, instead=instead, table=table)
    lacking = absent()
    if not lacking:
        return []
    _must_be_installable(lacking, instead or {})
    installer = installer or Installer.detect()
    _must_be_allowed(lacking, installer, policy, interactive, ask)
    with (
        steps.step("host.packages") as step,
        lock.when_free(
            cache_dir / "packages.lock", "installing system packages", say=step.note, deadline=deadline
        ),
    ):
        lacking = absent()  # another process may have installed them meanwhile
        if not lacking:
            step.result = "another command installed them"
            return []
        names = _names(lacking, installer)
        step.note(f"installing {', '.join(names)}")
        _install(lacking, installer, step, deadline)
        if still := absent():
            words = ", ".join(name for item in still for name in item.absent(instead or {}))
            raise BlockedError(
                f"the packages were installed, and this is still missing: {words}",
                hint="check PATH, and that the packages are whole",
            )
        step.result = f"{len(names)} installed"
    return names


def _must_be_installable(lacking: Sequence[Requirement], instead: Mapping[str, str]) -> None:
    """A program the configuration names in place of lab's own comes with no package."""
    for item in lacking:
        for program in item.programs:
            chosen = instead.get(program, program)
            if chosen != program and chosen in item.absent(instead):
                raise BlockedError(
                    f"the configuration names `{chosen}` in place of `{program}`, which is not there",
                    hint="`invoke lab.config` shows where the setting is from",
                )


def _must_be_allowed(
    lacking: Sequence[Requirement],
    installer: Installer,
    policy: Literal["auto", "never"],
    interactive: bool,
    ask: Callable[[str], bool],
) -> None:
    commands = installer.commands(lacking)
    if impossible := [item for item in lacking if not installer.package(item)]:
        raise BlockedError(
            f"this needs what macOS does not have: {_list(impossible)}",
            hint='images are built on Debian and Ubuntu; here, use image = "ubuntu-24.04"',
        )
    what = f"missing on this host: {_list(lacking)}"
    if not installer.manager:
        raise BlockedError(what, hint=_by_hand(lacking, installer))
    if policy == "never":
        raise BlockedError(f"{what} (and install = never)", hint=_typed(commands))
    if installer.manager == "apt" and installer.root:
        return
    if installer.manager == "brew" and installer.root:
        raise BlockedError(what, hint=f"Homebrew refuses to run as root; as yourself: {_typed(commands)}")
    if installer.manager == "apt" and not installer.sudo:
        raise BlockedError(what, hint=f"as root: {_typed(commands).replace('sudo ', '')}")
    if not interactive or not ask(f"{what}.\nRun `{_typed(commands)}` now?"):
        raise BlockedError(what, hint=_typed(commands))


def _by_hand(lacking: Sequence[Requirement], installer: Installer) -> str:
    """Where lab knows no package manager."""
    names = ", ".join(_names(lacking, installer))
    if installer.macos:
        return f"have them on PATH; Homebrew, which is not here, calls them {names}"
    return f"install them as this system does (Debian calls them {names}); lab itself knows apt and Homebrew"


def _install(lacking: Sequence[Requirement], installer: Installer, step: Step, deadline: Deadline) -> None:
    if installer.manager == "apt" and installer.root:
        _Apt(step, deadline).install(_names(lacking, installer), _typed(installer.commands(lacking)))
    else:
        _in_terminal(installer.commands(lacking))


def _in_terminal(commands: Sequence[Sequence[str]]) -> None:
    """Run sudo or brew before the person's eyes: they may ask, and what they say is the progress."""
    for words in commands:
        try:
            status = proc.passthrough(words, to_stderr=True)
        except PermissionError:  # what sudo runs is not ours to end: Ctrl-C has told it already
            check_cancelled()
            raise
        if status:
            raise BlockedError(
                f"`{shlex.join(words)}` ended with status {status}",
                hint=f"its reason is above; then run: {_typed(commands)}",
            )


class _Apt:
    """apt as root: watched, and waiting while another process holds its locks."""

    def __init__(self, step: Step, deadline: Deadline) -> None:
        self._step = step
        self._deadline = deadline

    def install(self, names: Sequence[str], command: str) -> None:
        """Update the package lists and install `names`; `command` is for the hint."""
        updated = self._run("apt-get", "update", *_APT_OPTIONS)
        if updated.status:
            self._step.note("apt-get update failed: trying with the package lists that are there")
        lock_timeout = f"DPkg::Lock::Timeout={max(1, int(self._deadline.left))}"
        words = (
            *("apt-get", "install", "-y", "--no-install-recommends", *_APT_OPTIONS, "-o", lock_timeout),
            *("-o", "Dpkg::Options::=--force-confold", *names),
        )
        done = self._run(*words)
        if done.status and aptwords.BROKEN_OFF in done.err:
            self._step.note("an earlier installation was interrupted: finishing it first")
            self._run("dpkg", "--configure", "-a", "--force-confold")
            done = self._run(*words)
        if done.status:
            raise _refused(done, updated, command)

    def _run(self, *words: str) -> proc.Completed:
        return poll(lambda: self._try(words), self._deadline, f"`{words[0]} {words[1]}`")

    def _try(self, words: Sequence[str]) -> proc.Completed:
        done = proc.run(
            words,
            check=False,
            deadline=self._deadline,
            env={"DEBIAN_FRONTEND": "noninteractive"},
            on_line=self._progress,
        )
        if done.status and aptwords.LOCKED.search(done.err):
            raise NotYet(_said(done).splitlines()[-1])
        return done

    def _progress(self, line: str) -> None:
        """Lines of APT::Status-Fd: `pmstatus:package:percent:what is done`."""
        kind, _, rest = line.partition(":")
        if kind in ("dlstatus", "pmstatus"):
            with contextlib.suppress(ValueError, IndexError):
                # A package's name may carry its architecture, after one more colon.
                _, percent, what = re.split(r":(\d+(?:\.\d+)?):", rest, maxsplit=1)
                self._step.progress(float(percent), 100, what)


def _refused(done: proc.Completed, updated: proc.Completed, command: str) -> BlockedError:
    output = "\n".join([*([_said(updated)] if updated.status else []), _said(done)])
    if any(sign in output for sign in _UNREACHABLE):
        hint = f"check the network and this machine's apt sources, then: {command}"
    else:
        hint = f"once it is clear why: {command}"
    return BlockedError(
        f"`apt-get install` ended with status {done.status}", hint=hint, tail=proc.tail(output)
    )


def _said(done: proc.Completed) -> str:
    """apt's own errors and warnings, without its progress lines."""
    lines = [line for line in done.err.splitlines() if line.strip() and not line.startswith(_STATUS)]
    return "\n".join(lines) or proc.tail(done.out)


def _names(lacking: Sequence[Requirement], installer: Installer) -> list[str]:
    return sorted({name for item in lacking if (name := installer.package(item))})


def _list(lacking: Sequence[Requirement]) -> str:
    return ", ".join(f"{' and '.join(item.absent({})) or item.debian} ({item.why})" for item in lacking)


def _typed(commands: Sequence[Sequence[str]]) -> str:
    return " && ".join(shlex.join(words) for words in commands)
