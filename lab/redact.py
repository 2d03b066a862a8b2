"""Secrets are registered once and never reach a log, an error or an evidence file."""

from __future__ import annotations

import re

_secrets: set[str] = set()
_MASK = "[redacted]"
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)

_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)")
"""user:password of an address, as in a proxy's: nobody registered it, and it is a secret all the same."""


def register(secret: str) -> None:
    """Remember a secret (of six characters or more) so that `clean` masks it everywhere."""
    if len(secret.strip()) >= 6:
        _secrets.add(secret.strip())


def clean(text: str) -> str:
    """`text` with every registered secret, private key block and password in an address masked."""
    text = _IN_ADDRESS.sub(_MASK, _PRIVATE_KEY.sub(_MASK, text))
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text
