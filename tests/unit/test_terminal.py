"""What others say reaches the terminal as text only; the display is gone when somebody else writes there."""

from __future__ import annotations

import ast
import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from lab.cli.console import LiveSink, PlainSink
from lab.core.characters import printable
from lab.core.errors import LabError
from lab.core.steps import Event
from lab.core.tell import Terminal, show_error
from lab.documents.nights import NoticeFinding
from lab.history.model import counted
from lab.ladder import report
from lab.model.domain import Claim, Outcome, Status
from lab.notify.github import _body, _title
from lab.notify.message import Notice
from lab.reports import markdown
from tests.unit.terminal import ROOT, environment, on_terminal, script

INVOKE = Path(sys.executable).parent / "invoke"

HOSTILE = (
    "\x1b]52;c;cm0gLXJm\x07\r\x9b2J\x1b[1A\u202edrow\u2066\x00\x7f\x85\u2028\u200f[bold]x[/bold]:smile:\t."
)
_OWN = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""Rich's own colours and cursor movements."""

ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Everything but a newline that a terminal does something with, instead of showing it."""

texts = st.one_of(
    st.text(max_size=60),
    st.text("\x1b[]\r\n\t\x07\x9b\u202e;0mA/ab", max_size=30),
    st.just(HOSTILE),
)


def event(text: str, kind: str) -> Event:
    return Event(kind, 1, 0, "step", "", 0.1, text, 1.0, 2.0)  # type: ignore[arg-type]


def outcome(text: str) -> Outcome:
    return Outcome("vm.boot", Status.FAILED, text, text, hint=text)


def printed(*says: Callable[[Terminal], object], terminal: bool = False, width: int = 60) -> str:
    file = io.StringIO()
    console = Terminal(file, force_terminal=terminal, width=width)
    for say in says:
        say(console)
    return file.getvalue()


def everyone(text: str) -> list[Callable[[Terminal], object]]:
    """Everybody who prints on the terminal, each with `text` wherever somebody else's words can be."""

    def in_table(console: Terminal) -> None:
        table = Table(title=text, caption=text)
        table.add_column(text)
        table.add_row(text)
        table.add_row(Text(text))
        console.print(table)

    def live(console: Terminal) -> None:
        sink = LiveSink(console)
        for kind in ("started", "progress"):
            sink(event(text, kind))
        console.print(sink._render())
        for kind in ("note", "failed"):
            sink(event(text, kind))

    def plain(console: Terminal) -> None:
        sink = PlainSink(console)
        for kind in ("started", "progress", "note", "failed", "finished"):
            sink(event(text, kind))

    return [
        in_table,
        live,
        plain,
        lambda console: console.print(text),
        lambda console: console.print(text, soft_wrap=True, highlight=False),
        lambda console: console.print(Text(text, "bold")),
        lambda console: console.print(report.table([outcome(text)], Claim.NESTING)),
        lambda console: show_error(console, LabError(text, hint=text, tail=text, evidence=[text])),
    ]


@given(texts, st.booleans(), st.sampled_from([20, 60, 200]))
def test_no_text_prints_a_control_character_but_newline(text: str, terminal: bool, width: int) -> None:
    for say in everyone(text):
        out = printed(say, terminal=terminal, width=width)
        assert not ACTS.search(_OWN.sub("", out) if terminal else out), (say, out)


@given(texts)
def test_what_is_left_of_a_text_with_colours_is_rich_s_own(text: str) -> None:
    """No colour, title or clipboard of a text survives: only the style that lab gave is there."""
    plain = printed(lambda console: console.print(Text(text)), terminal=True)
    assert "\x1b" not in plain


def test_markup_is_text() -> None:
    out = printed(lambda console: console.print("Run it? [y/N] [bold red]no[/] :warning: [/nope]"))
    assert out == "Run it? [y/N] [bold red]no[/] :warning: [/nope]\n"
    table = Table("[y/N]", title="[i]t[/i]")
    table.add_row("[/]")
    out = printed(lambda console: console.print(table))
    assert all(word in out for word in ("[y/N]", "[i]t[/i]", "[/]"))


def test_a_forged_line_is_marked_as_somebody_elses() -> None:
    forged = "boom\nerror: none\r\n  hint: curl evil | sh\r12:00:00 done  vm.boot"
    shown = printed(
        lambda console: show_error(console, LabError(forged, hint=forged)), width=200
    ).splitlines()
    assert [line for line in shown if not line.startswith("  │ ")] == ["error: boom", "  hint: boom"]
    assert len(printed(lambda console: PlainSink(console)(event(forged, "note"))).splitlines()) == 1
    cell = printed(
        lambda console: console.print(report.table([outcome("a\nhint: b")], Claim.NESTING)), width=200
    )
    assert "a hint: b" in cell and cell.count("\n") == 4


def test_a_control_character_stays_visible() -> None:
    assert printable("a\x1b]0;x\x07b\u202ec\r\nd\re\tf") == "a\ufffd]0;x\ufffdb\ufffdc\nd\ne\tf"


@given(texts)
def test_notices_and_pages_are_text_too(text: str) -> None:
    finding = NoticeFinding(marker="m", text=text, worse=True)
    notice = Notice(
        1, "u", "h", "now", "android", "refuted", text, text, counted({}), findings=[finding], notes=[text]
    )
    document = notice.document()
    words = [notice.title, *notice.lines, document["reason"], document["cell"], *document["notes"]]
    words += [document["findings"][0]["text"], _title(finding, notice), _body(finding, notice)]
    for word in [*words, markdown.page(text, text, [], [text])]:
        assert not ACTS.search(word.replace("\t", "")), word
    assert "\n~~~~\n" not in _body(finding, notice)[4:].rpartition("\n~~~~\n")[0]


RAW = {"core/screen.py", "guest/runner.py", "tasks/lab/ssh.py"}
"""Where what a person asked to have as it is goes to the standard streams."""
ENTRANCE = {"core/tell.py", "cli/perform.py", "cli/program.py", "cli/streams.py", "documents/__main__.py"}


def test_nobody_goes_past_the_door() -> None:
    """A console of one's own, a print, a write to a standard stream: only where it is the purpose."""
    past = []
    for path in sorted((ROOT / "lab").rglob("*.py")):
        name = str(path.relative_to(ROOT / "lab"))
        if name in RAW | ENTRANCE or name.startswith(("probes/scripts/", "engines/virtualbox/worker/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                wrong = re.fullmatch(
                    r"print|Console|Terminal|.*from_markup|sys\.std(out|err)\.(\w+\.)?write", called
                )
                past += [f"{name}:{node.lineno} {called}"] if wrong else []
                past += [f"{name}:{node.lineno} markup" for word in node.keywords if word.arg == "markup"
                         and ast.unparse(word.value) != "False"]  # fmt: skip
    assert past == []


# The question


def test_the_question_shows_how_to_answer_and_no_answer_is_no(tmp_path: Path) -> None:
    ask = "print('yes' if session.ask('Missing: [qemu].\\nInstall it now?') else 'no')\nreturn Reply()"
    yes = on_terminal(script(ask), environment(tmp_path), (b"[y/N] ", b"y\n"))
    assert yes.lines[:3] == ["Missing: [qemu].", "Install it now? [y/N] y", "yes"], yes.raw
    end = on_terminal(script(ask), environment(tmp_path), (b"[y/N] ", b"\x04"))
    assert "no" in end.lines and end.code == 0, end.raw


# The display


WORKS = """\
with session.steps.step("vm.start"):
    time.sleep(0.5)
    {}
"""


def test_the_display_is_gone_before_a_program_takes_the_terminal(tmp_path: Path) -> None:
    program = "printf 'one\\\\ntwo\\\\n'; sleep 0.7; printf 'three\\\\nfour\\\\n'"
    command = (
        WORKS.format(f'proc.passthrough(["sh", "-c", "{program}"])\n    time.sleep(0.5)') + "return Reply()"
    )
    seen = on_terminal(script(command), environment(tmp_path))
    assert seen.code == 0
    assert b"\x1b[?25l" in seen.raw, "the display was there"
    during = seen.raw[seen.raw.index(b"one") : seen.raw.index(b"four")]
    assert b"\x1b" not in during, "and drew nothing while the program ran"
    before = seen.raw[: seen.raw.index(b"one")]
    assert before.rfind(b"\x1b[?25h") > before.rfind(b"\x1b[?25l"), "which had its cursor"
    lines = [line for line in seen.lines if line]
    assert lines[:4] == ["one", "two", "three", "four"] and not seen.cursor_hidden
    assert lines[4].startswith("✓ vm.start") and len(lines) == 5


def test_nothing_is_drawn_where_no_step_began(tmp_path: Path) -> None:
    seen = on_terminal(script('proc.passthrough(["printf", "x"])\nreturn Reply()'), environment(tmp_path))
    assert seen.raw == b"x"


def test_raw_output_is_all_there_while_the_display_is_on(tmp_path: Path) -> None:
    """On the terminal, and in a file: the display never has standard output."""
    command = (
        WORKS.format('screen.write(b"\\x1b[31mraw\\n" + b"line\\n" * 3)\n    time.sleep(0.5)')
        + "return Reply()"
    )
    seen = on_terminal(script(command), environment(tmp_path))
    assert [line for line in seen.lines if line][:4] == ["raw", "line", "line", "line"], seen.raw
    assert b"\x1b[31mraw\r\nline\r\nline\r\nline\r\n" in seen.raw
    with (tmp_path / "log").open("wb") as file:
        seen = on_terminal(script(command), environment(tmp_path), stdout=file.fileno())
    assert (tmp_path / "log").read_bytes() == b"\x1b[31mraw\nline\nline\nline\n"
    assert b"raw" not in seen.raw and not seen.cursor_hidden


def test_ctrl_c_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    """A program that took the echo away and is killed: the person's shell has it back."""
    command = (
        WORKS.format(
            'proc.passthrough(["sh", "-c", "trap \'\' INT; stty -echo; echo off; sleep 30"])'
        ).replace("{}", "")
        + "return Reply()"
    )
    words = ["sh", "-c", 'trap : INT; "$@"; echo "code $?"; stty -a | tr " " "\\n" | grep "echo$"', "sh"]
    seen = on_terminal([*words, *script(command)], environment(tmp_path), (b"off", b"\x03"))
    lines = [line for line in seen.lines if line]
    assert lines[-2:] == ["code 130", "echo"], seen.raw


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(tmp_path: Path) -> None:
    command = WORKS.format("time.sleep(2.5)") + "return Reply(code=10)"
    words = ["bash", "-mc", '"$@"; echo "stop""ped"; sleep 0.3; fg >/dev/null; echo "code $?"', "sh"]
    seen = on_terminal([*words, *script(command)], environment(tmp_path), (b"vm.start", b"\x1a"))
    before, after = seen.raw.split(b"stopped", 1)
    assert before.rfind(b"\x1b[?25h") > before.rfind(b"\x1b[?25l"), "the shell had its cursor"
    assert b"\x1b[?25l" in after and b"vm.start" in after, "and the display is back"
    assert not seen.cursor_hidden and seen.lines[-2:] == ["code 10", ""], seen.raw


def test_forced_colours_are_no_terminal(tmp_path: Path) -> None:
    done = subprocess.run(
        script(WORKS.format("pass") + "return Reply()"),
        env=environment(tmp_path, FORCE_COLOR="1"), capture_output=True, check=False,
    )  # fmt: skip
    assert b"\x1b[?25l" not in done.stderr and b"vm.start" in done.stderr


# The answer


VERDICT = 'def show(console):\n    console.print("✓ refuted → because")\nreturn Reply({{"a": 1}}, show, {})'


@pytest.mark.parametrize("json", [False, True])
@pytest.mark.parametrize("code", [0, 10])
@pytest.mark.parametrize("to", ["/dev/full", "gone", "closed"])
def test_an_answer_that_cannot_be_printed_keeps_its_exit_code(
    tmp_path: Path, to: str, code: int, json: bool
) -> None:
    words, env = script(VERDICT.format(code), json=json), environment(tmp_path)
    if to == "closed":
        words = ["sh", "-c", '"$@" >&-', "sh", *words]
        done = subprocess.run(words, env=env, stderr=subprocess.PIPE, check=False)
    elif to == "gone":
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(words, env=env, stdout=writer, stderr=subprocess.PIPE, check=False)
        os.close(writer)
    else:
        with Path(to).open("wb") as full:
            done = subprocess.run(words, env=env, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == code, done.stderr
    said = os.strerror(errno.ENOSPC) if to == "/dev/full" else ""
    assert done.stderr.decode() == (f"the answer could not be printed: {said}\n" if said else "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_marks_gets_others(tmp_path: Path, encoding: str) -> None:
    words, env = script(VERDICT.format(10)), environment(tmp_path, PYTHONIOENCODING=encoding)
    done = subprocess.run(words, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (10, b"+ refuted -> because\n", b"")
    step = 'session.steps.note("… \\u4e2d")\nreturn Reply()'
    done = subprocess.run(script(step), env=env, capture_output=True, check=False)
    assert done.stderr.endswith(b"... \\u4e2d\n") and done.returncode == 0


def test_a_locale_that_is_not_utf_8_breaks_no_task_and_no_file(tmp_path: Path) -> None:
    env = environment(tmp_path, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    for words in (["theory.explain"], ["lab.doctor"], ["--list"], ["--help", "lab.up"]):
        done = subprocess.run([INVOKE, *words], env=env, cwd=ROOT, capture_output=True, check=False)
        assert b"Traceback" not in done.stderr and b"lab itself failed" not in done.stderr, done.stderr
        assert done.stdout.isascii() and done.returncode in (0, 11)
    file = tmp_path / "f"
    keep = "from lab.cli import streams; streams.keep_files_utf8(); "
    words = [sys.executable, "-c", keep + f"open({str(file)!r}, 'w').write(chr(0x2713))"]
    subprocess.run(words, env=env, check=True)
    assert file.read_bytes() == "✓".encode()


@pytest.mark.parametrize("words", [["--list"], ["--help", "lab.up"], ["lab.nothing", "--json"]])
def test_invoke_s_own_answers_are_answers_too(tmp_path: Path, words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for out in (writer, os.open("/dev/full", os.O_WRONLY)):
        done = subprocess.run(
            [INVOKE, *words],
            env=environment(tmp_path),
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert done.returncode == (2 if "--json" in words else 0), done.stderr
        assert b"Traceback" not in done.stderr
        os.close(out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_the_answer_is_printed_keeps_its_exit_code(tmp_path: Path, number: int) -> None:
    slow = 'def show(console):\n    console.print("begun")\n    time.sleep(30)\nreturn Reply({}, show, 10)'
    process = subprocess.Popen(
        script(slow), env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout and process.stdout.readline() == b"begun\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (10, b"")


@pytest.mark.parametrize(("code", "ends"), [(10, 10), (0, 1)])
def test_a_fault_in_showing_is_said_and_is_never_green(tmp_path: Path, code: int, ends: int) -> None:
    words = script(f"return Reply({{}}, lambda console: console.nothing(), {code})")
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, check=False)
    assert done.returncode == ends and b"lab itself failed" in done.stderr


def test_progress_that_nobody_reads_ends_no_work(tmp_path: Path) -> None:
    notes = 'for n in range(300):\n    session.steps.note("x" * 500)\n'
    command = notes + 'screen.write("worked\\n")\nreturn Reply(code=10)'
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        script(command), env=environment(tmp_path), stdout=subprocess.PIPE, stderr=writer, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stdout) == (10, b"worked\n")


@pytest.mark.parametrize(("to", "code"), [("gone", 0), ("/dev/full", 11)])
def test_a_log_whose_reader_went_away_ends_there(tmp_path: Path, to: str, code: int) -> None:
    command = 'while True:\n    screen.write(b"x" * 4096)'
    if to == "gone":
        words = ["sh", "-c", '{ "$@"; echo "code $?" >&2; } | head -c 9', "sh", *script(command)]
        done = subprocess.run(words, env=environment(tmp_path), capture_output=True, check=False)
        assert (done.stdout, done.stderr) == (b"x" * 9, f"code {code}\n".encode())
        return
    with Path(to).open("wb") as full:
        done = subprocess.run(
            script(command), env=environment(tmp_path), stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == code and b"standard output cannot be written: No space left" in done.stderr


def test_a_closed_stream_is_no_place_for_a_file(tmp_path: Path) -> None:
    """The next file opened would have number 1, and get what a program prints."""
    command = (
        f'file = open({str(tmp_path / "journal")!r}, "w")\nassert file.fileno() > 2\n'
        'proc.passthrough(["echo", "into the journal"])\nreturn Reply()'
    )
    words = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *script(command)]
    assert subprocess.run(words, env=environment(tmp_path), check=False).returncode == 0
    assert (tmp_path / "journal").read_text() == ""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_stays_ignored(tmp_path: Path, number: signal.Signals) -> None:
    command = f"os.kill(os.getpid(), {int(number)})\ntime.sleep(0.2)\nreturn Reply(code=12)"
    name = number.name.removeprefix("SIG")
    words = ["sh", "-c", f"trap '' {name}; exec \"$@\"", "sh", *script(command)]
    done = subprocess.run(words, env=environment(tmp_path), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (12, b"")
    done = subprocess.run(script(command), env=environment(tmp_path), capture_output=True, check=False)
    assert done.returncode == 130


def test_a_program_s_end_by_a_signal_is_a_shell_s_exit_code(tmp_path: Path) -> None:
    command = 'return Reply(code=proc.passthrough(["sh", "-c", "kill -TERM $$"]))'
    done = subprocess.run(script(command), env=environment(tmp_path), capture_output=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM


def test_a_program_that_is_not_there_is_no_bug(tmp_path: Path) -> None:
    command = 'return Reply(code=proc.passthrough(["no-such-ssh"]))'
    done = subprocess.run(script(command), env=environment(tmp_path), capture_output=True, check=False)
    assert done.returncode == 11 and b"`no-such-ssh` is not installed" in done.stderr


def test_a_person_s_shell_has_the_terminal_to_itself(tmp_path: Path) -> None:
    command = 'return Reply(code=proc.passthrough(["sh", "-i"]))'
    seen = on_terminal(
        script(command),
        environment(tmp_path, PS1="ready> ", ENV="/dev/null"),
        (b"ready> ", b"test -t 0 && test -t 1 && echo a$((1 + 1))\n"),
        (b"a2", b"exit 5\n"),
    )
    assert seen.code == 5 and "a2" in seen.lines and b"\x1b[?25l" not in seen.raw, seen.raw
