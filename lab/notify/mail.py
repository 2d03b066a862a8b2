"""Mail by SMTP: plain text, encrypted on its way unless the server is this machine."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from typing import Any

from lab.core import web
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError
from lab.notify.message import Notice
from lab.notify.sending import PATIENCE, DeliveryError, mail_fault, persist

_IMPLICIT_TLS = 465
_ANSWER_BYTES = 1 << 20
"""The longest conversation on the server's side: smtplib itself reads an answer for as long as it goes on."""
_SILENCES = 6
"""How many timeouts a conversation may take: a busy server takes its time over each of some ten answers."""


class _Bounded:
    """smtplib's client, whose reads are bounded."""

    def getreply(self) -> tuple[int, bytes]:
        client: Any = self
        if client.file is None and client.sock is not None:  # new, or encrypted from here on
            client.file = web.watched(client.sock).makefile("rb")
        answer: tuple[int, bytes] = super().getreply()  # type: ignore[misc]
        return answer


class _Smtp(_Bounded, smtplib.SMTP): ...


class _SmtpOverTls(_Bounded, smtplib.SMTP_SSL): ...


class Mail:
    """Sends a night to one address. `server` is HOST:PORT.

    The message and a password go encrypted, or no further than this machine.
    """

    name = "mail"

    def __init__(
        self,
        server: str,
        sender: str,
        to: str,
        *,
        user: str = "",
        password: str = "",
        patience: web.Patience = PATIENCE,
    ) -> None:
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self._sender, self._to = sender, to
        self._user, self._password = user, password
        self._patience = patience

    def deliver(self, notice: Notice) -> str:
        message = EmailMessage()
        message["Subject"] = " ".join(notice.title.split())
        message["From"], message["To"] = self._sender, self._to
        message["Message-ID"] = f"<{notice.uuid}@lab.invalid>"
        message.set_content("\n".join(notice.lines) + "\n")
        persist(lambda: self._send(message), self._patience)
        return f"sent to {self._to}"

    def _send(self, message: EmailMessage) -> None:
        try:
            with (
                web.bounded(f"the answer of {self._host}", Deadline.after(self._seconds), _ANSWER_BYTES),
                self._connected() as server,
            ):
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(message)
        except DeliveryError:
            raise
        except DeadlineError:
            raise web.TransientError(f"{self._host} did not answer in {self._seconds:.0f} s") from None
        except BlockedError as error:
            raise DeliveryError(error.what) from None
        except ssl.SSLError:
            raise DeliveryError(f"{self._host} does not show a certificate that can be trusted") from None
        except (smtplib.SMTPException, OSError) as error:
            raise mail_fault(error, self._host) from None

    @property
    def _seconds(self) -> float:
        return _SILENCES * self._patience.read

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._port == _IMPLICIT_TLS:
            return _SmtpOverTls(self._host, self._port, timeout=self._patience.read, context=context)
        server = _Smtp(self._host, self._port, timeout=self._patience.read)
        if web.is_loopback(self._host):
            return server
        server.ehlo()
        if not server.has_extn("starttls"):
            server.close()
            raise DeliveryError(f"{self._host} offers no encryption, and is not this machine")
        server.starttls(context=context)
        return server
