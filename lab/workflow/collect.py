"""What goes into an evidence bundle, and from where."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import __version__
from lab.config import effective
from lab.core.deadline import Deadline
from lab.core.files import keep_private
from lab.core.steps import Background
from lab.emulators import MAIN
from lab.engines.protocol import State
from lab.guest.gather import gather
from lab.records.evidence import Run
from lab.workflow import attached
from lab.workflow.workbench import Workbench

_GUEST_SECONDS = 30.0

_SECRETS: Any = {"saved": True, "instances": {"__all__": {"nonce"}}}
"""Fields of the record left out of the evidence copy: with a published nonce an answer could be forged."""

_IN_GUEST: dict[str, list[str]] = {
    "dmesg.txt": ["dmesg"],
    "cpuinfo.txt": ["cat", "/proc/cpuinfo"],
    "kvm-parameters.txt": [
        "grep",
        "-r",
        "",
        "/sys/module/kvm",
        "/sys/module/kvm_amd",
        "/sys/module/kvm_intel",
    ],
    "docker-info.txt": ["docker", "info"],
    "docker-ps.txt": ["docker", "ps", "--all", "--no-trunc"],
    "packages.txt": ["dpkg-query", "--show"],
    "journal.txt": ["journalctl", "--boot", "--no-pager", "--lines", "2000"],
}
"""Evidence file to the command in L1 that gives it, run as root."""

_PRIVATE = frozenset({"docker-ps.txt", "packages.txt", "journal.txt"})
"""Not collected from an attached machine: it is its owner's, and says nothing of KVM."""

Source = Callable[[], str | Path | None]


def collect(bench: Workbench, run: Run, *, reach_guest: bool = True) -> list[str]:
    """Save all that can be had of a lab, running or not; names what is missing. Raises InterruptedByUser."""
    kept = run.collect(_of_host(bench) | _of_machine(bench, run))
    if reach_guest and _running(bench):
        with Background() as background:
            inside = background.start(lambda: _of_emulators(bench))
            kept += run.collect(_of_guest(bench))
            kept += run.collect(inside.result())
    return kept


def _of_host(bench: Workbench) -> dict[str, Source]:
    settings = bench.session.settings
    return {
        "host.json": lambda: json.dumps(bench.host().as_dict(), indent=2, default=str),
        "config.json": lambda: json.dumps(
            [{"key": row.key, "value": row.value, "origin": row.origin} for row in effective(settings)],
            indent=2,
        ),
        "lab.json": lambda: bench.lab.record().model_dump_json(indent=2, exclude=_SECRETS),
        "journal.jsonl": lambda: bench.lab.journal.path,
        "versions.json": lambda: json.dumps(
            {"lab": __version__, "python": platform.python_version(), "engine": bench.engine.facts().version},
            indent=2,
        ),
        "image.json": lambda: bench.session.images / bench.record().image / "manifest.json",
    }


def _of_machine(bench: Workbench, run: Run) -> dict[str, Source]:
    sources: dict[str, Source] = {
        # Asked for later than here: a half-made lab has no machine.
        "console.log": lambda: bench.machine.console(),  # noqa: PLW0108
        "settings.json": lambda: json.dumps(bench.machine.settings(), indent=2),
    }
    for log in _engine_logs(bench):
        sources[log.name] = lambda log=log: log  # type: ignore[misc]
    if _running(bench):
        sources["screenshot.png"] = lambda: _screenshot(bench, run)
    return sources


def _of_guest(bench: Workbench) -> dict[str, Source]:
    somebodys = attached.is_attached(bench.record())
    wanted = {name: words for name, words in _IN_GUEST.items() if not (somebodys and name in _PRIVATE)}
    try:
        gathered = gather(bench.guest, wanted, Deadline.after(_GUEST_SECONDS))
    except Exception as error:  # named as missing, file by file
        return {name: _raising(error) for name in wanted}
    return {name: lambda text=text: text for name, text in gathered.items()}  # type: ignore[misc]


def _raising(error: Exception) -> Source:
    def source() -> str:
        raise error

    return source


def _of_emulators(bench: Workbench) -> dict[str, Source]:
    """The logs of all of them; a file of one beside the main one has its name in front."""
    sources: dict[str, Source] = {}
    for name, known in bench.record().instances.items():
        before = "" if name == MAIN else f"{name}-"
        try:
            logs = bench.emulator(name).logs(bench.guest)
        except Exception as error:  # a broken container must not cost the rest of the bundle
            logs = {f"{known.kind}-error.txt": str(error)}
        for file, text in logs.items():
            sources[before + file] = lambda text=text: text  # type: ignore[misc]
    return sources


def _screenshot(bench: Workbench, run: Run) -> None:
    picture = run.path / "screenshot.png"
    bench.machine.screenshot(picture)
    keep_private(picture)  # the engine made it


def _engine_logs(bench: Workbench) -> list[Path]:
    try:
        return bench.machine.logs()
    except Exception:  # a half-made lab has none
        return []


def _running(bench: Workbench) -> bool:
    try:
        return bench.machine.status() is State.RUNNING
    except Exception:  # a half-made lab has no machine
        return False
