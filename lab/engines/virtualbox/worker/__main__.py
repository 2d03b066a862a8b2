"""Requests from standard input, one JSON object a line; answers to standard output, likewise.

    {"id": 1, "op": "look", "args": {"uuid": "…"}}
    {"id": 1, "percent": 40}                                 while it works
    {"id": 1, "result": {…}}   or   {"id": 1, "fault": {"kind", "what", "tail", "hint"}}

Ends when its input does, after what it was at: every operation may be begun again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

from lab.engines.virtualbox.worker import host, machine, media, power, snapshots
from lab.engines.virtualbox.worker.api import Api
from lab.engines.virtualbox.worker.faults import explain

OPERATIONS: dict[str, Callable[..., Any]] = {
    "describe": host.describe,
    "look": machine.look,
    "convert": media.convert,
    "create": machine.create,
    "settings": machine.settings,
    "destroy": machine.destroy,
    "launch": power.launch,
    "forwards": power.forwards,
    "forward": power.forward,
    "unforward": power.unforward,
    "press": power.press,
    "power_off": power.power_off,
    "pause": power.pause,
    "resume": power.resume,
    "save": power.save,
    "discard": power.discard,
    "screenshot": power.screenshot,
    "snapshots": snapshots.listing,
    "take": snapshots.take,
    "restore": snapshots.restore,
    "delete": snapshots.delete,
}
SLOW = frozenset({"convert", "launch", "save", "take", "restore", "delete"})
"""They tell how far they are."""


def serve(source: TextIO, sink: TextIO, connect: Callable[[], Api] = Api) -> None:
    """Answer every request of `source`. The connection is made for the first one."""
    api: Api | None = None
    for line in source:
        request = json.loads(line)
        number, name, words = request["id"], request["op"], request["args"]

        def send(content: dict[str, Any], number: int = number) -> None:
            sink.write(json.dumps({"id": number} | content) + "\n")
            sink.flush()

        def tell(percent: int, send: Callable[[dict[str, Any]], None] = send) -> None:
            send({"percent": percent})

        try:
            if api is None:
                api = connect()
            if name in SLOW:
                words["tell"] = tell
            send({"result": OPERATIONS[name](api, **words)})
        except Exception as error:
            send({"fault": explain(error, name).as_dict()})


def main() -> None:
    # VirtualBox's libraries may print: what they print must not get between the lines.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        serve(sys.stdin, channel)
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    finally:
        # At a normal exit the bindings' own clean-up fails noisily, or crashes when VBoxSVC has died.
        os._exit(0)


if __name__ == "__main__":
    main()
