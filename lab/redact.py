"""Secrets are registered once and never reach a log, an error or an evidence file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_secrets: set[str] = set()
_MASK = "[redacted]"
_SHORTEST = 6
"""Characters: what is shorter would mask half of every log."""
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)

_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:\"']*:[^\s/@\"']+(?=@)")
"""user:password of an address, as in a proxy's: nobody registered it, and it is a secret all the same."""

_NAMES_A_SECRET = re.compile(r"TOKEN|PASSW|PASSPHRASE|SECRET|CREDENTIAL|KEY(?!BOARD|MAP)", re.IGNORECASE)


def register(secret: str) -> None:
    """Remember a secret (of _SHORTEST characters or more) so that `clean` masks it everywhere.

    As it is, and as it stands in JSON and in Python's quotes.
    """
    plain = secret.strip()
    if len(plain) >= _SHORTEST:
        written = [json.dumps(plain, ensure_ascii=only)[1:-1] for only in (True, False)]
        _secrets.update((plain, repr(plain)[1:-1], *written))


def register_variables(words: Iterable[str]) -> None:
    """Register the values of those KEY=VALUE words whose names say that they are secrets.

    A value too short to be masked everywhere is masked together with its name.
    """
    for word in words:
        name, assigned, value = word.partition("=")
        if assigned and value and _NAMES_A_SECRET.search(name):
            register(value if len(value.strip()) >= _SHORTEST else word)


def clean(text: str) -> str:
    """`text` with every registered secret, private key block and password in an address masked."""
    text = _IN_ADDRESS.sub(_MASK, _PRIVATE_KEY.sub(_MASK, text))
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return text
