"""What the tasks on labs print."""

from __future__ import annotations

from typing import Any

from tests.unit.documents.emulators import KNOWN
from tests.unit.documents.parts import ADB, AT, FORWARD, SSH, UUID

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
