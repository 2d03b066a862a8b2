"""lab.compare with its three columns, on the embedded engine: ARM is emulated in a container in L1."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Lab

pytestmark = pytest.mark.timeout(2400)


def test_nested_kvm_against_x86_without_it_and_against_arm(lab: Lab) -> None:
    assert lab.run("lab.up", "--emulator", "canary").status == 0
    document = lab.json("lab.compare", "--runs", "1")
    rows = {row["route"]: row for row in document["summary"]}
    assert list(rows) == ["nested-kvm", "no-acceleration", "arm"]
    assert [row["n"] for row in rows.values()] == [1, 1, 1], document["measurements"]
    assert rows["nested-kvm"]["median"] < min(rows[route]["median"] for route in ("no-acceleration", "arm"))
    ratios = {(ratio["over"], ratio["under"]): ratio["value"] for ratio in document["ratios"]}
    assert ratios["arm", "nested-kvm"] == pytest.approx(
        rows["arm"]["median"] / rows["nested-kvm"]["median"], abs=0.001
    )
    assert set(ratios) == {
        ("no-acceleration", "nested-kvm"),
        ("arm", "nested-kvm"),
        ("arm", "no-acceleration"),
    }
    assert document["routes"][-1]["image"].startswith("canary-arm64-emulated@sha256:")
    page = (Path(document["evidence"]) / "compare.html").read_text()
    assert "ARM image" in page and f"{ratios['arm', 'nested-kvm']:.1f} times" in page
    names = lab.json("lab.exec", "--", "sudo", "docker", "ps", "--all", "--format", "{{.Names}}")["out"]
    assert names.split() == ["lab-canary"], "the L2s that were timed are gone"
    listed = lab.json("lab.exec", "--", "sudo", "docker", "images", "--format", "{{.Repository}}")["out"]
    assert listed.split().count("lab/canary") == 2
