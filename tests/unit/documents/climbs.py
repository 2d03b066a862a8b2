"""What a climb and its reports print, and a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.documents.parts import ADB, AT, FORWARD, SSH, UUID, WHERE, validation

EXAMPLES: list[dict[str, Any]] = [
    validation(evidence=Path("evidence/default/1"), facts={"nested": {"ratio": 11.5, "kvm": (12, 13)}}),
    validation()
    | {
        "schema": "lab.up/1",
        "access": {
            "ssh": SSH,
            "adb": ADB,
            "novnc": {"address": "http://127.0.0.1:16080/"},
            "ports": [FORWARD],
            "evidence": "evidence/default/1",
            "stop": "invoke lab.halt",
        },
    },
    {
        "schema": "lab.report/1",
        "claim": "nesting",
        "verdict": "inconclusive",
        "reason": "nested.boot could not be settled",
        "headline": "Whether KVM works was not settled.",
        "cell": "qemu 7.2.17 on Debian 12",
        "counts": [{"verdict": "inconclusive", "runs": 1}],
        "not_proven": ["anything"],
        "runs": [
            {
                "validation": validation(),
                "folder": "evidence/a/1-up",
                "files": ["dmesg.txt"],
                "steps": [
                    {
                        "step": 1,
                        "parent": 0,
                        "name": "vm.boot",
                        "start": 0,
                        "seconds": 33.7,
                        "state": "cut short",
                        "text": "",
                    }
                ],
                "clock_jumped": False,
            }
        ],
        "predictions": [
            {
                "claim": "nesting",
                "predicted": "unknown",
                "why": "nobody knows",
                "source": "",
                "grade": "inference",
                "observed": "inconclusive",
                "came": "not tested",
            }
        ],
        "history": [
            {
                "when": AT,
                "cell": "qemu on Debian 12",
                "nested_boot_seconds": None,
                "note": "",
                "verdicts": [{"claim": "nesting", "verdict": "refuted"}],
            }
        ],
        "comparison": {
            "measures": [{"name": "with KVM", "seconds": [7.5], "note": ""}],
            "ratios": [{"name": "without over with", "ratio": 11.5, "n": 1, "low": None, "high": None}],
            "note": "",
            "source": {"run": "1-compare", "lab": "a", "when": AT},
        },
        "android": [{"name": "kvm-open", "seconds": None}],
        "experiment": {
            "sentence": "nesting decides",
            "trials": [{"paravirt": "kvm", "nested": True, "runs": 3, "worked": 3, "note": ""}],
            "seed": None,
            "source": {"run": "1-experiment", "lab": "experiment", "when": AT},
        },
        "written": AT,
        "lab_version": "0.1.0",
    },
    {
        "schema": "lab.report-files/1",
        "lab": "a",
        "runs": ["evidence/a/1-up"],
        "claim": "nesting",
        "verdict": "refuted",
        "reason": "guest.kvm failed",
        "files": [{"format": "html", "path": "evidence/a/1-up/report.html"}],
    },
    {
        "schema": "lab.compare/1",
        "lab": {"name": "a", "uuid": UUID, "boot_id": "b"},
        "where": WHERE,
        "seed": 7,
        "emulators": [{"name": "canary", "image": "canary@sha256:2c3d", "android": False}],
        "routes": [{"route": "arm", "title": "ARM image", "why_not": "not possible here"}],
        "measurements": [
            {
                "number": 1,
                "round": 1,
                "emulator": "canary",
                "route": "nested-kvm",
                "outcome": "measured",
                "seconds": 6.1,
                "waited": 7.5,
                "why": "",
            }
        ],
        "summary": [
            {
                "emulator": "canary",
                "route": "nested-kvm",
                "planned": 2,
                "n": 1,
                "values": [6.1],
                "median": 6.1,
                "min": 6.1,
                "max": 6.1,
                "without": ["1 timeout"],
            }
        ],
        "ratios": [
            {
                "emulator": "canary",
                "over": "no-acceleration",
                "under": "nested-kvm",
                "value": 16.8,
                "n_over": 2,
                "n_under": 2,
                "low": 15.1,
                "high": 17,
                "how": "least and greatest ratio of any pair",
            }
        ],
        "started": AT,
        "seconds": 240,
        "evidence": "evidence/a/1-compare",
        "lab_version": "0.1.0",
    },
]
