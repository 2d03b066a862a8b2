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

EXAMPLES: list[dict[str, Any]] = [
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
        "nights": [{"date": "2026-12-01", "asked": AT, "closes": AT, "closed": AT, "entries": [ENTRY]}],
        "page": "fleet/matrix.html",
    },
]
