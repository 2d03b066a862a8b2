"""Where settings come from: files, environment, flags. Each is a layer; problems are collected."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

from platformdirs import user_config_path
from pydantic import TypeAdapter, ValidationError

from lab.config.model import FOLDERS, choices, leaves, sections
from lab.core import caller, files, redact
from lab.core.similar import nearest

_PREFIX, _DELIMITER = "LAB_", "__"
"""How a variable of the environment begins, and what is between section and key there."""

NOT_KEYS = (
    "LAB_CONFIG",
    "LAB_CWD",
    "LAB_EVENTS",
    "LAB_PYTHON",
    "LAB_WEBHOOK_URL",
    "LAB_WEBHOOK_SECRET",
    "LAB_GITHUB_TOKEN",
    "LAB_SMTP_PASSWORD",
)
"""Variables that are no keys: the user's file, where the user stands (lab.core.caller), where the work's
events go (lab.core.steps.EventStream), bin/invoke's interpreter, and the secrets of lab.notify."""

PATHS = ("emulator.archive", "qemu.binary", "virtualbox.home", "virtualbox.python", "rehearsal.bochs")
"""Keys whose value is a path, or a program by its name."""

_BREAKS = set("\n\r\0")
"""No setting means any of these: what they reach are arguments, headers and files of a line each."""

FLAGS = {"emulator.kind": "emulator"}
"""Flags that are not named like their keys' last part."""

_MOVED = {"emulator": "emulator.kind"}
"""Keys of the past and what they are called now."""


@dataclass
class Layers:
    """What was read so far: the strongest value of each key, its origin, and all problems found."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def problem(self, what: str, hint: str = "") -> None:
        """Note a problem, to be reported with all others; a hint is given once."""
        self.problems.append(what)
        if hint and hint not in self.hints:
            self.hints.append(hint)

    def take(
        self,
        key: str,
        value: Any,
        origin: str,
        *,
        where: str = "",
        text: bool = False,
        base: Path | None = None,
    ) -> None:
        """Check one value and let it replace a weaker one. `text` is converted, other values are not.

        `base` is what a relative path is relative to; left out: where the user stands.
        """
        if key in FOLDERS and value == "":  # the platform's own folder, whatever weaker layers say
            self.values.pop(key, None)
            self.origins.pop(key, None)
            return
        if key == "emulator.env" and isinstance(value, list):  # before anything can be said of it
            redact.register_variables(word for word in value if isinstance(word, str))
        if any(set(text) & _BREAKS for text in _texts(value)):
            self.problem(f"{where or f'{origin}: {key}'} should be on one line: a line break or NUL is in it")
            return
        info = leaves()[key]
        try:
            checked = TypeAdapter[Any](info.rebuild_annotation()).validate_python(value, strict=not text)
            self.values[key] = _anchored(key, checked, base) if key in PATHS else checked
            self.origins[key] = origin
        except ValidationError as error:
            wrong = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input ")
            near = _nearest_choice(str(value), choices(key))
            self.problem(
                f"{where or f'{origin}: {key}'} = {value!r} {wrong}", near and f"did you mean {near!r}?"
            )

    def unknown(self, where: str, key: str, spell: Mapping[str, str] | None = None) -> None:
        """Report a key nobody knows. `spell` maps each known key to how this source writes it."""
        near = nearest_key(key)
        written = (spell or {}).get(near, near)
        self.problem(where, f"did you mean {written}?" if near else "docs/configuration.md lists every key")


def read_file(layers: Layers, path: Path, name: str) -> None:
    """Read one TOML file, named `name` in origins and problems."""
    try:
        document = files.read_toml(path)
    except tomllib.TOMLDecodeError as error:
        return layers.problem(f"{name} is not valid TOML: {error}")
    except UnicodeDecodeError as error:
        return layers.problem(f"{name} is not UTF-8 text: {error}")
    except OSError as error:
        return layers.problem(f"{name} cannot be read: {error.strerror}")
    return read_table(layers, document, name, path.parent)


def read_table(layers: Layers, document: Mapping[str, Any], name: str, base: Path) -> None:
    """Read settings as a TOML file has them; relative paths are relative to `base`."""
    known, tables = leaves(), sections()
    for key, value in _flatten(document, tables):
        if key in known:
            layers.take(key, value, name, base=base)
        elif key in tables:
            now = f"what you mean is {_MOVED[key]}: kind = … in [{key}]" if key in _MOVED else ""
            layers.problem(f"{name}: {key} is a section, written [{key}], and not a value", now)
        else:
            layers.unknown(f"{name}: {key} is not a key", key)


def _flatten(document: Mapping[str, Any], tables: list[str]) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if name in tables and isinstance(value, dict):
            yield from ((f"{name}.{inner}", leaf) for inner, leaf in value.items())
        elif isinstance(value, dict) and name not in leaves():
            yield from ((f"{name}.{inner}", None) for inner in value or [""])
        else:
            # A quoted "vm.cpus" at the top is not the key cpus of [vm].
            yield (f'"{name}"' if "." in name else name), value


def _texts(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]


def _anchored(key: str, given: str, base: Path | None) -> str:
    """A relative path as an absolute one. A bare word of a program stays: it is looked for on PATH."""
    path = os.path.expanduser(given)  # noqa: PTH111 - a bare word must stay one
    is_path = "/" in path or (path and key == "emulator.archive")
    return str((base or caller.folder()) / path) if is_path else given


def user_file(layers: Layers) -> Path | None:
    """The user's own file, if there is one. One that LAB_CONFIG names must exist."""
    named = os.environ.get("LAB_CONFIG", "")
    path = caller.path(named, home=True) if named else user_config_path("lab", appauthor=False) / "lab.toml"
    if path.is_file():
        return path
    if named:
        layers.problem(f"LAB_CONFIG names {named}, and there is no such file")
    return None


def read_environment(layers: Layers) -> None:
    """Read LAB_*; a variable that is set and empty counts as not set."""
    spelled = {variable(key): key for key in leaves()}
    given = {name: value for name, value in os.environ.items() if name.startswith(_PREFIX) and value}
    for name in sorted(given.keys() - spelled.keys() - set(NOT_KEYS)):
        key = name.removeprefix(_PREFIX).lower().replace(_DELIMITER, ".")
        layers.unknown(
            f"environment: {name} is not a variable lab knows", key, {v: k for k, v in spelled.items()}
        )
    for name, key in spelled.items():
        if name not in given:
            continue
        value: Any = given[name]
        if get_origin(leaves()[key].annotation) is list:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                hint = 'lists are written as JSON: ["KEY=VALUE"]'
                layers.problem(f"environment: {name} is not JSON: {error}", hint)
                continue
        layers.take(key, value, f"environment {name}", where=f"environment: {name}", text=True)


def read_flags(layers: Layers, flags: Mapping[str, Any]) -> None:
    """Read task flags: dotted key to value; None means the flag was not given."""
    for key, value in flags.items():
        if value is None:
            continue
        name = "flag --" + FLAGS.get(key, key.rpartition(".")[2]).replace("_", "-")
        if key in leaves():
            layers.take(key, value, name, where=name, text=isinstance(value, str))
        else:
            layers.unknown(f"{name} is not a key", key)


def variable(key: str) -> str:
    """The environment variable of a dotted key."""
    return _PREFIX + key.replace(".", _DELIMITER).upper()


def nearest_key(key: str) -> str:
    """The key most like `key`, in whichever section; empty when none is."""
    known = list(leaves())
    if key in _MOVED:
        return _MOVED[key]
    if near := nearest(key, known, 0.75):
        return near
    last = {name.rpartition(".")[2]: name for name in reversed(known)}  # the first of several
    wanted = key.rpartition(".")[2]
    if near := nearest(wanted, last):
        return last[near]
    return nearest(key, known, 0.5)


def _nearest_choice(word: str, choices: list[str]) -> str:
    """The choice most like `word`, which may be only its beginning: ubuntu for ubuntu-24.04."""
    beginnings = {choice[: len(word)]: choice for choice in reversed(choices)}
    return beginnings.get(nearest(word, beginnings, 0.5), "") or nearest(word, choices, 0.5)
