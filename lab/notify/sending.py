"""One delivery: tried again while that can help, refused in words that hold no secret."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests
import stamina
import urllib3.exceptions as low

from lab import redact, web
from lab.deadline import Deadline, check_cancelled
from lab.errors import BlockedError, DeadlineError, LabError
from lab.notify.message import Notice

T = TypeVar("T")

_AGAIN = {408, 425, 429}
"""Refusals that may go away, beside every 5xx."""
_ANSWER_BYTES = 8 << 20
"""The longest answer that is read: ten issues of GitHub's with the longest texts it takes."""


class DeliveryError(LabError):
    """Nobody could be told. The text names the host, never an address with a secret in it."""


class TryAgain(Exception):  # noqa: N818 - a request, not a fault
    """This try failed in a way another may mend; `after` is how long the other side asks to wait."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


@dataclass(frozen=True)
class Patience:
    """How often to try, and how long: seconds. `longest` bounds a single wait and a Retry-After.

    `timeout` bounds one try as a whole.
    """

    attempts: int = 5
    first: float = 1.0
    longest: float = 60.0
    timeout: float = 20.0


class Channel(Protocol):
    """One way to tell somebody."""

    name: str

    def deliver(self, notice: Notice) -> str:
        """Tell it, and return what was done, in words. Raises DeliveryError."""


def persist(what: Callable[[], T], patience: Patience) -> T:
    """`what()`, again after TryAgain with growing waits; DeliveryError when the tries are used up."""

    def again(error: Exception) -> bool | float:
        check_cancelled()
        if not isinstance(error, TryAgain):
            return False
        if error.after is None:
            return True
        return min(error.after, patience.longest) if error.after <= patience.longest else False

    try:
        for attempt in stamina.retry_context(
            on=again,
            attempts=patience.attempts,
            timeout=None,
            wait_initial=patience.first,
            wait_max=patience.longest,
            wait_jitter=patience.first,
        ):
            with attempt:
                return what()
    except TryAgain as last:
        waits = f"; it asks to wait {last.after:.0f} s" if last.after else ""
        raise DeliveryError(f"{last}{waits} (tried up to {patience.attempts} times)") from None
    raise AssertionError("unreachable")


def send(
    method: str,
    url: str,
    patience: Patience,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    fine: tuple[int, ...] = (),
) -> web.Answer:
    """One HTTP request, once. Any 2xx is fine, and what `fine` names.

    Raises TryAgain for a lost connection, 5xx and 429, and an answer that does not end in time;
    DeliveryError for anything else: another try would be refused as well. A redirect is refused: what is
    sent is for this host alone.
    """
    host = _checked(url)
    given = {"User-Agent": "lab-nightly", "Accept-Encoding": "identity", **(headers or {})}
    try:
        with (
            web.bounded(f"the answer of {host}", Deadline.after(patience.timeout), _ANSWER_BYTES),
            web.Session() as session,
            session.request(
                method,
                url,
                data=body or None,
                headers=given,
                # Without an `auth` of ours requests would put one of ~/.netrc in our token's place.
                auth=(lambda request: request) if "Authorization" in given else None,
                timeout=patience.timeout,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            # That of a redirect is closed already.
            content = b"" if response.is_redirect else web.read_whole(response, _ANSWER_BYTES)
            answer = web.Answer(response.status_code, response.headers, content)
    except requests.exceptions.SSLError:
        raise DeliveryError(f"{host} does not show a certificate that can be trusted") from None
    except (requests.ConnectionError, requests.Timeout) as error:
        raise TryAgain(f"{host} could not be reached ({type(error).__name__})") from None
    except (requests.RequestException, ValueError) as error:
        raise DeliveryError(f"the request to {host} cannot be made ({type(error).__name__})") from None
    except (low.HTTPError, OSError) as error:
        raise TryAgain(f"{host} broke off its answer ({type(error).__name__})") from None
    except DeadlineError:
        raise TryAgain(f"{host} did not answer in {patience.timeout:.0f} s") from None
    except BlockedError as error:
        raise DeliveryError(error.what) from None
    code = answer.status
    if code // 100 == 2 or code in fine:
        return answer
    if code >= 500 or code in _AGAIN:
        raise TryAgain(f"{host} answered {code}", web.retry_after(answer.headers))
    raise DeliveryError(f"{host} refused it with {code}: {_words(answer)}")


def mail_fault(error: Exception, server: str) -> Exception:
    """An error of smtplib's as TryAgain or DeliveryError."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return DeliveryError(f"{server} does not accept the password", hint="is LAB_SMTP_PASSWORD right?")
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500:
        return DeliveryError(f"{server} refused it with {error.smtp_code}")
    if isinstance(error, smtplib.SMTPRecipientsRefused | smtplib.SMTPNotSupportedError):
        return DeliveryError(f"{server} refused it ({type(error).__name__})")
    return TryAgain(f"{server} could not take it ({type(error).__name__})")


def _checked(url: str) -> str:
    """The host of an address that may be used: https, or plain http on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or parts.scheme not in ("http", "https"):
        raise DeliveryError("the address is not one of https", hint="it begins with https://")
    if parts.scheme == "http" and not web.is_loopback(host):
        raise DeliveryError(
            f"{host} would be told without encryption", hint="use https; http is for this machine alone"
        )
    return host


def _words(answer: web.Answer) -> str:
    """What the other side says, short; it may echo what was sent, so it is redacted before it is cut."""
    try:
        content: Any = answer.json()
        text = str(content.get("message", content)) if isinstance(content, dict) else str(content)
    except (ValueError, RecursionError):
        text = answer.body.decode(errors="replace")
    return redact.clean(" ".join(text.split()))[:200] or "no reason given"
