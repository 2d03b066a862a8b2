"""Requests from standard input, one JSON object a line; answers to standard output, likewise.

    {"id": 1, "op": "look", "args": {"uuid": "…"}}
    {"id": 1, "result": {…}}   or   {"id": 1, "fault": {"kind", "what", "tail", "hint"}}

Ends when its input does, after what it was at: every operation may be begun again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import TextIO

from lab.engines.virtualbox.worker import host, machine, media, power, snapshots
from lab.engines.virtualbox.worker.api import Api
from lab.engines.virtualbox.worker.faults import explain
from lab.engines.virtualbox.worker.operations import operations

OPERATIONS = {"describe": host.describe} | operations(machine, media, power, snapshots)


def serve(source: TextIO, sink: TextIO, connect: Callable[[], Api] = Api) -> None:
    """Answer every request of `source`. The connection is made for the first one."""
    api: Api | None = None
    for line in source:
        request = json.loads(line)
        number, name, words = request["id"], request["op"], request["args"]

        try:
            if api is None:
                api = connect()
            content = {"result": OPERATIONS[name](api, **words)}
        except Exception as error:
            content = {"fault": explain(error, name).as_dict()}
        sink.write(json.dumps({"id": number} | content) + "\n")
        sink.flush()


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
