"""Small files over HTTP: whole, in memory, bounded, and asked for again while that may help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import requests

from lab.deadline import Deadline, pause
from lab.errors import BlockedError, DeadlineError
from lab.images.errors import IncompleteError
from lab.images.transport import Patience, TransientError, opened, read_some, shown


@dataclass(frozen=True)
class Answer:
    """A file and the headers it came with."""

    body: bytes
    headers: Mapping[str, str]


def fetch_bytes(
    session: requests.Session, url: str, *, limit: int, deadline: Deadline, patience: Patience
) -> bytes:
    """The file. Raises BlockedError (over `limit` bytes too), DeadlineError."""
    return fetch(session, url, {}, limit=limit, deadline=deadline, patience=patience).body


def fetch(
    session: requests.Session,
    url: str,
    headers: Mapping[str, str],
    *,
    limit: int,
    deadline: Deadline,
    patience: Patience,
    say: Callable[[str], None] | None = None,
) -> Answer:
    """As `fetch_bytes`, with `headers` sent and those that came; `say` is told why it takes longer."""
    failures = 0
    while True:
        try:
            with opened(session, url, headers, patience, deadline) as response:
                return Answer(_body(response, url, limit, deadline), response.headers)
        except TransientError as fault:
            failures += 1
            if fault.is_final(failures, patience, deadline):
                raise fault.becomes(
                    f"{shown(url)} could not be fetched: {fault}",
                    hint="check this machine's network, or name a mirror",
                ) from fault
            seconds = min(max(patience.wait(failures), fault.after), deadline.left)
            if say:
                say(f"{fault}; again in {seconds:.1f} s")
            pause(seconds)


def _body(response: requests.Response, url: str, limit: int, deadline: Deadline) -> bytes:
    promised = response.headers.get("Content-Length", "")
    body = bytearray()
    while chunk := read_some(response, 1 << 16):
        body += chunk
        if len(body) > limit:
            raise BlockedError(f"{shown(url)} is longer than {limit} bytes: not what was asked for")
        if deadline.passed:
            break
    if deadline.passed:
        raise DeadlineError(f"{shown(url)} was not fetched in {deadline.seconds:.0f} s")
    if promised.isdigit() and len(body) != int(promised):
        raise TransientError(f"the server sent {len(body)} of {promised} bytes", IncompleteError)
    return bytes(body)
