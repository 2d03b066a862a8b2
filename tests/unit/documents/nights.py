"""What nights print."""

from __future__ import annotations

from typing import Any

from tests.unit.documents.parts import AT, UUID, validation

COUNTS = {"confirmed": 3, "refuted": 0, "blocked": 0, "inconclusive": 1, "not applicable": 0}

NIGHT: dict[str, Any] = {
    "id": 7,
    "uuid": UUID,
    "state": "ended",
    "started": AT,
    "ended": AT,
    "seconds": 610.5,
    "planned": 4,
    "verdict": "inconclusive",
    "claim": "nesting",
    "reason": "4 runs do not agree",
    "clock_jump": 0.0,
    "cell": validation()["cell"],
    "claims": [{"claim": "nesting", "verdict": "confirmed", "reason": "so", "counts": COUNTS}],
    "runs": [
        {
            "number": 1,
            "kind": "up",
            "started": AT,
            "seconds": 100.5,
            "verdict": "confirmed",
            "claim": "nesting",
            "reason": "so",
            "error": "",
            "cut": False,
            "evidence": "evidence/nightly/1-up",
            "cell": validation()["cell"],
            "claims": [{"claim": "nesting", "verdict": "confirmed", "reason": "so"}],
            "rungs": [
                {
                    "rung": "vm.boot",
                    "status": "passed",
                    "inconclusive": False,
                    "seconds": 40.5,
                    "observed": "it boots",
                }
            ],
            "figures": [{"name": "nested boot", "unit": "s", "value": 6.5}],
        }
    ],
    "findings": [{"key": "verdict: nesting", "text": "worse", "worse": True}],
    "notes": ["one"],
    "deliveries": [{"channel": "webhook", "delivered": False, "said": "down"}],
    "evidence": "evidence/nightly/1-night",
    "report": "",
    "lab_version": "0.1.0",
}


_ISSUES = {
    "schema": "nightly.issues/1",
    "issues": [
        {
            "id": "l2-lost",
            "title": "L2 ends by itself",
            "url": "https://example.org/issues/17",
            "culprit": "tool",
            "state": "closed",
            "by": "",
            "since": "2026-11-20",
            "closed": "2026-12-01",
            "nights": [3],
            "last": AT,
        }
    ],
}
_TEST = {
    "id": "lab:u:1:guest.kvm",
    "origin": "lab",
    "path": "lab.rungs.guest.kvm",
    "status": "FAIL",
    "comment": "real mode: entry failed",
    "start_time": AT,
    "duration": 1.5,
    "number": None,
    "environment": {"comment": "qemu 7.2.22", "misc": validation()["cell"]},
}
_KCIDB = {
    "schema": "nightly.kcidb-like/1",
    "version": {"major": 5, "minor": 3},
    "tests": [_TEST, _TEST | {"status": "DONE", "number": {"value": 7.5, "unit": "s"}, "environment": None}],
    "issues": [
        {
            "id": "lab:l2-lost",
            "version": 1,
            "origin": "lab",
            "report_url": "",
            "report_subject": "L2 ends by itself",
            "culprit": {"code": False, "tool": True, "harness": False},
            "comment": "open since 2026-11-20",
        }
    ],
    "incidents": [
        {
            "id": "lab:u:1:guest.kvm:l2-lost",
            "origin": "lab",
            "issue_id": "lab:l2-lost",
            "issue_version": 1,
            "test_id": "lab:u:1:guest.kvm",
            "present": True,
        }
    ],
    "runs": 1,
}
EXAMPLES: list[dict[str, Any]] = [
    {
        "schema": "nightly.flakes/1",
        "nights": 12,
        "cells": [
            {
                "host": UUID,
                "cell": validation()["cell"],
                "nights": 10,
                "rungs": [
                    {
                        "rung": "nested.boot",
                        "tried": 10,
                        "failed": 0,
                        "inconclusive": 1,
                        "rate": 0.1,
                        "low": 0.018,
                        "high": 0.404,
                        "flaky": True,
                    }
                ],
            }
        ],
    },
    _KCIDB,
    _ISSUES,
    {
        "schema": "nightly.history/1",
        "file": "history.db",
        "events": [{"at": AT, "text": "damaged"}],
        "nights": [NIGHT],
    },
    {"schema": "nightly.run/1", "night": NIGHT},
    {
        "schema": "nightly.archive/1",
        "night": NIGHT | {"key": "2026-12-01/linux-kvm", "host": "mac-1"},
        "exported": AT,
        "lab_version": "0.1.0",
        "files": [{"path": "1-night/run.json", "bytes": 12, "sha256": "0" * 64}],
        "left_out": [{"path": "1-night/link", "why": "no file"}],
    },
    {
        "schema": "nightly.export/1",
        "nights": [
            {
                "night": 7,
                "uuid": UUID,
                "key": "2026-12-01/linux-kvm",
                "verdict": "refuted",
                "file": "a.night.tar.gz",
                "bytes": 4096,
                "files": 12,
                "left_out": [],
            }
        ],
    },
    {
        "schema": "nightly.import/1",
        "nights": [
            {"file": "a", "state": "imported", "why": "", "night": NIGHT},
            {"file": "b", "state": "refused", "why": "it is cut short", "night": None},
        ],
    },
    {
        "schema": "nightly.schedule/1",
        "scheduler": "systemd",
        "action": "status",
        "changed": False,
        "installed": ["lab-nightly.timer"],
        "active": True,
        "units": [{"path": "lab-nightly.timer", "content": "[Timer]"}],
        "notes": ["every day"],
        "running": {"pid": 4711, "since": AT},
        "last": NIGHT,
    },
    {
        "schema": "nightly.notice/1",
        "night": 7,
        "uuid": UUID,
        "host": "mac",
        "started": AT,
        "claim": "nesting",
        "verdict": "refuted",
        "reason": "so",
        "cell": "qemu on Debian",
        "counts": COUNTS,
        "findings": [{"marker": "0123456789ab", "text": "worse", "worse": True}],
        "notes": ["one"],
        "report": "report.html",
        "evidence": "evidence/nightly/1-night",
    },
]
