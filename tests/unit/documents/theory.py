"""What the theory's tasks print."""

from __future__ import annotations

from typing import Any

from tests.unit.documents.parts import AT, WHERE, validation

FACT = {
    "id": "virtualbox-mac",
    "where": "VirtualBox 7.0 and newer: macOS, Intel",
    "nesting": "refuted",
    "android": "refuted",
    "rung": "guest.cpu",
    "why": "its backend has no nested VMX",
    "grade": "source code",
    "date": "2025-01-16",
    "sources": ["a/b#1"],
}


EXPERIMENT: dict[str, Any] = {
    "schema": "theory.experiment/1",
    "where": WHERE,
    "seed": 7,
    "finding": "nesting made the difference",
    "sentence": "/dev/kvm worked.",
    "cells": [
        {"asked": {"paravirt": paravirt, "nested": nested}, "planned": 1, "observed": 1, "worked": 1}
        for nested in (True, False)
        for paravirt in ("kvm", "none", "default")
    ],
    "trials": [
        {
            "number": 1,
            "round": 1,
            "asked": {"paravirt": "kvm", "nested": True},
            "accepted": {
                "cpus": "2",
                "memory_mib": "4096",
                "nested": "on",
                "paravirt": "none",
                "acceleration": "tcg",
            },
            "delivered": {
                "paravirt": False,
                "nested": True,
                "signature": "TCGTCGTCGTCG",
                "clocksources": ["tsc"],
                "extensions": ["svm"],
            },
            "worked": True,
            "outcome": "observed",
            "why": "real mode: runs; long mode: runs",
            "seconds": 40.5,
        }
    ],
    "started": AT,
    "seconds": 240,
    "evidence": "evidence/experiment/1-experiment",
    "lab_version": "0.1.0",
}

EXAMPLES: list[dict[str, Any]] = [
    EXPERIMENT,
    {
        "schema": "theory.explain/1",
        "asked": {"host": "macos-intel:13", "engine": "virtualbox"},
        "situation": {
            "described": "macOS 13 on Intel",
            "system": "macos",
            "cpu": "intel",
            "os_version": "13",
            "generation": 8,
            "virtual": False,
            "extensions": True,
            "emulated": False,
            "la57": False,
            "hyperv": False,
            "kvm": None,
            "nested": None,
            "distribution": "",
            "kernel": "",
        },
        "in_short": "nothing is known to work",
        "engines": [
            {
                "engine": "virtualbox",
                "version": "",
                "driven": True,
                "available": False,
                "availability": "not installed",
                "claims": {"nesting": "refuted", "android": "refuted", "theory": "refuted"},
                "fact": FACT,
                "why": "its backend has no nested VMX",
                "open": [FACT],
            }
        ],
        "ways": [
            {
                "id": "native",
                "how": "without a container",
                "grade": "inference",
                "date": "2026-01-02",
                "sources": ["a/b#1"],
            }
        ],
    },
    {
        "schema": "theory.matrix/1",
        "rows": [
            {
                "fact": FACT,
                "theory": "refuted",
                "observed": [
                    {
                        "cell": "virtualbox 7.1 on macOS 13",
                        "claim": "theory",
                        "verdict": "confirmed",
                        "predicted": "refuted",
                        "comparison": "contradicts",
                        "when": AT,
                        "runs": 3,
                    }
                ],
            }
        ],
        "observations": 1,
        "contradictions": 1,
    },
    {
        "schema": "theory.rehearse/1",
        "pc": {
            "cpu": "haswell",
            "emulator": "bochs",
            "version": "2.7",
            "processor": "corei7_haswell_4770",
            "memory_mib": 2048,
            "image": "rehearsal-sid-0a1b",
            "trouble": "the emulated PC ended on its own: Bochs was killed",
            "seconds": 751.5,
        },
        "tasks": [{"words": ["lab.up", "--json"], "status": 10, "error": "its last line"}],
        "cell": validation()["cell"],
        "claims": validation()["claims"],
        "rungs": validation()["rungs"],
        "verdict": "inconclusive",
        "reason": "the emulated PC ended on its own: Bochs was killed",
        "experiment": EXPERIMENT,
        "shows": "what VirtualBox does",
        "shows_not": "what a Mac does",
        "report": "evidence/rehearsal/1-rehearse/evidence/default/1-up/report.html",
        "started": AT,
        "seconds": 900.25,
        "evidence": "evidence/rehearsal/1-rehearse",
        "lab_version": "0.1.0",
    },
]
