"""A task by its signature: tasks.py has names, flags and help, lab.tasks does the work.

Nothing heavy is imported before a task runs, so that `invoke --list` stays quick.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from invoke.tasks import Task, task

if TYPE_CHECKING:
    from lab.workflow.session import Reply

_KIND = inspect.Parameter.POSITIONAL_OR_KEYWORD
_EVENTS = "what happens, as it happens, a JSON object a line: on standard error, or into the file it names"
_NO_FLAGS = ("session", "words")


def does(
    schema: str = "",
    *,
    help: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
    **more: Any,
) -> Callable[[Callable[..., Reply]], Task[Any]]:
    """The Invoke task of a function from a session to a reply; its other arguments are the flags.

    `schema` names the document that its flag --json prints, which it has only then, and --events with it.
    `settings` are further flags that go into lab's settings: each with its key there. An argument `words` is
    what follows `--`, an argument `json` whether --json was given. The rest is Invoke's own.
    """
    keys = settings or {}

    def make(work: Callable[..., Reply]) -> Task[Any]:
        parameters = inspect.signature(work).parameters

        def body(_c: object, **given: Any) -> None:
            from lab.cli.perform import perform

            as_json = bool(given["json"] if "json" in parameters else given.pop("json", False))
            events = given.pop("events", "")
            flags = {key: given.pop(flag) for flag, key in keys.items()}
            if "words" in parameters:
                given["words"] = after_dashes()
            perform(lambda session: work(session, **given), as_json=as_json, events=events, flags=flags)

        parameter = partial(inspect.Parameter, kind=_KIND)
        flags = [parameter("_c"), *(value for name, value in parameters.items() if name not in _NO_FLAGS)]
        flags += [parameter(flag, default="") for flag in keys]
        if schema and "json" not in parameters:
            flags += [parameter("json", default=False), parameter("events", default="")]
            more["optional"] = [*more.get("optional", ()), "events"]
        body.__name__, body.__doc__ = work.__name__, work.__doc__
        body.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
        texts = {"json": f"print the result as JSON, schema {schema}"} if schema else {}
        texts |= {"events": _EVENTS} if "events" in more.get("optional", ()) else {}
        return task(help={**texts, **(help or {})}, **more)(body)  # type: ignore[no-any-return]

    return make


def after_dashes() -> list[str]:
    """The words after `--`, unsplit and unquoted as the shell gave them."""
    return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
