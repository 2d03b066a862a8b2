"""Every schema is valid, takes what lab prints, and refuses what is a little off."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from lab import redact, schema
from lab.engines.protocol import State
from lab.errors import BlockedError, DeadlineError, ExitCode
from lab.ladder.climb import climb
from lab.ladder.model import NAMES, Cell, Claim, Host, Nesting, Observation, Status, Verdict
from lab.ladder.report import document, summary
from lab.ladder.verdict import judge, strongest_claim
from lab.steps import Steps

AT = "2026-01-02T03:04:05.678+00:00"
UUID = "0b0e7a52-7a2c-4f0c-9f2e-0f6e0a3f8f11"
CELL = Cell(
    Host("linux", "Debian 12", "6.1.0", "AMD EPYC"),
    "qemu",
    "7.2.17",
    "tcg",
    Nesting.EMULATED,
    True,
    "none",
    "debian-13-0a1b",
    "canary",
    "sha256:2c3d",
)
FORWARD = {"name": "ssh", "host": "127.0.0.1", "host_port": 10022, "guest_port": 22}
SSH = {"command": "ssh -p 10022 lab@127.0.0.1", "port": 10022}
ADB = {"address": "127.0.0.1:15555"}
PORTS = [{"service": "adb", "address": "127.0.0.1:15555"}]
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
SHA = "0" * 64
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
WHERE = {
    "host": {"os": "Debian 12", "cpu": "AMD EPYC", "arch": "x86_64"},
    "engine": "qemu",
    "engine_version": "7.2.17",
    "acceleration": "tcg",
    "nesting": "emulated",
    "image": "debian-13-0a1b",
}


def late() -> Observation:
    raise DeadlineError("ADB did not answer in 60 s")


def absent() -> Observation:
    raise BlockedError("qemu is not installed")


def validation(**more: Any) -> dict[str, Any]:
    """A real document of a climb with outcomes of every kind."""
    good = Observation(True, "that", "this", evidence=["dmesg.txt"])
    checks = {name: (lambda: good) for name in NAMES if not name.startswith("android.")}
    checks["host.cpu"] = lambda: Observation(False, "vmx or svm", "neither")
    climbed = climb(checks | {"nested.boot": late}, steps=Steps(), skip={"android.boot": "not Android"})
    claims = judge(climbed.outcomes, CELL, "canary")
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    return document(
        lab_name="default",
        lab_uuid=UUID,
        cell=CELL,
        climbed=climbed,
        claims=claims,
        claim=strongest_claim(CELL),
        started=started,
        ended=started + timedelta(seconds=61.5),
        **more,
    )


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
    {
        "schema": "lab.config/1",
        "values": [{"key": "vm.cpus", "value": [2, {"x": None}], "origin": "lab.toml"}],
    },
    {
        "schema": "lab.doctor/1",
        "host": {"cpus": 2},
        "engines": [
            {
                "name": "qemu",
                "usable": True,
                "why": "it starts",
                "hint": "",
                "facts": {
                    "engine": "qemu",
                    "version": "7.2",
                    "acceleration": "tcg",
                    "nesting": "emulated",
                    "how": "no KVM here",
                    "details": {"cpu": "max"},
                },
                "findings": [
                    {"name": "driver", "good": False, "observed": "none", "hint": "load it", "source": ""}
                ],
            }
        ],
        "packages": [
            {"program": "qemu-img", "package": "qemu-utils", "present": True, "needed_for": "disks"}
        ],
        "kvm": {"usable": False, "why": "it hangs", "nested": None},
        "checks": [{"name": "disk", "status": "warn", "observed": "9 GiB", "hint": "free some"}],
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
        },
        "android": [{"name": "kvm-open", "seconds": None}],
        "experiment": {
            "sentence": "nesting decides",
            "trials": [{"paravirt": "kvm", "nested": True, "runs": 3, "worked": 3, "note": ""}],
            "seed": None,
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
        "schema": "image.list/1",
        "cache": "cache/images",
        "images": [
            {
                "id": "debian-13-0a1b",
                "kind": "guest",
                "name": "debian-13",
                "bytes": 1,
                "created": AT,
                "sha256": SHA,
                "in_use_by": ["a"],
            }
        ],
    },
    {
        "schema": "image.action/1",
        "action": "verify",
        "results": [
            {
                "id": "debian-13-0a1b",
                "kind": "guest",
                "name": "debian-13",
                "result": "bad",
                "bytes": 1,
                "sha256": SHA,
                "why": "its hash differs",
            }
        ],
        "seconds": 1.5,
        "notes": ["one"],
    },
    {
        "schema": "lab.action/1",
        "lab": "a",
        "action": "halt",
        "state": "stopped",
        "changed": True,
        "notes": ["forced"],
    },
    {
        "schema": "lab.error/1",
        "error": {"what": "no", "hint": "", "evidence": ["log"], "tail": "", "exit_code": 20},
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
    {
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
    },
    {
        "schema": "bench/1",
        "host": {"cpus": 2},
        "lab_version": "0.1.0",
        "started": AT,
        "seconds": 9,
        "measures": [
            {
                "name": "status",
                "unit": "s",
                "n": 2,
                "values": [0.4, 0.5],
                "median": 0.45,
                "min": 0.4,
                "max": 0.5,
                "limit": 1,
                "within": True,
                "note": "",
            }
        ],
    },
    {
        "schema": "test/1",
        "tier": "unit",
        "passed": 1,
        "failed": 1,
        "errors": 0,
        "skipped": 0,
        "seconds": 1,
        "failures": [{"test": "a::b", "message": "no"}],
        "report": "junit.xml",
    },
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
        "schema": "nightly.history/1",
        "file": "history.db",
        "events": [{"at": AT, "text": "damaged"}],
        "nights": [NIGHT],
    },
    {"schema": "nightly.run/1", "night": NIGHT},
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
    {
        "schema": "lab.vagrant/1",
        "lab": "vagrant",
        "provider": "libvirt",
        "prepared": True,
        "cpus": 2,
        "memory_mib": 4096,
        "disk_gib": 12,
        "boot_seconds": 600,
        "user": "lab",
        "key": "keys/id_ed25519",
        "known_hosts": "keys/known_hosts",
        "seed": "seed.iso",
        "console": "vm/console.log",
        "box": {"name": "lab/debian-13-0a1b-12g", "url": "file:///a.box", "sha256": SHA},
        "forwards": [{"name": "ssh", "host_port": 10022, "guest_port": 22}],
        "libvirt": {
            "uri": "qemu:///session",
            "driver": "qemu",
            "machine_type": "q35",
            "cpu_mode": "custom",
            "cpu_model": "qemu64",
            "emulator": "qemu-system-x86_64",
            "arguments": ["-cpu", "max"],
        },
        "virtualbox": {"customize": [["modifyvm", ":id", "--ioapic", "on"]]},
    },
]
BY_SCHEMA = pytest.mark.parametrize("example", EXAMPLES, ids=[example["schema"] for example in EXAMPLES])
# Where a schema lets anything in, by the name of the member.
FREE = {"host", "facts", "value"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every member and item below `value`, free-form ones left out."""
    items = (
        value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    )
    for key, item in items:
        free = key in FREE and not (key == "host" and ("cell" in path or isinstance(item, str)))
        free = free and not (key == "facts" and "engines" in path)
        if not free:
            yield (*path, key)
            yield from places(item, (*path, key))


def parent_of(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def test_every_schema_has_an_example() -> None:
    assert sorted(example["schema"] for example in EXAMPLES) == schema.names()


@pytest.mark.parametrize("name", schema.names())
def test_the_schema_is_one_and_is_named_as_its_file(name: str) -> None:
    found = schema.load(name)
    Draft202012Validator.check_schema(found)
    assert found["$id"] == schema.file_of(name).name
    assert found["properties"]["schema"] == {"const": name}


@BY_SCHEMA
def test_the_example_passes(example: dict[str, Any]) -> None:
    schema.validate(example)


@BY_SCHEMA
def test_no_member_may_be_of_another_type(example: dict[str, Any]) -> None:
    for path in places(example):
        wrong = copy.deepcopy(example)
        parent_of(wrong, path)[path[-1]] = {"no such": "thing"}
        if path[0] != "schema" and path[-1] not in ("details",):
            with pytest.raises(schema.SchemaError):
                schema.validate(wrong)
                pytest.fail(f"{path} may be anything")


@BY_SCHEMA
def test_no_member_may_be_missing_or_unknown(example: dict[str, Any]) -> None:
    for path in places(example):
        holder = parent_of(example, path)
        if not isinstance(holder, dict) or "details" in path or "container" in path[:-1]:
            continue
        for change in ("drop", "add"):
            wrong = copy.deepcopy(example)
            target = parent_of(wrong, path)
            if change == "drop":
                del target[path[-1]]
            else:
                target["no such"] = 1
            with pytest.raises(schema.SchemaError):
                schema.validate(wrong)
                pytest.fail(f"{change} {path} goes unnoticed")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "confirmed"),  # not what its claim says
        (("rungs", 1, "observed"), ""),  # passed, with nothing observed
        (("rungs", 1, "inconclusive"), True),  # passed, and inconclusive
        (("rungs", 1, "blocked_by"), "host.cpu"),  # passed, and blocked
        (("rungs", 0, "rung"), "host.gpu"),
        (("rungs", 0, "seconds"), -1),
        (("cell", "emulated"), False),  # though its nesting is emulated
        (("started",), "yesterday"),
    ],
)
def test_a_validation_cannot_contradict_itself(path: tuple[Any, ...], value: Any) -> None:
    wrong = validation()
    parent_of(wrong, path)[path[-1]] = value
    with pytest.raises(schema.SchemaError):
        schema.validate(wrong)


def test_the_error_names_the_place() -> None:
    wrong = copy.deepcopy(next(example for example in EXAMPLES if example["schema"] == "lab.list/1"))
    wrong["labs"][0]["state"] = "asleep"
    with pytest.raises(schema.SchemaError, match="asleep") as caught:
        schema.validate(wrong)
    assert caught.value.path == "$.labs[0].state"


@pytest.mark.parametrize("nameless", [{}, {"schema": "lab.nothing/1"}, {"schema": 1}, {"schema": "../x/1"}])
def test_an_unknown_schema_is_refused(nameless: dict[str, Any]) -> None:
    with pytest.raises(schema.SchemaError) as caught:
        schema.validate(nameless)
    assert caught.value.path == "$.schema"


def test_what_json_cannot_say_is_refused() -> None:
    for value in (float("nan"), Path("x")):
        with pytest.raises(schema.SchemaError, match="not JSON"):
            schema.validate(
                {"schema": "lab.config/1", "values": [{"key": "k", "value": value, "origin": "o"}]}
            )


def test_the_schemas_know_every_word_of_the_code() -> None:
    defs = schema.load("lab.validation/1")["$defs"]
    assert defs["rungName"]["enum"] == list(NAMES)
    assert defs["claim"]["enum"] == list(Claim)
    assert defs["verdict"]["enum"] == list(Verdict)
    assert defs["rung"]["properties"]["status"]["enum"] == list(Status)
    assert defs["cell"]["properties"]["nesting"]["enum"] == list(Nesting)
    assert set(State) < set(schema.load("lab.status/1")["$defs"]["state"]["enum"])
    codes = schema.load("lab.error/1")["properties"]["error"]["properties"]["exit_code"]["enum"]
    assert codes == [code for code in ExitCode if code]


def test_what_a_validation_document_says() -> None:
    redact.register("s3cret-nonce")
    found = validation(facts={"nonce": "s3cret-nonce"})
    assert (found["claim"], found["verdict"]) == ("nesting", "inconclusive")
    assert found["reason"] == "nested.boot could not be settled: ADB did not answer in 60 s"
    assert (found["started"], found["seconds"]) == ("2026-01-02T01:04:05.000+00:00", 61.5)
    assert "s3cret" not in json.dumps(found)
    with pytest.raises(ValueError, match="zone"):
        naive = datetime(2026, 1, 2)
        document(
            lab_name="a",
            lab_uuid=UUID,
            cell=CELL,
            climbed=climb({}, steps=Steps()),
            claims=judge([], CELL),
            claim=Claim.NESTING,
            started=naive,
            ended=datetime.now(UTC),
        )


def test_an_engine_that_cannot_be_asked_still_gives_a_document() -> None:
    cell = dataclasses.replace(
        CELL, engine_version="", acceleration="", nesting=Nesting.NONE, emulated=False, image=""
    )
    climbed = climb({"host.engine": absent}, steps=Steps())
    claims = judge(climbed.outcomes, cell)
    now = datetime.now(UTC)
    found = document(
        lab_name="a",
        lab_uuid=UUID,
        cell=cell,
        climbed=climbed,
        claims=claims,
        claim=Claim.NESTING,
        started=now,
        ended=now,
    )
    schema.validate(found)
    assert (found["verdict"], found["reason"]) == (
        "blocked",
        "host.engine was blocked: qemu is not installed",
    )
    assert summary(cell, claims, Claim.NESTING)[0].startswith(
        "nesting: blocked, for qemu (not started, no nesting)"
    )


def test_the_summary_names_verdict_cell_and_limits() -> None:
    first, *rest = summary(CELL, judge([], CELL), Claim.NESTING)
    assert first.startswith("nesting: inconclusive, for qemu 7.2.17 (tcg, nesting emulated in software)")
    text = "\n".join(rest)
    assert "android: blocked" in text and "theory: not applicable" in text
    for limit in ("real hardware", "no Android", "not settled here", "macOS"):
        assert any(line.startswith("not proven:") and limit in line for line in rest), limit
