"""What the examples are made of, and a real document of a climb."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from lab.core.errors import BlockedError, DeadlineError
from lab.core.steps import Steps
from lab.ladder.climb import climb
from lab.ladder.report import document
from lab.ladder.rungs import LADDER
from lab.ladder.verdict import judge, strongest_claim
from lab.model.domain import Cell, Host, Nesting, Observation

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
SHA = "0" * 64

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
    checks = {name: (lambda: good) for name in LADDER.names if not name.startswith("android.")}
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
