"""A task by its signature: tasks.py has names, flags and help, lab.commands does the work.

Nothing heavy is imported before a task runs, so that `invoke --list` stays quick.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from invoke.tasks import Task, task

if TYPE_CHECKING:
    from lab.commands.session import Reply, Session


def does(
    target: str,
    schema: str = "",
    *,
    help: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    words: bool = False,
    **more: Any,
) -> Callable[[Callable[..., None]], Task[Any]]:
    """The task that runs lab.commands.<target> with its flags as arguments; the decorated one has no body.

    `schema` is of the document that its flag --json prints, which it has only then. `settings` are flags
    that go into lab's settings, by their keys there; `names` are flags whose argument is called otherwise;
    with `words`, `argv` are the words after `--`. The rest is Invoke's own.
    """
    settings, names = settings or {}, names or {}

    def make(described: Callable[..., None]) -> Task[Any]:
        def body(_c: object, **given: Any) -> None:
            as_json = bool(given.get("json"))
            flags = {key: given.pop(flag) for flag, key in settings.items()}
            if "json" not in names:
                given.pop("json", None)
            args = {names.get(flag, flag): value for flag, value in given.items()}
            run(target, as_json=as_json, flags=flags, **args, **({"argv": after_dashes()} if words else {}))

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        flags = [*inspect.signature(described).parameters.values()]
        if schema:
            flags.append(inspect.Parameter("json", kind, default=False))
        body.__name__, body.__doc__ = described.__name__, described.__doc__
        body.__signature__ = inspect.Signature([inspect.Parameter("_c", kind), *flags])  # type: ignore[attr-defined]
        texts = {"json": f"print the result as JSON, schema {schema}"} if schema else {}
        texts |= help or {}
        return task(help=texts, **more)(body)  # type: ignore[no-any-return]

    return make


def run(
    target: str, /, *, as_json: bool = False, flags: Mapping[str, Any] | None = None, **args: Any
) -> NoReturn:
    """Run lab.commands.<module>.<function>, and leave with its exit code."""
    from importlib import import_module

    from lab.cli.perform import perform

    module, _, function = target.rpartition(".")

    def command(session: Session) -> Reply:
        return getattr(import_module(f"lab.commands.{module}"), function)(session, **args)  # type: ignore[no-any-return]

    perform(command, as_json=as_json, flags=flags)


def after_dashes() -> list[str]:
    """The words after `--`, unsplit and unquoted as the shell gave them."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
