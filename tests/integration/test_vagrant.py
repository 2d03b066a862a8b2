"""The Vagrantfile, read by the real Vagrant; for VirtualBox down to what VBoxManage is asked, and takes.

Debian's Vagrant knows VirtualBox up to 7.0. A VBoxManage that says it is 7.0, and is the real 7.2 in all
else, lets it come further: every setting is then read back from VirtualBox itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bootsector import VIRTUALBOX, base_disk

from lab.config import Settings
from lab.core import files
from lab.core.steps import Steps
from lab.engines.vagrant import vboxmanage
from lab.engines.virtualbox.manage.machine import settings_of
from lab.engines.virtualbox.manage.text import fields
from lab.images import cache, debian
from lab.tasks.lab import vagrantfile
from lab.workflow.factories import Factories
from lab.workflow.session import ROOT, Session
from tests.integration.vboxroot import Instance
from tests.unit.fakes import FakeEngine, World

pytestmark = pytest.mark.skipif(shutil.which("vagrant") is None, reason="no Vagrant here (package vagrant)")

_TOO_NEW = "7.2.22r175245"
_OLD = "7.0.20r163906"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LAB_", "VAGRANT"))},
        "HOME": str(tmp_path),
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_NO_COLOR": "1",
        "VAGRANT_LAB_HOOKS": "off",  # what lab has prepared is looked at, and nothing else is done
        "LAB_STATE_DIR": str(tmp_path / "state"),
        "LAB_CACHE_DIR": str(tmp_path / "cache"),
    }


@pytest.fixture
def run(env: dict[str, str]) -> Run:
    def call(*words: str, folder: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["vagrant", *words], cwd=folder, env=env | more, capture_output=True, text=True, check=False
        )

    return call


def _manage(folder: Path, version: str, rest: str = "exit 0") -> Path:
    """A VBoxManage that tells this version, and writes down what else it is asked."""
    folder.mkdir(exist_ok=True)
    program = folder / "VBoxManage"
    program.write_text(
        f'#!/bin/sh\n[ "$1" != --version ] || {{ echo {version}; exit; }}\n'
        f'printf "%s\\t" "$@" >>{folder}/calls; echo >>{folder}/calls\n{rest}\n'
    )
    program.chmod(0o755)
    return folder


def _path(folder: Path) -> str:
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture
def session(tmp_path: Path, env: dict[str, str]) -> Session:
    """A session whose image is a boot sector, and stands for Debian's."""
    images = tmp_path / "cache" / "images"
    folder = images / "debian-13-0a1b2c3d4e5f"
    folder.mkdir(parents=True)
    disk = base_disk(folder / "disk.qcow2", acpi=VIRTUALBOX)
    manifest = cache.Manifest(
        id=folder.name,
        kind="guest",
        name="debian-13",
        recipe=debian.recipe_hash(),
        file=disk.name,
        format="qcow2",
        bytes=disk.stat().st_size,
        sha256=files.sha256(disk),
        created=datetime.now(UTC),
    )
    cache.seal(folder, manifest)
    env |= {"LAB_VM__DISK_GIB": "12", "LAB_VM__MEMORY_MIB": "512", "LAB_DEADLINES__BOOT": "5"}
    settings = Settings(
        image="debian-13",
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
        emulator={"kind": "canary"},
        vm={"disk_gib": 12, "memory_mib": 512},
    )
    return Session(settings.with_origins({}), Steps(), False)


@pytest.fixture
def prepared(
    session: Session, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], dict[str, object]]]:
    """What `vagrant up` prepares, done here: as if the hypervisor were there."""

    def prepare(provider: str) -> dict[str, object]:
        with monkeypatch.context() as patch:
            made = replace(session, factories=Factories(engine=lambda *_: FakeEngine(World())))
            patch.setenv("VAGRANT_DOTFILE_PATH", env["VAGRANT_DOTFILE_PATH"])
            return vagrantfile.prepare(made, "", provider).document

    return prepare


@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_both_blocks_are_valid_before_and_after_lab_prepared(
    run: Run, prepared: Callable[[str], dict[str, object]], tmp_path: Path, provider: str
) -> None:
    more = {"VAGRANT_DEFAULT_PROVIDER": provider, "PATH": _path(_manage(tmp_path / "bin", _OLD))}
    before = run("validate", **more)
    assert before.returncode == 0, before.stdout + before.stderr
    assert not (tmp_path / "state" / "labs").exists(), "looking makes nothing"
    assert prepared(provider)["prepared"]
    after = run("validate", **more)
    assert after.returncode == 0, after.stdout + after.stderr
    assert "not created" in run("status", **more).stdout


def test_without_the_projects_environment_it_says_what_to_do(run: Run, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Vagrantfile", tmp_path)
    done = run("validate", folder=tmp_path, VAGRANT_DEFAULT_PROVIDER="libvirt")
    assert done.returncode != 0
    assert f"run `bin/invoke lab.doctor` in {tmp_path} once" in done.stdout + done.stderr


def test_labs_own_error_is_told(run: Run) -> None:
    done = run("validate", VAGRANT_DEFAULT_PROVIDER="libvirt", LAB_VM__CPUS="0")
    assert done.returncode != 0
    assert "lab: environment: LAB_VM__CPUS" in done.stdout + done.stderr


def test_a_virtualbox_that_is_too_new_for_this_vagrant_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    """Vagrant 2.3.4 knows 4.0 to 7.0; whoever has 7.2 needs a Vagrant that knows it."""
    if not run("--version").stdout.startswith("Vagrant 2.3."):
        pytest.skip("another Vagrant than Debian 12's: it may know VirtualBox 7.2")
    bin_ = _manage(tmp_path / "bin", _TOO_NEW)
    done = run("validate", VAGRANT_DEFAULT_PROVIDER="virtualbox", PATH=_path(bin_))
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert (
        "Vagrant has detected that you have a version of VirtualBox installed that is not supported" in said
    )
    assert "6.1, 7.0" in said


@pytest.mark.slow
def test_the_real_virtualbox_takes_all_that_vagrant_asks(
    run: Run,
    prepared: Callable[[str], dict[str, object]],
    tmp_path: Path,
    vbox: Instance,
) -> None:
    real = " ".join([*vbox.enter, "/usr/lib/virtualbox/VBoxManage"])
    settings = " ".join(f"{name}={value}" for name, value in vbox.environment.items())
    bin_ = _manage(tmp_path / "bin", _OLD, f'exec env {settings} {real} "$@"')
    document = prepared("virtualbox")
    more = {"PATH": _path(bin_), "LAB_VIRTUALBOX__EXECUTION_ENGINE": "interpreter"}
    done = run("up", "--provider", "virtualbox", **more)
    print(done.stdout, done.stderr)  # what pytest shows when it fails
    calls = [line.rstrip("\t").split("\t") for line in (bin_ / "calls").read_text().splitlines()]
    asked = [call for call in calls if call[0] in ("modifyvm", "storageattach", "setextradata", "startvm")]
    assert any(call[0] == "startvm" for call in asked), done.stdout + done.stderr
    # Nothing nests in the interpreter: VirtualBox's refusal shows that nesting was asked for.
    assert "VERR_CPUM_INVALID_HWVIRT_CONFIG" in done.stderr
    identity = (tmp_path / "dot/machines/vagrant/virtualbox/id").read_text()
    told = vbox.run("/usr/lib/virtualbox/VBoxManage", "showvminfo", identity, "--machinereadable").out
    found = fields(told)
    assert settings_of(found) | {"uuid": ""} == {
        "cpus": "2",
        "memory_mib": "512",
        "nested": "on",
        "nested_paging": "on",
        "paravirt": "kvm",
        "uuid": "",
        "host_loopback": "out of reach",
    }
    wanted = {(item["name"], item["host_port"], item["guest_port"]) for item in document["forwards"]}  # type: ignore[attr-defined]
    assert {(item.name, item.host_port, item.guest_port) for item in vboxmanage.forwards(found)} == wanted
    assert found["SATA-1-0"] == str(document["seed"])
    assert found["uartmode1"] == f"file,{document['console']}"
    assert found["nictype1"] == "virtio"
    gone = run("destroy", "--force", **more)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert identity not in vbox.run("/usr/lib/virtualbox/VBoxManage", "list", "vms").out
