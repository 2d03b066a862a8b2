"""Webhooks: lab's own JSON, signed; and Slack's."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from lab.core import redact, web
from lab.notify.message import Notice
from lab.notify.secrets import where
from lab.notify.sending import PATIENCE, DeliveryError, persist, send

SIGNATURE, TIMESTAMP, DELIVERY = "X-Lab-Signature", "X-Lab-Timestamp", "X-Lab-Delivery"
_SLACK_TEXT = 2900
"""Slack takes up to 3000 characters in one text of a block."""


class Webhook:
    """POSTs nightly.notice/1, signed when there is a secret."""

    name = "webhook"

    def __init__(self, url: str, secret: str = "", patience: web.Patience = PATIENCE) -> None:
        self._url, self._secret = url, secret
        self._patience = patience

    def deliver(self, notice: Notice) -> str:
        _need(self._url)
        body = json.dumps(notice.document(), sort_keys=True).encode()

        def once() -> int:
            headers = {"Content-Type": "application/json", DELIVERY: notice.uuid}
            if self._secret:
                now = str(int(time.time()))  # of this try: a receiver refuses old ones
                headers |= {TIMESTAMP: now, SIGNATURE: sign(self._secret, now, body)}
            return send("POST", self._url, self._patience, body=body, headers=headers).status

        return f"answered {persist(once, self._patience)}" + ("" if self._secret else " (not signed)")


class Slack:
    """POSTs to a Slack incoming webhook, whose address is the secret."""

    name = "slack"

    def __init__(self, url: str, patience: web.Patience = PATIENCE) -> None:
        self._url = url
        self._patience = patience

    def deliver(self, notice: Notice) -> str:
        _need(self._url)
        body = json.dumps(slack_message(notice)).encode()
        headers = {"Content-Type": "application/json"}
        done = persist(
            lambda: send("POST", self._url, self._patience, body=body, headers=headers), self._patience
        )
        return f"answered {done.status}"


def slack_message(notice: Notice) -> dict[str, Any]:
    """A message of blocks, with the title as its plain text."""
    title = _slack(notice.title)
    text = "\n".join(f"• {_slack(line)}" for line in notice.lines)[:_SLACK_TEXT]
    return {
        "text": title,
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": f"*{title}*"}},
            {"type": "section", "text": {"type": "mrkdwn", "text": text}},
        ],
    }


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """`sha256=` and the hex HMAC-SHA256 over the timestamp, a full stop, and the body."""
    mac = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return f"sha256={mac.hexdigest()}"


def _need(url: str) -> None:
    if not url:
        raise DeliveryError("there is no address to tell", hint=where("webhook-url"))
    redact.register(url)


def _slack(text: str) -> str:
    """Slack's three characters of markup, escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
