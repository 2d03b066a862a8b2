"""What the tasks on emulators print."""

from __future__ import annotations

from typing import Any

from tests.unit.documents.parts import ADB, PORTS

KNOWN = {
    "name": "main",
    "kind": "docker-android",
    "ports": PORTS,
    "adb": ADB,
    "novnc": {"address": "http://127.0.0.1:16080/"},
}

LOOKED_AT = KNOWN | {
    "container": {"exists": True, "running": True, "health": "", "exit_code": None, "image": "sha256:2c3d"},
    "health": {
        "booted": True,
        "usable": False,
        "checks": [{"name": "launcher", "ok": None, "observed": "dumpsys did not answer"}],
        "timeline": [{"name": "adb-online", "seconds": 20.5}],
        "diagnoses": [
            {
                "name": "anr",
                "what": "System UI does not respond",
                "lines": ["mCurrentFocus=Application Not Responding"],
                "hint": "",
                "final": False,
                "refutes": False,
            }
        ],
        "facts": {"release": "14"},
    },
}


EXAMPLES: list[dict[str, Any]] = [
    {"schema": "emulator.status/1", "lab": "a", "state": "running", "emulators": [LOOKED_AT]},
    {
        "schema": "emulator.up/1",
        "lab": "a",
        "launched": True,
        "emulator": LOOKED_AT,
        "evidence": "evidence/a/1-emulator",
    },
    {"schema": "emulator.list/1", "lab": "a", "emulators": [KNOWN]},
    {
        "schema": "emulator.logs/1",
        "lab": "a",
        "emulator": "main",
        "files": [{"name": "container.log", "text": "up\n"}],
    },
    {
        "schema": "emulator.action/1",
        "lab": "a",
        "emulator": "second",
        "action": "down",
        "changed": True,
        "notes": ["its ports are free"],
    },
    {
        "schema": "lab.open/1",
        "lab": "a",
        "emulator": "main",
        "address": "http://127.0.0.1:16080/",
        "opened": False,
    },
]
