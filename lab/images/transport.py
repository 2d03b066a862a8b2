"""HTTP for images: requests with bounds on time and size, and refusals in plain words."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3.exceptions as low
from urllib3.util.retry import Retry

from lab import redact
from lab.deadline import Deadline, cancelled, check_cancelled
from lab.errors import BlockedError, DeadlineError
from lab.images.errors import IncompleteError, RateLimitedError, RefusedError, UnreachableError

_AGAIN = {408, 425}
"""Client errors that may go away, beside every 5xx."""
_TOO_MANY = 429
_SAID = 4096
"""Bytes of a refusal's body that are kept."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, and how often to ask again.

    `read` is the longest silence; `attempts` how many in a row may bring nothing new.
    """

    connect: float = 10.0
    read: float = 30.0
    attempts: int = 6
    backoff: float = 0.5
    longest_backoff: float = 20.0

    def wait(self, failures: int) -> float:
        return float(min(self.longest_backoff, self.backoff * 2 ** max(0, failures - 1)))


class TransientError(Exception):
    """A try failed in a way that another try may mend. The text says how, in plain words.

    `after` is how many seconds the server asked to wait; `becomes` the error when no try mends it.
    """

    def __init__(self, text: str, becomes: type[BlockedError] = BlockedError, after: float = 0.0) -> None:
        super().__init__(text)
        self.becomes = becomes
        self.after = after

    def is_final(self, failures: int, patience: Patience, deadline: Deadline) -> bool:
        """Whether to give up after so many failures in a row, or because the wait asked for is too long."""
        return failures >= patience.attempts or self.after > deadline.left


def shown(url: str) -> str:
    """The URL without user, password, query: fit for logs and files."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


@contextlib.contextmanager
def opened(
    session: requests.Session,
    url: str,
    headers: Mapping[str, str],
    patience: Patience,
    deadline: Deadline,
    method: str = "GET",
) -> Iterator[requests.Response]:
    """Ask for `url` and yield the response: 200, 206 or 416, its body not yet read.

    Raises TransientError for what may go away, BlockedError for what will not (RefusedError for
    404, 403 and the like; a redirect from https to anything else, a certificate that does not
    fit), DeadlineError.
    """
    _register_secret(url)
    check_cancelled()
    if deadline.passed:
        raise DeadlineError(f"{shown(url)} was not fetched in {deadline.seconds:.0f} s")
    limits = (
        max(0.1, min(patience.connect, deadline.left)),
        max(0.1, min(patience.read, deadline.left)),
    )
    try:
        response = session.request(
            method,
            url,
            # The bytes on disk must be the bytes that were hashed: no content coding.
            headers={"Accept-Encoding": "identity", **headers},
            stream=True,
            timeout=limits,
            hooks={"response": _refuse_downgrade},
        )
    except (requests.RequestException, low.HTTPError, OSError) as error:
        raise _refusal(error, url) from error
    try:
        _check_status(response, url)
        with _interruptible(response, deadline):
            yield response
    finally:
        response.close()


def read_some(response: requests.Response, size: int) -> bytes:
    """What has arrived of the body, at most `size` bytes; empty at its end.

    Raises TransientError, InterruptedByUser. Unlike `iter_content` it does not wait for a
    whole block, so a trickling server cannot outlast the deadline unnoticed.
    """
    try:
        data: bytes | None = response.raw.read1(size, decode_content=False)
    except (low.HTTPError, OSError, ValueError, AttributeError) as error:
        check_cancelled()  # the socket was shut under this read on purpose
        raise TransientError(explain(error, response.url), IncompleteError) from error
    check_cancelled()
    return data or b""


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
    return f"{host} closed the connection"


def _check_status(response: requests.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    said = f"the server answered {status} {response.reason or ''}".rstrip()
    if status == _TOO_MANY:
        after = _retry_after(response)
        raise TransientError(f"{said} (wait {after:.0f} s)" if after else said, RateLimitedError, after)
    if status in _AGAIN or status >= 500:
        raise TransientError(said)
    body = b""
    with contextlib.suppress(TransientError):
        body = read_some(response, _SAID)
    raise RefusedError(
        f"{shown(url)}: {said}",
        status=status,
        body=body,
        hint="the file is not there under this address, or not for everybody: check the base URL",
    )


def _retry_after(response: requests.Response) -> float:
    """Seconds the server asks to wait; 0 when it does not say."""
    try:
        return Retry().get_retry_after(response.raw) or 0.0
    except low.HTTPError:
        return 0.0


def _refusal(error: BaseException, url: str) -> Exception:
    check_cancelled()
    final = (requests.TooManyRedirects, requests.exceptions.InvalidURL, ValueError)
    certificate = any(type(cause).__name__ == "SSLCertVerificationError" for cause in _causes(error))
    if isinstance(error, requests.TooManyRedirects):
        return BlockedError(f"{shown(url)} redirects in circles")
    if isinstance(error, final):
        return BlockedError(f"{shown(url)} is not an address lab can fetch from")
    if certificate:
        return UnreachableError(
            f"{shown(url)}: {explain(error, url)}",
            hint="check the clock, and whether a proxy opens TLS on this network (REQUESTS_CA_BUNDLE)",
        )
    return TransientError(explain(error, url), UnreachableError)


def _refuse_downgrade(response: requests.Response, *_: Any, **__: Any) -> None:
    """A response hook, called before a redirect is followed."""
    if not response.is_redirect or urlsplit(response.url).scheme != "https":
        return
    target = response.headers.get("Location", "")
    scheme = urlsplit(target).scheme or "https"
    if scheme != "https":
        raise BlockedError(
            f"{shown(response.url)} redirects to {scheme}: lab does not leave https",
            hint="name a mirror that serves the files itself",
        )


@contextlib.contextmanager
def _interruptible(response: requests.Response, deadline: Deadline) -> Iterator[None]:
    """End a read that waits for a silent server when the command is cancelled or out of time."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            if cancelled.is_set() or deadline.passed:
                with contextlib.suppress(Exception):
                    response.raw.shutdown()
                return

    watcher = threading.Thread(target=watch, name="lab-download-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join(timeout=1.0)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what is under it: requests and urllib3 hide the reason in several places."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        item = waiting.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        waiting += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def _register_secret(url: str) -> None:
    password = urlsplit(url).password
    if password:
        redact.register(password)
        redact.register(unquote(password))
