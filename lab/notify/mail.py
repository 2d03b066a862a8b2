"""Mail by SMTP: plain text, encrypted on its way unless the server is this machine."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage

from lab.notify.message import Notice
from lab.notify.sending import DeliveryError, Patience, is_loopback, mail_fault, persist

_IMPLICIT_TLS = 465


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
        patience: Patience | None = None,
    ) -> None:
        self._host, _, port = server.rpartition(":")
        self._port = int(port)
        self._sender, self._to = sender, to
        self._user, self._password = user, password
        self._patience = patience or Patience()

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
            with self._connected() as server:
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(message)
        except DeliveryError:
            raise
        except ssl.SSLError:
            raise DeliveryError(f"{self._host} does not show a certificate that can be trusted") from None
        except (smtplib.SMTPException, OSError) as error:
            raise mail_fault(error, self._host) from None

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._port == _IMPLICIT_TLS:
            return smtplib.SMTP_SSL(self._host, self._port, timeout=self._patience.timeout, context=context)
        server = smtplib.SMTP(self._host, self._port, timeout=self._patience.timeout)
        if is_loopback(self._host):
            return server
        server.ehlo()
        if not server.has_extn("starttls"):
            server.close()
            raise DeliveryError(f"{self._host} offers no encryption, and is not this machine")
        server.starttls(context=context)
        return server
