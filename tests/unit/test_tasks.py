"""tasks.py: every task runs the command it names, with arguments that the command takes."""

from __future__ import annotations

import ast
import inspect
import sys
from importlib import import_module
from typing import Any

import pytest

import tasks
from lab.cli import perform
from lab.documents.schemas import SCHEMAS

FLAGS = {str(context.name): context.args for context in tasks.namespace.to_contexts()}
"""Task to its flags; asked once, since a task gives its help texts away."""
SESSION: Any = object()


class Ran(SystemExit):
    """What a task ran: the function by its module and name, its arguments, the settings given by flag."""

    def __init__(self, target: str, args: dict[str, Any], settings: dict[str, Any], as_json: bool) -> None:
        super().__init__()
        self.target, self.given, self.settings, self.as_json = target, args, settings, as_json


def targets() -> dict[str, list[tuple[str, str]]]:
    """Each task's function in tasks.py, and the (module, function)s that it imports."""
    tree = ast.parse(inspect.getsource(tasks))
    return {
        node.name: [
            (str(line.module), name.name)
            for line in ast.walk(node)
            if isinstance(line, ast.ImportFrom)
            for name in line.names
        ]
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def ran(monkeypatch: pytest.MonkeyPatch, name: str, /, **given: Any) -> Ran:
    """What the task runs when it is called with `given`, the other flags as they come."""
    body = tasks.namespace[name].body
    called: list[tuple[str, dict[str, Any]]] = []

    def stand_in(target: str, real: Any) -> Any:
        def record(*args: Any, **more: Any) -> str:
            bound = inspect.signature(real).bind(*args, **more)  # TypeError for what it does not take
            assert bound.args[0] is SESSION
            called.append((target, dict(list(bound.arguments.items())[1:])))
            return "reply"

        return record

    def take(command: Any, *, as_json: bool, events: str, flags: dict[str, Any] | None) -> None:
        assert command(SESSION) == "reply", "a task gives back what it ran"
        ((target, args),) = called
        raise Ran(target, args, flags or {}, as_json)

    values = {arg.name: "x" if arg.value is None else arg.value for arg in FLAGS[name].values()}
    with monkeypatch.context() as patched:
        patched.setattr(perform, "perform", take)
        for module, function in targets()[body.__name__]:
            loaded = import_module(module)
            real = getattr(loaded, function, None) or import_module(f"{module}.{function}")
            if inspect.ismodule(real):
                for each, value in inspect.getmembers(real, inspect.isfunction):
                    patched.setattr(real, each, stand_in(f"{real.__name__}.{each}", value))
            else:
                patched.setattr(loaded, function, stand_in(f"{module}.{function}", real))
        with pytest.raises(Ran) as seen:
            body(None, **(values | given))
    return seen.value


@pytest.mark.parametrize("name", FLAGS)
def test_a_task_runs_a_function_that_takes_its_arguments(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert ran(monkeypatch, name).as_json is False


@pytest.mark.parametrize("name", FLAGS)
def test_a_task_says_what_it_does_and_what_its_document_is(name: str) -> None:
    assert tasks.namespace[name].__doc__.strip()
    if "json" in FLAGS[name]:
        (document,) = [word for word in FLAGS[name]["json"].help.split() if word.endswith("/1")]
        assert (SCHEMAS / f"{document.replace('/', '-')}.json").is_file()


def test_flags_that_are_settings_go_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ran(monkeypatch, "lab.up", engine="qemu", emulator="canary", fresh=True, json=True)
    assert (found.target, found.given) == ("lab.tasks.lab.up.up", {"name": "default", "fresh": True})
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
        (
            {"vagrant": "box", "name": "n"},
            "attach.attach",
            {"machine": "box", "name": "n", "folder": ""},
        ),
        ({"plan": "libvirt"}, "vagrantfile.describe", {"machine": "", "provider": "libvirt"}),
        (
            {"prepare": "virtualbox"},
            "vagrantfile.prepare",
            {"machine": "", "provider": "virtualbox"},
        ),
    ],
)
def test_attach_is_three_commands(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], target: str, args: dict[str, Any]
) -> None:
    found = ran(monkeypatch, "lab.attach", **({"vagrant": ""} | given))
    assert (found.target, found.given) == (f"lab.tasks.lab.{target}", args)
