"""Many commands in one, run by a real shell."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lab.deadline import Deadline
from lab.errors import LabError
from lab.guest.gather import gather
from lab.guest.ssh import Result


class Shell:
    """What Guest.run does, on this machine."""

    def __init__(self, cut: int | None = None) -> None:
        self.cut = cut
        self.asked = 0

    def run(self, argv: Sequence[str], **_: Any) -> Result:
        self.asked += 1
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return Result(list(argv), done.stdout[: self.cut], done.stderr, done.returncode, 0.0)


def _gather(shell: Shell, commands: dict[str, list[str]]) -> dict[str, str]:
    return gather(shell, commands, Deadline.after(10))  # type: ignore[arg-type]


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
