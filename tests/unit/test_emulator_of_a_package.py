"""The emulator of docs/extending.md, installed beside lab: its code and its entry point are the page's."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from lab import emulators
from lab.config import Settings
from lab.config.loading import load
from lab.core.deadline import Deadline
from lab.core.errors import InconclusiveError, LabError, UsageError
from lab.core.steps import Steps
from lab.emulators.protocol import Emulator, NestedFailedError
from lab.formats import oci
from lab.formats.cpio import CpioEntry
from lab.guest.ssh import Guest
from tests.unit.bed import Bed
from tests.unit.canaries import Shell, place

PAGE = (Path(__file__).parents[2] / "docs/extending.md").read_text()
FACTS = "nonce=abc boot_id=boot-of-l2 hypervisor=KVMKVMKVM kernel=6.12"


def _block(language: str) -> str:
    section = PAGE[PAGE.index("\n## Write an emulator\n") :].split("\n## ")[1]
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return block


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, installed as pip would."""
    folder = tmp_path / "site"
    info = folder / "lab_plain-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "lab_plain.py").write_text(_block("python"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-plain\nVersion: 1.0\n")
    header, line = _block("toml").splitlines()
    group = header.removeprefix('[project.entry-points."').removesuffix('"]')
    (info / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "lab_plain", raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    archive = tmp_path / "plain.tar"
    oci.write(archive, reference="plain:1", entries={"x": CpioEntry.file(b"x")}, config={})
    return Settings(emulator={"kind": "plain", "archive": str(archive)})  # type: ignore[arg-type]


@pytest.fixture
def plain(tmp_path: Path, settings: Settings) -> Emulator:
    return emulators.emulator("plain", place(tmp_path, settings=settings))


def _guest(folder: Path, log: str, **more: Any) -> Guest:
    """An L1 whose docker starts a container that says `log` and runs on."""
    described = {"Id": "1" * 64, "Image": "", "State": {"Running": True}, **more}
    described["Config"] = {"Env": ["NONCE=abc"], "Labels": {"io.lab.uuid": "u-1"}}
    text = json.dumps([described])
    return cast(Guest, Shell(folder, f"case $1 in logs) echo '{log}' ;; container) echo '{text}' ;; esac"))


def test_settings_and_lab_know_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert emulators.names() == ("canary", "docker-android", "plain")
    monkeypatch.setenv("LAB_EMULATOR__KIND", "plain")
    assert load({}).emulator.kind == "plain"
    with pytest.raises(UsageError, match="'docker-android', 'plain' or 'none'"):
        load({"emulator.kind": "plane"})


def test_it_refuses_settings_before_a_lab_is_made(bed: Bed) -> None:
    from lab.workflow import selection

    session = bed.session(emulator="plain")
    with pytest.raises(UsageError, match="plain has no image"):
        selection.planned(session, "default")


def test_it_is_started_under_kvm_with_its_nonce_and_its_port(plain: Emulator, tmp_path: Path) -> None:
    shell = Shell(tmp_path, "true")
    with Steps().step("start") as step:
        plain.prepare(step)
        plain.start(cast(Guest, shell), step, nonce="abc")
    run = shell.did()[-1]
    assert "--name lab-plain --device /dev/kvm --group-add 106" in run
    assert "--env NONCE=abc --publish 10.0.2.15:5555:5555 plain:1" in run


def test_what_l2_says_is_a_proof_and_only_kvms_word_refutes(plain: Emulator, tmp_path: Path) -> None:
    proof = plain.booted(_guest(tmp_path, f"ready {FACTS}"), Deadline.after(10))
    assert (proof.nonce, proof.hypervisor, proof.boot_id) == ("abc", "KVMKVMKVM", "boot-of-l2")
    with pytest.raises(NestedFailedError) as refuted:
        plain.booted(_guest(tmp_path, "kvm: KVM: entry failed"), Deadline.after(10))
    assert "entry failed" in refuted.value.tail
    with pytest.raises(InconclusiveError, match="ended before"):
        plain.booted(_guest(tmp_path, "it fell"), Deadline.after(10))


def test_it_is_known_by_its_image_and_its_nonce(plain: Emulator, tmp_path: Path) -> None:
    image = plain.image_id().removeprefix("plain@")
    state = plain.state(_guest(tmp_path, "", Image=image))
    assert plain.runs_with(state, "abc") and not plain.runs_with(state, "of another launch")
    assert not plain.runs_with(plain.state(_guest(tmp_path, "", Image="sha256:another")), "abc")


def test_one_that_no_package_brings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="there is no emulator `plan`"):
        emulators.emulator("plan", place(tmp_path))
