"""tasks.py: every task runs the command it names, with arguments that the command takes."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import tasks
from lab import schema
from lab.cli import perform

SCHEMAS = Path(schema.__file__).resolve().parent.parent / "docs" / "schemas"
FLAGS = {str(context.name): context.args for context in tasks.namespace.to_contexts()}
"""Task to its flags; asked once, since a task gives its help texts away."""


class Ran(SystemExit):
    """What a task would run: the command by its name, its arguments, the settings that are given by flag."""

    def __init__(self, target: str, args: dict[str, Any], settings: dict[str, Any], as_json: bool) -> None:
        super().__init__()
        self.target, self.given, self.settings, self.as_json = target, args, settings, as_json


class Anything:
    """A module whose every function only tells how it was called."""

    def __init__(self, name: str) -> None:
        self._name = name.removeprefix("lab.commands.")

    def __getattr__(self, function: str) -> Any:
        return lambda _session, **args: (f"{self._name}.{function}", args)


def ran(monkeypatch: pytest.MonkeyPatch, name: str, /, **given: Any) -> Ran:
    def take(command: Any, *, as_json: bool, flags: dict[str, Any] | None) -> None:
        raise Ran(*command(None), flags or {}, as_json)

    values = {arg.name: "x" if arg.value is None else arg.value for arg in FLAGS[name].values()}
    with monkeypatch.context() as patched:
        patched.setattr(perform, "perform", take)
        patched.setattr("importlib.import_module", Anything)
        with pytest.raises(Ran) as seen:
            tasks.namespace[name].body(None, **(values | given))
    return seen.value


@pytest.mark.parametrize("name", FLAGS)
def test_a_task_runs_a_command_that_takes_its_arguments(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    found = ran(monkeypatch, name)
    module, _, function = found.target.rpartition(".")
    command = getattr(import_module(f"lab.commands.{module}"), function)
    inspect.signature(command).bind("session", **found.given)  # TypeError for what it does not take
    assert found.as_json is False


@pytest.mark.parametrize("name", FLAGS)
def test_a_task_says_what_it_does_and_what_its_document_is(name: str) -> None:
    assert tasks.namespace[name].__doc__.strip()
    if "json" in FLAGS[name]:
        (document,) = [word for word in FLAGS[name]["json"].help.split() if word.endswith("/1")]
        assert (SCHEMAS / f"{document.replace('/', '-')}.json").is_file()


def test_flags_that_are_settings_go_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ran(monkeypatch, "lab.up", engine="qemu", emulator="canary", fresh=True, json=True)
    assert (found.target, found.given) == ("up.up", {"name": "default", "fresh": True})
    assert found.settings == {"engine": "qemu", "emulator.kind": "canary", "image": ""}
    assert found.as_json is True
    assert ran(monkeypatch, "nightly.run", runs="4").settings == {"nightly.runs": "4"}


@pytest.mark.parametrize(
    ("name", "flag", "argument"),
    [
        ("lab.report", "open", "open_it"),
        ("lab.evidence", "collect", "collect_now"),
        ("lab.open", "print", "only_print"),
        ("nightly.install", "print", "print_only"),
        ("emulator.logs", "json", "capture"),
        ("emulator.shell", "json", "capture"),
    ],
)
def test_flags_whose_argument_is_called_otherwise(
    monkeypatch: pytest.MonkeyPatch, name: str, flag: str, argument: str
) -> None:
    assert ran(monkeypatch, name, **{flag: True}).given[argument] is True
    assert ran(monkeypatch, name).given[argument] is False


@pytest.mark.parametrize("name", ["lab.exec", "emulator.shell"])
def test_words_after_the_dashes_are_as_the_shell_gave_them(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    words = ["sh", "-c", "echo 'a  b' \"$HOME\"", "--", "x"]
    monkeypatch.setattr(sys, "argv", ["invoke", name, "--", *words])
    assert ran(monkeypatch, name).given["argv"] == words
    monkeypatch.setattr(sys, "argv", ["invoke", name])
    assert ran(monkeypatch, name).given["argv"] == []


@pytest.mark.parametrize(
    ("given", "target", "args"),
    [
        ({"vagrant": True}, "attach.attach", {"machine": "", "name": "", "folder": ""}),
        ({"vagrant": "box", "name": "n"}, "attach.attach", {"machine": "box", "name": "n", "folder": ""}),
        ({"plan": "libvirt"}, "vagrantfile.describe", {"machine": "", "provider": "libvirt"}),
        ({"prepare": "virtualbox"}, "vagrantfile.prepare", {"machine": "", "provider": "virtualbox"}),
    ],
)
def test_attach_is_three_commands(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], target: str, args: dict[str, Any]
) -> None:
    found = ran(monkeypatch, "lab.attach", **({"vagrant": ""} | given))
    assert (found.target, found.given) == (target, args)
