"""HTTP for images: requests with bounds on time and size, and refusals in plain words."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3.exceptions as low

from lab.core import redact, web
from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import BlockedError
from lab.core.web import Patience, TransientError
from lab.images.errors import IncompleteError, RateLimitedError, RefusedError, ServerUnreachableError

_TOO_MANY = 429
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
    except (low.HTTPError, OSError, ValueError, AttributeError) as error:
        raise TransientError(explain(error, response.url), IncompleteError) from error


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
