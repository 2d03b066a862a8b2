"""HTTP for images: requests with bounds on time and size, small files whole, refusals in plain words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3.exceptions as low

from lab.core import redact, web
from lab.core.deadline import Deadline, check_cancelled, pause
from lab.core.errors import BlockedError, DeadlineError
from lab.core.web import Patience, TransientError
from lab.images.errors import IncompleteError, RateLimitedError, RefusedError, ServerUnreachableError

_UNAUTHORIZED, _TOO_MANY = 401, 429
_CONNECT_SECONDS = 3.0
_BROKEN = (low.HTTPError, OSError, ValueError, AttributeError)
"""What a connection that broke raises while it is read."""
_SAID = 4096
"""Bytes of a refusal's body that are kept."""


@contextlib.contextmanager
def opened(
    session: web.HttpSession,
    url: str,
    headers: Mapping[str, str],
    patience: Patience,
    deadline: Deadline,
    *,
    limit: int = 0,
    method: str = "GET",
    form: Mapping[str, str] | None = None,
) -> Iterator[requests.Response]:
    """Ask for `url` and yield the response: 200, 206 or 416, its body not yet read.

    `limit` is the longest body in bytes; a `form` is sent with POST. Raises TransientError for what may go
    away, BlockedError for what will not (RefusedError for 404, 403 and the like; a redirect from https to
    anything else, a certificate that does not fit, an answer that is too long), DeadlineError. Reading in
    here raises the same.
    """
    _register_secret(url)
    framing = limit // 8  # a body in chunks is longer on its way
    with web.bounded(web.shown(url), deadline, limit + framing + web.HEAD_BYTES):
        try:
            response = session.request(
                method,
                url,
                data=form,
                # The bytes on disk must be the bytes that were hashed: no content coding.
                headers={"Accept-Encoding": "identity", **headers},
                stream=True,
                timeout=(patience.connect, patience.read),
            )
        except (requests.RequestException, low.HTTPError, OSError, ValueError) as error:
            raise _refusal(error, url) from error
        try:
            _check_status(response, url)
            yield response
        finally:
            response.close()


def read_some(response: requests.Response, size: int) -> bytes:
    """As `web.read_some`, with a lost connection as TransientError."""
    try:
        return web.read_some(response, size)
    except _BROKEN as error:
        raise TransientError(explain(error, response.url), IncompleteError) from error


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
    except _BROKEN as error:
        raise TransientError(explain(error, response.url), IncompleteError) from error
    if promised is not None and len(body) != promised:
        raise TransientError(f"the server sent {len(body)} of {promised} bytes", IncompleteError)
    return body


def why_unreachable(session: web.HttpSession, url: str, seconds: float) -> str | None:
    """None when the server answers within `seconds` (also with 401: it wants a login), else why not."""
    once = Patience(connect=min(_CONNECT_SECONDS, seconds), read=seconds, attempts=1)
    try:
        with opened(session, url, {}, once, Deadline.after(seconds)):
            return None
    except TransientError as error:
        return str(error)
    except BlockedError as error:
        return None if getattr(error, "status", 0) == _UNAUTHORIZED else error.what
    except DeadlineError:
        return f"no answer from {web.shown(url)} in {seconds:.0f} s"


def explain(error: BaseException, url: str) -> str:
    """Why a connection failed, in a few plain words without addresses in memory or credentials."""
    host = urlsplit(url).hostname or "the server"
    causes = list(_causes(error))
    kinds = {type(cause).__name__ for cause in causes}
    if "NameResolutionError" in kinds or "gaierror" in kinds:
        return f"the name {host} could not be resolved"
    if kinds & {"ConnectTimeout", "ConnectTimeoutError"}:
        return f"{host} did not answer"
    if kinds & {"ReadTimeout", "ReadTimeoutError", "TimeoutError"}:
        return f"{host} stopped sending"
    numbers = {cause.errno for cause in causes if isinstance(cause, OSError)}
    if errno.ECONNREFUSED in numbers:
        return f"{host} refused the connection"
    if numbers & {errno.ENETUNREACH, errno.EHOSTUNREACH}:
        return f"there is no route to {host}"
    if kinds & {"SSLCertVerificationError", "CertificateError"}:
        return f"the TLS certificate of {host} was not accepted"
    if kinds & {"ProxyError"}:
        return f"the proxy did not let the request to {host} through"
    if kinds & {"SSLError", "SSLEOFError", "SSLZeroReturnError"}:
        return f"the TLS connection to {host} failed"
    if kinds & {"LineTooLong", "BadStatusLine", "HTTPException"} and "RemoteDisconnected" not in kinds:
        return f"what {host} sends is not an answer of HTTP"
    return f"{host} closed the connection"


def _check_status(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    answer = f"the server answered {status} {response.reason or ''}".rstrip()
    if web.may_go_away(status):
        after = web.retry_after(response.headers) or 0.0
        becomes = RateLimitedError if status == _TOO_MANY else BlockedError
        raise TransientError(f"{answer} (wait {after:.0f} s)" if after else answer, becomes, after)
    body = b""
    with contextlib.suppress(TransientError):
        body = read_some(response, _SAID)
    raise RefusedError(
        f"{web.shown(url)}: {answer}",
        status=status,
        body=body,
        hint="the file is not there under this address, or not for everybody: check the base URL",
    )


def _refusal(error: BaseException, url: str) -> Exception:
    check_cancelled()
    final = (requests.TooManyRedirects, requests.exceptions.InvalidURL, ValueError)
    certificate = any(type(cause).__name__ == "SSLCertVerificationError" for cause in _causes(error))
    if isinstance(error, requests.TooManyRedirects):
        return BlockedError(f"{web.shown(url)} redirects in circles")
    if isinstance(error, requests.exceptions.InvalidProxyURL):
        return BlockedError(
            f"{web.shown(url)} cannot be asked: the proxy in this environment is not one lab can use",
            hint="HTTP_PROXY and HTTPS_PROXY name one as http://HOST:PORT; NO_PROXY names who needs none",
        )
    if isinstance(error, final):
        return BlockedError(f"{web.shown(url)} is not an address lab can fetch from")
    if certificate:
        return ServerUnreachableError(
            f"{web.shown(url)}: {explain(error, url)}",
            hint="check the clock, and whether a proxy opens TLS on this network (REQUESTS_CA_BUNDLE)",
        )
    return TransientError(explain(error, url), ServerUnreachableError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what is under it: requests and urllib3 hide the reason in several places."""
    visited: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        item = waiting.pop(0)
        if not isinstance(item, BaseException) or id(item) in visited:
            continue
        visited.add(id(item))
        yield item
        waiting += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def _register_secret(url: str) -> None:
    password = urlsplit(url).password
    if password:
        redact.register(password)
        redact.register(unquote(password))
