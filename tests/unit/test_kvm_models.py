"""How a functional probe's answer is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.core.errors import LabError
from lab.probes.kvm import parse_probe

RUNS = {
    "started": True,
    "entered": True,
    "ok": True,
    "exits": ["io", "io", "hlt"],
    "exit_reason": 5,
    "hardware_entry_failure_reason": None,
    "error": "",
    "seconds": 0.01,
}
REFUSED = RUNS | {
    "entered": False,
    "ok": False,
    "exits": ["fail_entry"],
    "exit_reason": 9,
    "hardware_entry_failure_reason": 2**64 - 1,
    "error": "entry failed, hardware error 0xffffffffffffffff",
}
DEVICE = {
    "exists": True,
    "opened": True,
    "api_version": 12,
    "mode": "0660",
    "owner": "root",
    "group": "kvm",
    "error": "",
}
CLOSED = DEVICE | {"opened": False, "api_version": None, "error": "/dev/kvm: Permission denied"}


def _line(device: Any, real: Any, long: Any) -> str:
    return json.dumps({"schema": "lab.kvm_probe/1", "device": device, "real_mode": real, "long_mode": long})


@pytest.mark.parametrize(
    ("device", "real", "long", "ok", "why"),
    [
        (DEVICE, RUNS, RUNS, True, "real mode: runs; long mode: runs"),
        (
            DEVICE,
            REFUSED,
            RUNS,
            False,
            "real mode: entry failed, hardware error 0xffffffffffffffff; long mode: runs",
        ),
        (DEVICE, RUNS, REFUSED, False, "long mode: entry failed"),
        (CLOSED, None, None, False, "/dev/kvm: Permission denied"),
        (DEVICE, None, None, False, ""),
    ],
)
def test_ok_only_when_both_modes_ran(device: Any, real: Any, long: Any, ok: bool, why: str) -> None:
    probe = parse_probe(_line(device, real, long))
    assert probe.ok is ok
    assert why in probe.why


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback (most recent call last):",
        _line(DEVICE, RUNS, RUNS | {"ok": "yes"}),
        _line(DEVICE, RUNS, {"ok": True}),
        _line(DEVICE, RUNS, RUNS | {"more": 1}),
        _line(DEVICE, RUNS, RUNS).replace("probe/1", "probe/2"),
    ],
)
def test_anything_else_is_an_error_not_an_answer(text: str) -> None:
    with pytest.raises(LabError, match="printed something else"):
        parse_probe(text)
