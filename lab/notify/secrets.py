"""Secrets of the channels: from the environment or the system's keyring, from nowhere else."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from lab.core import redact

SERVICE = "lab"
NAMES = {
    "webhook-url": "LAB_WEBHOOK_URL",
    "webhook-secret": "LAB_WEBHOOK_SECRET",
    "github-token": "LAB_GITHUB_TOKEN",
    "smtp-password": "LAB_SMTP_PASSWORD",
}
"""Name in the keyring (service `lab`) to variable. The address of a Slack webhook is a secret, too."""

_LONG = 16
"""A part of an address this long may be the secret in it."""


def secret(name: str) -> str:
    """The secret of that name, registered so that no log, error or evidence shows it; empty if none."""
    value = os.environ.get(NAMES[name], "") or _of_keyring(name)
    redact.register(value)
    if name == "webhook-url":
        parts = urlsplit(value)
        for part in (parts.path, parts.query, parts.password or "", *parts.path.split("/")):
            if len(part) >= _LONG:
                redact.register(part)
    return value


def where(name: str) -> str:
    """How a person gives lab this secret."""
    return f"set {NAMES[name]}, or keep it in the keyring: `keyring set {SERVICE} {name}`"


def _of_keyring(name: str) -> str:
    try:
        import keyring

        return keyring.get_password(SERVICE, name) or ""
    except Exception:  # a host without one, one that is locked; each backend has errors of its own
        return ""
