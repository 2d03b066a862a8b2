"""What the tasks on images, this host and the project print; an error."""

from __future__ import annotations

from typing import Any

from tests.unit.documents.parts import AT, SHA

EXAMPLES: list[dict[str, Any]] = [
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
        "disk_bytes": 734003200,
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
        "schema": "lab.error/1",
        "error": {"what": "no", "hint": "", "evidence": ["log"], "tail": "", "exit_code": 20},
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
        "left_out": ["tests/e2e: no QEMU"],
        "report": "junit.xml",
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
