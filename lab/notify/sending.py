"""One delivery: tried again while that can help, refused in words that hold no secret."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3.exceptions as low

from lab.core import redact, web
from lab.core.deadline import Deadline, pause
from lab.core.errors import BlockedError, DeadlineError, LabError
from lab.notify.message import Notice

T = TypeVar("T")

_ANSWER_BYTES = 8 << 20
"""The longest answer that is read: ten issues of GitHub's with the longest texts it takes."""


class DeliveryError(LabError):
    """Nobody could be told. The text names the host, never an address with a secret in it."""


PATIENCE = web.Patience(attempts=5, backoff=1.0, longest_backoff=60.0, read=20.0)
"""How a delivery is tried. `read` bounds one try as a whole; `longest_backoff` a Retry-After, too."""


class Channel(Protocol):
    """One way to tell somebody."""

    name: str

    def deliver(self, notice: Notice) -> str:
        """Tell it, and return what was done, in words. Raises DeliveryError."""


def persist(what: Callable[[], T], patience: web.Patience) -> T:
    """`what()`, again after TransientError with growing waits; DeliveryError when the tries are used up."""
    failures = 0
    while True:
        try:
            return what()
        except web.TransientError as error:
            failures += 1
            seconds = patience.wait(failures, error.after, patience.longest_backoff)
            if seconds is None:
                waits = f"; it asks to wait {error.after:.0f} s" if error.after else ""
                raise DeliveryError(f"{error}{waits} (tried up to {patience.attempts} times)") from None
        pause(seconds)


def send(
    method: str,
    url: str,
    patience: web.Patience,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    fine: tuple[int, ...] = (),
) -> web.Answer:
    """One HTTP request, once. Any 2xx is fine, and what `fine` names.

    Raises web.TransientError for a lost connection, 5xx and 429, and an answer that does not end in time;
    DeliveryError for anything else: another try would be refused as well. A redirect is refused: what is
    sent is for this host alone.
    """
    host = _checked(url)
    given = {"User-Agent": "lab-nightly", "Accept-Encoding": "identity", **(headers or {})}
    try:
        with (
            web.bounded(f"the answer of {host}", Deadline.after(patience.read), _ANSWER_BYTES),
            web.HttpSession() as session,
            session.request(
                method,
                url,
                data=body or None,
                headers=given,
                # Without an `auth` of ours requests would put one of ~/.netrc in our token's place.
                auth=(lambda request: request) if "Authorization" in given else None,
                timeout=patience.read,
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
        raise web.TransientError(f"{host} could not be reached ({type(error).__name__})") from None
    except (requests.RequestException, ValueError) as error:
        raise DeliveryError(f"the request to {host} cannot be made ({type(error).__name__})") from None
    except (low.HTTPError, OSError) as error:
        raise web.TransientError(f"{host} broke off its answer ({type(error).__name__})") from None
    except DeadlineError:
        raise web.TransientError(f"{host} did not answer in {patience.read:.0f} s") from None
    except BlockedError as error:
        raise DeliveryError(error.what) from None
    code = answer.status
    if code // 100 == 2 or code in fine:
        return answer
    if web.may_go_away(code):
        after = web.retry_after(answer.headers) or 0.0
        raise web.TransientError(f"{host} answered {code}", after=after)
    raise DeliveryError(f"{host} refused it with {code}: {_words(answer)}")


def mail_fault(error: Exception, server: str) -> Exception:
    """An error of smtplib's as web.TransientError or DeliveryError."""
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return DeliveryError(f"{server} does not accept the password", hint="is LAB_SMTP_PASSWORD right?")
    if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code >= 500:
        return DeliveryError(f"{server} refused it with {error.smtp_code}")
    if isinstance(error, smtplib.SMTPRecipientsRefused | smtplib.SMTPNotSupportedError):
        return DeliveryError(f"{server} refused it ({type(error).__name__})")
    return web.TransientError(f"{server} could not take it ({type(error).__name__})")


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
