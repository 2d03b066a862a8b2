"""Many commands in one, run by a real shell."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.guest import gather as gathering
from lab.guest.gather import gather
from lab.guest.ssh import Result
from lab.guest.terms import OWN


class Shell:
    """What Guest.run does, on this machine."""

    terms = OWN

    def __init__(self, cut: int | None = None) -> None:
        self.cut = cut
        self.asked = 0

    def run(self, argv: Sequence[str], **_: Any) -> Result:
        self.asked += 1
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return Result(list(argv), done.stdout[: self.cut], done.stderr, done.returncode, 0.0)


def _gather(shell: Shell, commands: dict[str, list[str]], **more: Any) -> dict[str, str]:
    return gather(shell, commands, Deadline.after(10), **more)  # type: ignore[arg-type]


def test_each_command_gives_its_own_words_and_one_that_fails_gives_its_error(tmp_path: Path) -> None:
    odd = tmp_path / "it's odd $HOME"
    odd.write_text("no end of line")
    shell = Shell()
    found = _gather(
        shell,
        {
            "text": ["printf", "%s\\n", "two words", "a 'quote'"],
            "file": ["cat", str(odd)],
            "empty": ["true"],
            "failed": ["cat", str(tmp_path / "absent")],
            "unknown": ["no-such-program-here"],
        },
    )
    assert found["text"] == "two words\na 'quote'\n"
    assert found["file"] == "no end of line" and found["empty"] == ""
    assert "No such file" in found["failed"] and "not found" in found["unknown"]
    assert shell.asked == 1


def test_half_an_answer_is_an_error_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(LabError, match="whole"):
        _gather(Shell(cut=60), {"a": ["seq", "100"], "b": ["seq", "100"]})
    assert list(tmp_path.iterdir()) == []
    assert _gather(Shell(), {}) == {}


def test_a_command_may_show_the_command_line_that_asked_for_it() -> None:
    shown = ["sh", "-c", "tr '\\0' '\\n' </proc/$PPID/cmdline"]  # as the journal does, where sudo logs
    found = _gather(Shell(), {"log": shown, "more": ["echo", "more"]})
    assert "mktemp" in found["log"] and found["more"] == "more\n"


def test_errors_of_what_a_program_reads_are_told_apart() -> None:
    noisy = ["sh", "-c", "echo warning >&2; echo '[1]'"]
    found = _gather(Shell(), {"read": noisy, "quiet": ["echo", "a"], "log": noisy}, apart=["read", "quiet"])
    assert found == {"read": "[1]\n", "read.stderr": "warning\n", "quiet": "a\n", "log": "warning\n[1]\n"}


def test_of_a_long_answer_the_end_is_kept_and_what_is_missing_is_said() -> None:
    found = _gather(Shell(), {"long": ["seq", "1000000"], "short": ["echo", "a"]})
    mark, _, kept = found["long"].partition("\n")
    assert mark == f"[lab: {6888896 - gathering.LIMIT_BYTES} bytes were left out here]"
    assert len(kept) == gathering.LIMIT_BYTES and kept.endswith("\n1000000\n") and found["short"] == "a\n"
