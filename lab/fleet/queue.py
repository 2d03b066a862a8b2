"""Buildbot's queue, over its REST: what was asked for, what came of it, which hosts are there.

The REST is on a socket in a folder of this user's alone; nobody else on the machine can reach it.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from lab.core.errors import InconclusiveError

_SECONDS = 20.0
_ANSWER_BYTES = 16 << 20
_LAST_LINES = 10


class QueueError(InconclusiveError):
    """The queue does not answer, or refuses."""


@dataclass(frozen=True)
class QueuedJob:
    """A cell of a night in the queue. Times are Unix time.

    `host` is who has it, or had it last; empty when none took it. `why` says of one that ended how its last
    step did.
    """

    done: bool = False
    at_work: bool = False
    host: str = ""
    began: float = 0.0
    why: str = ""


class _Door(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))


class Queue:
    """One Buildbot master's, by the path of its socket. Every method raises QueueError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def answers(self) -> bool:
        """Whether it can be asked now."""
        try:
            self._get("masters")
        except QueueError:
            return False
        return True

    def ask(self, cell: str, date: str) -> int:
        """Ask for the night DATE/CELL; returns the request's number. One that is asked for is not again."""
        if known := self._requests(cell, date):
            return known[-1]
        request, _ = self._call(f"forceschedulers/ask-{quote(cell)}", "force", {"date": date})
        if not (known := self._requests(cell, date)):
            raise QueueError(f"the queue took no request for {date}/{cell} (set {request})")
        return known[-1]

    def job(self, request: int) -> QueuedJob:
        """How a request is."""
        rows = self._get(f"buildrequests/{request}")["buildrequests"]
        builds = self._get(f"buildrequests/{request}/builds", order="-buildid", limit=1)["builds"]
        if not rows:
            return QueuedJob(done=True, why="the queue does not know of it any more")
        done, build = bool(rows[0]["complete"]), builds[0] if builds else None
        if build is None:
            return QueuedJob(done=done, why="it was cancelled before a host took it" if done else "")
        name = self._get(f"workers/{build['workerid']}")["workers"][0]["name"]
        why = self._why(build["buildid"]) if done else ""
        return QueuedJob(done, not build["complete"], name, float(build["started_at"]), why)

    def cancel(self, request: int) -> None:
        """Have it not begun; one that is at work is ended on its host."""
        builds = self._get(f"buildrequests/{request}/builds")["builds"]
        running = [build for build in builds if not build["complete"]]
        for build in running:
            self._call(f"builds/{build['buildid']}", "stop", {"reason": "cancelled by fleet.cancel"})
        if not running:
            self._call(f"buildrequests/{request}", "cancel", {})

    def _requests(self, cell: str, date: str) -> list[int]:
        """The requests for a cell's night, oldest first."""
        builder = self._get("builders", name=f"cell-{cell}")["builders"]
        if not builder:
            raise QueueError(f"the queue knows no cell {cell}", hint="`invoke fleet.up` has it read the plan")
        rows = self._get(f"builders/{builder[0]['builderid']}/buildrequests", property="date")[
            "buildrequests"
        ]
        wanted = [row for row in rows if (row["properties"] or {}).get("date", [""])[0] == date]
        return sorted(int(row["buildrequestid"]) for row in wanted)

    def _why(self, build: int) -> str:
        """How the steps ended that did not end well, in Buildbot's words, and the last line of the last."""
        steps = self._get(f"builds/{build}/steps")["steps"]
        fine = (None, 0, 3)  # not ended, SUCCESS, SKIPPED (buildbot/process/results.py)
        bad = [step for step in steps if step["results"] not in fine]
        words = [f"{step['name']}: {step['state_string']}" for step in bad]
        return "; ".join([*words, *(self._last_words(bad[-1]["stepid"]) if bad else [])])[:500]

    def _last_words(self, step: int) -> list[str]:
        """The last line that a step's program printed, if it printed any."""
        logs = self._get(f"steps/{step}/logs")["logs"]
        if not logs or not logs[0]["num_lines"]:
            return []
        offset = max(0, logs[0]["num_lines"] - _LAST_LINES)
        chunks = self._get(f"logs/{logs[0]['logid']}/contents", offset=offset, limit=_LAST_LINES)["logchunks"]
        lines = "".join(chunk["content"] for chunk in chunks).splitlines()
        printed = [line[1:].strip() for line in lines if line[:1] in ("o", "e") and line[1:].strip()]
        return printed[-1:]

    def _get(self, path: str, **filters: Any) -> dict[str, Any]:
        query = f"?{urlencode(filters)}" if filters else ""
        return self._exchange("GET", f"/api/v2/{path}{query}")

    def _call(self, path: str, method: str, params: Mapping[str, Any]) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": dict(params)}
        return self._exchange("POST", f"/api/v2/{path}", body).get("result")

    def _exchange(self, verb: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        door = _Door(self._path)
        try:
            content = json.dumps(body) if body is not None else None
            door.request(verb, path, content, {"Content-Type": "application/json"} if content else {})
            answer = door.getresponse()
            text = answer.read(_ANSWER_BYTES + 1)
            if len(text) > _ANSWER_BYTES:
                raise QueueError(f"the queue answers {path} with more than {_ANSWER_BYTES} bytes")
            document = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise QueueError(
                f"the fleet's queue does not answer: {error}",
                hint="`invoke fleet.status` tells whether it runs, `invoke fleet.up` starts it",
            ) from error
        finally:
            door.close()
        if answer.status != 200 or not isinstance(document, dict):
            refusal = document.get("error") if isinstance(document, dict) else document
            raise QueueError(f"the queue refuses {path}: {str(refusal)[:300]}")
        return document
