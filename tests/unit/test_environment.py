"""bin/invoke and bin/make_venv.py: a real environment of a very small project, made while others look on."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lab.cli import program

BIN = Path(__file__).resolve().parents[2] / "bin"
# A build backend of the standard library alone, so that nothing is fetched; its wheel has a script `invoke`.
BACKEND = """\
import base64, hashlib, os, zipfile
def build_editable(folder, config_settings=None, metadata_directory=None):
    name, info = "tiny-1-py3-none-any.whl", "tiny-1.dist-info/"
    files = {
        "tiny.py": "import os, sys\\n"
            "def main():\\n"
            "    print(os.environ['LAB_CWD'], *sys.argv[1:], flush=True)\\n"
            "    if 'wait' in sys.argv: sys.stdin.readline()\\n"
            "    import tiny_later\\n"
            "    print(tiny_later.__file__)\\n",
        "tiny_later.py": "",
        info + "METADATA": "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nGenerator: tiny\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        info + "entry_points.txt": "[console_scripts]\\ninvoke = tiny:main\\n",
    }
    files[info + "RECORD"] = "".join(f"{path},,\\n" for path in [*files, info + "RECORD"])
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project with its environment made, to copy from; an environment itself cannot be moved."""
    root = tmp_path_factory.mktemp("home") / "a project"
    shutil.copytree(BIN, root / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "requirements.lock").write_text("")
    return root


def start(root: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LAB_")}
    return subprocess.Popen(
        [root / "bin" / "invoke", *words],
        cwd=root.parent,
        env=clean | {"LAB_PYTHON": sys.executable} | env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def made(root: Path) -> Path:
    return (root / ".venv").resolve()


def test_an_environment_is_made_once_however_many_ask_and_the_callers_folder_is_passed_on(
    project: Path,
) -> None:
    both = [start(project, "a b"), start(project, "c")]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sum(errors.count("making .venv") for _, errors in outputs) == 1
    assert sum("lab: waiting for process" in errors for _, errors in outputs) <= 1
    assert outputs[0][0].splitlines()[0] == f"{project.parent} a b"
    again = start(project).communicate(timeout=60)
    assert again[1] == "", "a fresh environment is not made again"


def test_a_command_at_work_keeps_its_environment_when_the_lock_file_changes(project: Path) -> None:
    start(project).communicate(timeout=120)
    before = made(project)
    at_work = start(project, "wait")
    assert at_work.stdout is not None
    assert at_work.stdout.readline().endswith("wait\n")
    (project / "requirements.lock").write_text("# another\n")
    start(project).communicate(timeout=120)
    assert made(project) != before
    output, errors = at_work.communicate("\n", timeout=60)
    assert at_work.returncode == 0, errors
    assert output.strip().startswith(str(before)), "what is imported late is still the old environment's"


def test_a_maker_that_was_killed_is_not_waited_for_whatever_the_lock_file_says(project: Path) -> None:
    start(project).communicate(timeout=120)
    half = made(project)
    (half / ".complete").unlink()
    shutil.rmtree(half / "bin")
    # A pid that is alive, and another user's, and not the maker's: only the kernel's lock counts.
    (project / ".venvs" / "lock").write_text("process 1 of root\n")
    process = start(project)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "waiting" not in errors
    assert "making .venv" in errors


def test_who_is_waited_for_is_told_and_the_wait_ends_with_the_holder(project: Path) -> None:
    start(project).communicate(timeout=120)
    (made(project) / ".complete").unlink()
    lock = project / ".venvs" / "lock"
    with lock.open("r+") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        holder.write("process 4711 of somebody\n")
        holder.flush()
        process = start(project)
        assert process.stderr is not None
        assert "waiting for process 4711 of somebody" in process.stderr.readline()
        assert process.poll() is None
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


@pytest.mark.parametrize("system", ["MINGW64_NT-10.0-22631", "MSYS_NT-10.0", "CYGWIN_NT-10.0"])
def test_windows_is_told_that_lab_does_not_run_there_and_what_does(
    project: Path, tmp_path: Path, system: str
) -> None:
    uname = tmp_path / "uname"
    uname.write_text(f"#!/bin/sh\necho {system}\n")
    uname.chmod(0o755)
    process = start(project, PATH=f"{tmp_path}:{os.environ['PATH']}")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (11, "")
    assert "does not run on Windows" in errors and "WSL2" in errors


def test_windows_own_python_is_told_so_too() -> None:
    program = "import sys; sys.platform = 'win32'; import lab.cli.task"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("lab does not run on Windows") and "WSL2" in done.stderr


@pytest.mark.parametrize("python", ["no-such-python", "/bin/false", "/etc/passwd"])
def test_a_lab_python_that_is_none_is_refused_by_name(project: Path, python: str) -> None:
    process = start(project, LAB_PYTHON=python)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert python in errors
    assert "hint:" in errors
    assert output == ""


def test_what_pip_refuses_is_blocked_with_the_command(project: Path) -> None:
    (project / "requirements.lock").write_text("no-hash-given==1\n")
    process = start(project, PIP_NO_INDEX="1")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 11
    assert "requirements.lock" in errors
    assert "hint:" in errors
    (project / "requirements.lock").write_text("")


@pytest.fixture
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_venv", BIN / "make_venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environments(tmp_path: Path) -> Iterator[Path]:
    day = 24 * 3600
    for name, age, complete in (
        ("current", 9 * day, True),
        ("held", 9 * day, True),
        ("unused", 2 * day, True),
        ("recent", 60, True),
        ("half", 60, False),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / ".used").touch()
        os.utime(folder / ".used", (time.time() - age,) * 2)
        if complete:
            (folder / ".complete").touch()
    yield tmp_path


def test_only_what_nobody_runs_in_is_removed(maker: ModuleType, environments: Path) -> None:
    with (environments / "held" / ".used").open() as used:
        fcntl.flock(used, fcntl.LOCK_SH)
        maker.prune(environments / "current")
    assert {folder.name for folder in environments.iterdir()} == {"current", "held", "recent"}


def test_a_command_holds_its_environment(
    maker: ModuleType, environments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(environments / "unused"))
    program.hold_environment()
    marker = environments / "unused" / ".used"
    assert time.time() - marker.stat().st_mtime < 60, "a use is remembered"
    with marker.open() as other:
        assert not maker.take(other.fileno())


def test_a_folder_of_an_older_lab_gives_way_to_the_link(maker: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venvs" / "new").mkdir(parents=True)
    maker.link(tmp_path / ".venvs" / "new", tmp_path)
    assert (tmp_path / ".venv").readlink() == Path(".venvs/new")
