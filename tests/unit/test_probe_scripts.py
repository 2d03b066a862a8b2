"""The scripts that run in a VM run under old Pythons, too; and what is words where there is none."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import BlockedError, CommandError, LabError, UsageError, ending
from lab.guest import adopt, python
from lab.guest.keys import KeyPair
from lab.guest.login import AuthRefusedError
from lab.guest.ssh import Guest, Result
from lab.guest.terms import OWN
from lab.probes.kvm import SCRIPTS, CpuFacts, Probe, parsed, script

_LATER = {
    "removeprefix": (3, 9),
    "removesuffix": (3, 9),
    "readlink": (3, 9),
    "is_relative_to": (3, 9),
    "missing_ok": (3, 8),
    "capture_output": (3, 7),
    "text": (3, 7),
    "CLOCK_BOOTTIME": (3, 7),
    "fromisoformat": (3, 7),
    "time_ns": (3, 7),
    "monotonic_ns": (3, 7),
    "unparse": (3, 9),
    "waitstatus_to_exitcode": (3, 9),
    "pidfd_open": (3, 9),
    "memfd_create": (3, 8),
    "nullcontext": (3, 7),
    "cache": (3, 9),
    "strict": (3, 10),
}
"""Names that the standard library has since: of attributes and of keywords, where a script could use them."""
_OWN = {"os.readlink"}
"""Old functions of such a name."""


def test_all_scripts_are_known() -> None:
    folder = Path(python.__file__).parent.parent / "probes" / "scripts"
    assert {path.name for path in folder.glob("*.py")} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_needs_no_more_than_the_oldest_python(name: str) -> None:
    tree = ast.parse(script(name), feature_version=python.OLDEST)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "__future__", "annotations are of Python 3.7"
        if isinstance(node, ast.Attribute) and ast.unparse(node) not in _OWN:
            assert _LATER.get(node.attr, python.OLDEST) <= python.OLDEST, ast.unparse(node)
        if isinstance(node, ast.keyword):
            assert _LATER.get(node.arg or "", python.OLDEST) <= python.OLDEST, node.arg
        if isinstance(node, ast.FunctionDef):
            every = [*node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            for annotation in (node.returns, *(arg.annotation for arg in every if arg)):
                assert not annotation or _evaluates(annotation), ast.unparse(node)
    for node in tree.body:  # in a function they are not evaluated
        assert not isinstance(node, ast.AnnAssign) or _evaluates(node.annotation)


def _evaluates(annotation: ast.expr) -> bool:
    """Whether an old Python could: no `list[int]`, no `int | None`, unless in quotes."""
    generic = {"list", "dict", "tuple", "set", "type"}
    return not any(
        isinstance(node, ast.BinOp)
        or (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in generic)
        for node in ast.walk(annotation)
    )


def _old() -> list[str]:
    """Old Pythons of this machine, if any."""
    names = [shutil.which(f"python3.{minor}") or "" for minor in range(6, 10)]
    return [
        name for name in names if name and subprocess.run([name, "-V"], capture_output=True).returncode == 0
    ]


@pytest.mark.skipif(not _old(), reason="no old Python here")
@pytest.mark.parametrize("program", _old())
def test_the_probes_run_under_an_old_python(program: str) -> None:
    for name, model in (("kvm_probe.py", Probe), ("cpu_facts.py", CpuFacts)):
        done = subprocess.run([program, "-"], input=script(name).encode(), capture_output=True, timeout=60)
        assert parsed(model, done.stdout.decode(), done.stderr.decode())
    for name in SCRIPTS:
        done = subprocess.run(
            [program, "-c", "import sys; compile(sys.stdin.read(), 'x', 'exec')"],
            input=script(name).encode(),
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr


class FakeGuest:
    """A machine whose python3 is `program`, or one that is not there."""

    terms = OWN

    def __init__(self, program: list[str], status: int | None = None) -> None:
        self.program, self.status = program, status
        self.asked: list[list[str]] = []

    def run(self, argv: list[str], *, check: bool = True, stdin: str = "", **_: Any) -> Result:
        self.asked.append(argv)
        if self.status is not None:
            err = "timeout: failed to run command 'python3': No such file or directory"
            done = Result(argv, "", err, self.status, 0.0)
        else:
            words = [*self.program, *argv[1:]]
            ran = subprocess.run(words, input=stdin, capture_output=True, text=True, env={**os.environ})
            done = Result(argv, ran.stdout, ran.stderr, ran.returncode, 0.0)
        if check and done.status:
            raise CommandError(argv, done.status, tail=done.out + done.err)
        return done


def _guest(*program: str, status: int | None = None) -> Guest:
    return cast(Guest, FakeGuest(list(program), status))


def test_a_python_that_has_everything_will_do() -> None:
    assert python.require(_guest(sys.executable, "-I")) == ".".join(map(str, sys.version_info[:3]))
    assert (
        json.loads(python.run(_guest(sys.executable, "-I"), "cpu_facts.py").out)["schema"]
        == "lab.cpu_facts/1"
    )


def test_a_machine_without_python_is_refused() -> None:
    with pytest.raises(UsageError, match="it has no python3") as caught:
        python.require(_guest(status=127))
    assert "Python 3.6" in caught.value.hint
    with pytest.raises(BlockedError, match="no python3"):
        python.run(_guest(status=127), "kvm_probe.py")


def _wrapped(tmp_path: Path, before: str) -> str:
    """A python3 of which `before` is true."""
    program = tmp_path / "python3"
    (tmp_path / "sitecustomize.py").write_text(before)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("module", ["mmap", "array"])
def test_a_python_that_lacks_a_module_is_refused(tmp_path: Path, module: str) -> None:
    program = _wrapped(tmp_path, f"import sys; sys.modules[{module!r}] = None")
    with pytest.raises(UsageError, match=f"lacks the module {module}"):
        python.require(_guest(program))


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    program = _wrapped(tmp_path, "import sys; sys.version_info = (3, 5, 2)")
    with pytest.raises(UsageError, match=r"is Python 3\.5"):
        python.require(_guest(program))


@pytest.mark.parametrize(
    ("status", "tail", "kind", "words"),
    [
        (1, "ModuleNotFoundError: No module named 'mmap'", BlockedError, "lacks the module mmap"),
        (1, "SyntaxError: invalid syntax", BlockedError, "too old"),
        (127, "sh: 1: exec: /usr/bin/python3: not found", BlockedError, "no python3"),
        (137, "", CommandError, "status 137 (SIGKILL)"),
        (1, "OSError: [Errno 12] Cannot allocate memory", CommandError, "status 1"),
        (127, "exec /proof: exec format error", CommandError, "status 127"),
    ],
)
def test_a_script_that_did_not_run_says_what_was_missing(
    status: int, tail: str, kind: type[LabError], words: str
) -> None:
    error = python.explained(CommandError(["python3", "-"], status, tail=tail))
    assert type(error) is kind and words in error.what


class Machine(FakeGuest):
    """One machine seen through logins of `users`."""

    users: tuple[str, ...] = ()
    made: list[Machine] = []  # noqa: RUF012 - of one test

    def __init__(self, *, user: str, **_: Any) -> None:
        super().__init__([], 127)
        self.user = user
        self.made.append(self)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None: ...

    def open(self) -> None:
        if self.user not in self.users:
            raise AuthRefusedError("no such key")


@pytest.mark.parametrize("users", [("vagrant",), ("vagrant", "lab")])
def test_a_machine_without_python_is_refused_before_anything_is_made_there(
    monkeypatch: pytest.MonkeyPatch, users: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Machine, "users", users)
    monkeypatch.setattr(Machine, "made", [])
    monkeypatch.setattr(adopt, "Guest", Machine)
    own = cast(KeyPair, type("Own", (), {"private": Path("key"), "public_line": "ssh-ed25519 x"}))
    with pytest.raises(UsageError, match="it has no python3"):
        adopt.admit(22, "vagrant", [Path("key")], Path("known"), own)
    asked = [argv for machine in Machine.made for argv in machine.asked]
    assert [argv[0] for argv in asked] == ["python3"]


@given(st.integers(min_value=-64, max_value=255) | st.none())
def test_every_ending_is_a_phrase(status: int | None) -> None:
    assert re.fullmatch(r"was killed( by SIG\w+)?|ended with status \d+( \(SIG\w+\))?", ending(status))


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (None, "was killed"),
        (-1, "was killed"),
        (-9, "was killed by SIGKILL"),
        (0, "ended with status 0"),
        (72, "ended with status 72"),
        (137, "ended with status 137 (SIGKILL)"),
        (139, "ended with status 139 (SIGSEGV)"),
        (255, "ended with status 255"),
    ],
)
def test_a_signal_is_named(status: int | None, phrase: str) -> None:
    assert ending(status) == phrase
