"""Small files over HTTP: whole, in memory, bounded, and asked for again while that may help."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import requests
import urllib3.exceptions as low

from lab.core import web
from lab.core.deadline import Deadline, pause
from lab.core.web import Patience, TransientError
from lab.images.errors import IncompleteError
from lab.images.transport import explain, opened


def fetch_bytes(
    session: web.HttpSession, url: str, *, limit: int, deadline: Deadline, patience: Patience
) -> bytes:
    """The file. Raises BlockedError (over `limit` bytes too), DeadlineError."""
    return fetch(session, url, {}, limit=limit, deadline=deadline, patience=patience).body


def fetch(
    session: web.HttpSession,
    url: str,
    headers: Mapping[str, str],
    *,
    limit: int,
    deadline: Deadline,
    patience: Patience,
    say: Callable[[str], None] | None = None,
    form: Mapping[str, str] | None = None,
) -> web.Answer:
    """As `fetch_bytes`, with `headers` sent and those that came; `say` is told why it takes longer.

    A `form` is sent with POST.
    """
    method = "GET" if form is None else "POST"
    failures = 0
    while True:
        try:
            with opened(
                session, url, headers, patience, deadline, limit=limit, method=method, form=form
            ) as response:
                return web.Answer(response.status_code, response.headers, _body(response, limit))
        except TransientError as fault:
            failures += 1
            seconds = patience.wait(failures, fault.after, deadline.left)
            if seconds is None:
                raise fault.becomes(
                    f"{web.shown(url)} could not be fetched: {fault}",
                    hint="check this machine's network, or name a mirror",
                ) from fault
            if say:
                say(f"{fault}; again in {seconds:.1f} s")
            pause(seconds)


def _body(response: requests.Response, limit: int) -> bytes:
    promised = web.length(response.headers)
    try:
        body = web.read_whole(response, limit)
    except (low.HTTPError, OSError, ValueError, AttributeError) as error:
        raise TransientError(explain(error, response.url), IncompleteError) from error
    if promised is not None and len(body) != promised:
        raise TransientError(f"the server sent {len(body)} of {promised} bytes", IncompleteError)
    return body
