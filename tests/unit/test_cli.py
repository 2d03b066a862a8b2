"""The tasks as a user meets them: JSON alone on standard output, and exit codes that are a contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import schema

ROOT = Path(__file__).resolve().parents[2]
INVOKE = Path(sys.executable).parent / "invoke"


def _invoke(state: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    return subprocess.run(
        [INVOKE, *words],
        cwd=ROOT,
        env=clean | {"LAB_STATE_DIR": str(state), "LAB_CACHE_DIR": str(state / "cache")} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(done.stdout)
    schema.validate(document)
    return document


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["lab.list"], "lab.list/1"),
        (["lab.config"], "lab.config/1"),
        (["lab.evidence"], "lab.evidence/1"),
        (["image.list"], "image.list/1"),
        (["image.verify"], "image.action/1"),
        (["image.prune"], "image.action/1"),
    ],
)
def test_json_is_one_document_of_its_schema(tmp_path: Path, words: list[str], name: str) -> None:
    done = _invoke(tmp_path, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert _document(done)["schema"] == name


@pytest.mark.parametrize(
    ("words", "env", "hint"),
    [
        (["lab.status", "--name", "nowhere"], {}, "lab.up"),
        (["lab.up", "--name", "Not A Name"], {}, "not-a-name"),
        (["lab.up", "--engine", "qmeu"], {}, "qemu"),
        (["lab.up"], {"LAB_VM__MEMROY_MIB": "1"}, "LAB_VM__MEMORY_MIB"),
        (["lab.up"], {"LAB_VM__MEMORY_MIB": "99999999"}, "memory_mib"),
        (["lab.exec"], {}, "lab.exec --"),
    ],
)
def test_bad_usage_answers_2_with_a_hint_and_creates_nothing(
    tmp_path: Path, words: list[str], env: dict[str, str], hint: str
) -> None:
    done = _invoke(tmp_path / "state", *words, *([] if words == ["lab.exec"] else ["--json"]), **env)
    assert done.returncode == 2, done.stderr
    assert hint in done.stderr
    assert not (tmp_path / "state").exists()
    if words != ["lab.exec"]:
        assert _document(done)["error"]["exit_code"] == 2


@pytest.mark.parametrize("words", [["--nonsense"], ["lab.up", "--nope"], ["lab.nothing"], ["lab.snapshot"]])
def test_invokes_own_usage_errors_answer_2(tmp_path: Path, words: list[str]) -> None:
    done = _invoke(tmp_path, *words)
    assert done.returncode == 2
    assert "hint:" in done.stderr


def test_every_task_of_the_contract_is_there(tmp_path: Path) -> None:
    listed = {line.split()[0] for line in _invoke(tmp_path, "--list").stdout.splitlines() if line.strip()}
    lab = "up status list validate ssh exec copy logs halt suspend resume snapshot restore snapshots destroy"
    wanted = {f"lab.{name}" for name in f"{lab} doctor config evidence".split()}
    wanted |= {f"image.{name}" for name in ["list", "fetch", "build", "verify", "prune"]} | {
        "test",
        "lint",
        "bench",
    }
    assert wanted <= listed


def test_missing_packages_give_the_command_when_lab_may_not_install(tmp_path: Path) -> None:
    done = _invoke(
        tmp_path, "lab.up", "--json", LAB_INSTALL="never", LAB_QEMU__BINARY="/no/such/qemu-system-x86_64"
    )
    assert done.returncode == 11, done.stderr
    rungs = {rung["rung"]: rung for rung in _document(done)["rungs"]}
    assert rungs["host.engine"]["status"] == "blocked"
    assert rungs["vm.settings"]["blocked_by"] == "host.engine"
