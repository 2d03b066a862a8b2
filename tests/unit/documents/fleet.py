"""What a fleet prints."""

from __future__ import annotations

from typing import Any

from tests.unit.documents.parts import AT, UUID

LATE: dict[str, Any] = {"at": AT, "host": "mini", "uuid": UUID, "verdict": "confirmed", "word": "4 of 4 runs"}

ENTRY: dict[str, Any] = {
    "cell": "mac-vbox71",
    "state": "closed",
    "verdict": "inconclusive",
    "claim": "nesting",
    "host": "mini",
    "word": "host silent since 2026-12-01 03:12",
    "uuid": UUID,
    "started": AT,
    "seconds": 610.5,
    "nested_boot": 12.5,
    "report": "evidence/nightly/1/report.html",
    "late": [LATE],
}

NIGHT: dict[str, Any] = {"date": "2026-12-01", "asked": AT, "closes": AT, "closed": AT, "entries": [ENTRY]}

EXAMPLES: list[dict[str, Any]] = [
    {
        "schema": "fleet.status/1",
        "running": True,
        "pid": 4711,
        "answers": True,
        "port": 9989,
        "at": "02:00",
        "closes": "07:00",
        "hosts": [
            {
                "name": "mini",
                "tags": ["macos"],
                "state": "silent",
                "heard": AT,
                "cells": ["mac-vbox71"],
                "work": ["2026-12-01/mac-vbox71"],
            }
        ],
        "nights": [NIGHT],
        "notes": ["the queue does not answer"],
    },
    {"schema": "fleet.night/1", "action": "gather", "nights": [NIGHT], "notes": ["so"]},
    {"schema": "fleet.action/1", "action": "up", "changed": True, "notes": ["it runs"]},
    {
        "schema": "fleet.matrix/1",
        "made": AT,
        "cells": [
            {
                "name": "mac-vbox71",
                "tags": ["macos", "virtualbox"],
                "hosts": ["mini"],
                "settings": [{"key": "engine", "value": "virtualbox"}],
                "expects": {"host": "mini", "virtualbox": "7.1", "processor": "Intel"},
                "planned": True,
            }
        ],
        "nights": [NIGHT],
        "page": "fleet/matrix.html",
    },
]
