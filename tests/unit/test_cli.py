"""The tasks as a user meets them: JSON alone on standard output, and exit codes that are a contract."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import schema

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
        (["theory.rehearse", "--cpu", "z80"], {}, "haswell"),
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


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["bench", "--runs", "x"], "--runs takes a whole number, and 'x' is none"),
        (["lab.compare", "--runs=two"], "--runs takes a whole number, and 'two' is none"),
        (["lab.report", "--runs", "1.5"], "--runs takes a whole number, and '1.5' is none"),
        (["theory.experiment", "--seed", ""], "--seed takes a whole number, and '' is none"),
        (["nightly.history", "--limit", "all"], "--limit takes a whole number, and 'all' is none"),
        (["lab.nothing"], "No idea what 'lab.nothing' is!"),
        (["lab.up", "--nope"], "No idea what '--nope' is!"),
        (["bench", "--runs", "0"], "--runs 0 measures nothing"),
    ],
)
def test_what_invoke_cannot_read_is_a_document_too(tmp_path: Path, words: list[str], what: str) -> None:
    done = _invoke(tmp_path / "state", *words, "--json")
    assert done.returncode == 2, done.stderr
    error = _document(done)["error"]
    assert (error["what"], error["exit_code"]) == (what, 2)
    assert what in done.stderr and "Traceback" not in done.stderr
    assert not _invoke(tmp_path / "state", *words).stdout, "without --json, standard output stays empty"


def test_a_json_that_belongs_to_another_program_asks_for_no_document(tmp_path: Path) -> None:
    done = _invoke(tmp_path, "lab.nothing", "--", "docker", "info", "--json")
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    ("task", "texts"),
    [
        ("lab.up", ["destroy the lab of that name first", "auto, virtualbox or qemu", "schema lab.up/1"]),
        ("emulator.up", ["a name of its own for one beside it"]),
        ("theory.explain", ["another host than this one"]),
    ],
)
def test_help_explains_each_flag(tmp_path: Path, task: str, texts: list[str]) -> None:
    said = " ".join(_invoke(tmp_path, "--help", task).stdout.split())
    for text in texts:
        assert text in said


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
