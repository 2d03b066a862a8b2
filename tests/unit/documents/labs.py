"""What the tasks on labs print."""

from __future__ import annotations

from typing import Any

from tests.unit.documents.emulators import KNOWN
from tests.unit.documents.parts import ADB, AT, FORWARD, SSH, UUID

_SIDE = {
    "name": "1-up",
    "folder": "evidence/a/1-up",
    "lab": "a",
    "night": None,
    "started": AT,
    "claim": "nesting",
    "verdict": "confirmed",
    "reason": "every rung it needs passed",
}
_RUNG = {
    "rung": "guest.kvm",
    "before": "passed",
    "after": "failed",
    "before_observed": "runs",
    "after_observed": "real mode: entry failed",
    "outcome": True,
}
EXAMPLES: list[dict[str, Any]] = [
    {
        "schema": "lab.status/1",
        "lab": {
            "name": "default",
            "uuid": UUID,
            "state": "running",
            "engine": "qemu",
            "acceleration": "tcg",
            "image": "debian-13-0a1b",
            "emulator": "canary",
            "created": AT,
        },
        "emulators": [KNOWN],
        "forwards": [FORWARD],
        "ssh": SSH,
        "adb": ADB,
        "holder": {"pid": 4711, "verb": "lab.up", "since": AT},
        "container": {
            "exists": True,
            "running": False,
            "health": "",
            "exit_code": 137,
            "image": "sha256:2c3d",
            "facts": {},
        },
        "evidence": "evidence/default/1",
        "disk_bytes": 734003200,
    },
    {
        "schema": "lab.list/1",
        "labs": [
            {
                "name": "a",
                "uuid": UUID,
                "state": "half-made",
                "engine": "qemu",
                "created": AT,
                "emulators": [KNOWN],
            }
        ],
    },
    {"schema": "lab.snapshots/1", "lab": "a", "snapshots": [{"name": "clean", "created": AT, "live": True}]},
    {
        "schema": "lab.evidence/1",
        "runs": [
            {
                "lab": "a",
                "run": "1-up",
                "verb": "up",
                "started": AT,
                "path": "evidence/a/1-up",
                "files": ["run.json"],
                "verdict": "refuted",
            }
        ],
    },
    {
        "schema": "lab.diff/1",
        "before": _SIDE | {"night": 1},
        "after": _SIDE | {"name": "2-up", "verdict": "refuted", "reason": "guest.kvm failed"},
        "headline": "guest.kvm changed first: passed before, failed now; beside it: vm.nested on → off",
        "first": _RUNG,
        "rungs": [_RUNG],
        "rungs_recorded": "both",
        "parts": [
            {
                "part": "settings",
                "recorded": "both",
                "source": "config.json",
                "changes": [{"what": "vm.nested", "before": "on", "after": None}],
                "same": 60,
            }
        ],
        "logs": [{"file": "dmesg.txt", "recorded": "before", "gone": [], "new": [], "left_out": 0}],
    },
    {
        "schema": "lab.recording/1",
        "lab": "a",
        "run": "1-up",
        "path": "evidence/a/1-up/recording.svg",
        "lines": 14,
        "seconds": 20.0,
        "real_seconds": 97.4,
    },
    {
        "schema": "lab.watch/1",
        "lab": "a",
        "holder": {"pid": 7, "verb": "lab.up", "since": AT},
        "events": [
            {
                "kind": "progress",
                "step": 3,
                "parent": 1,
                "name": "vm.boot",
                "at": AT,
                "seconds": 4.5,
                "text": "",
                "done": 12,
                "total": None,
                "informs": False,
            }
        ],
    },
    {
        "schema": "lab.exec/1",
        "argv": ["uname", "-r"],
        "status": 0,
        "out": "6.12\n",
        "err": "",
        "seconds": 0.4,
    },
    {
        "schema": "lab.action/1",
        "lab": "a",
        "action": "halt",
        "state": "stopped",
        "changed": True,
        "notes": ["forced"],
    },
]
