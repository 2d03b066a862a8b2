"""What HTTP says, read with distrust: numbers, moments, addresses, JSON."""

from __future__ import annotations

import email.utils
import ipaddress
import json
import os
import re
import time
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

_EPOCH = 1_000_000_000
"""A Retry-After of more seconds than this (30 years) is a moment in Unix time, as Docker Hub sends it."""
_NEVER_PROXIED = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")


def parse_json(text: str | bytes) -> Any:
    """JSON of a stranger's. Raises ValueError for whatever is wrong with it, nesting too deep included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait; None when it does not say, or nothing that can be read.

    Given as seconds, as a date (RFC 9110), or as Unix time. A moment is taken by the server's own clock
    where the answer has a Date.
    """
    text = headers.get("Retry-After", "").strip()
    now = _moment(headers.get("Date", "")) or time.time()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        seconds = float(text)
        return max(0.0, seconds - now) if seconds > _EPOCH else seconds
    until = _moment(text)
    return None if until is None else max(0.0, until - now)


def length(headers: Mapping[str, str]) -> int | None:
    """The Content-Length in bytes; None where there is none that can be."""
    text = headers.get("Content-Length", "")
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address, without its port) is this machine's loopback."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (inner or address).is_loopback


def spare_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Have every program started from here reach the loopback without a proxy, where one is set."""
    if not any(name.lower().endswith("_proxy") and value for name, value in environment.items()):
        return
    for name in ("no_proxy", "NO_PROXY"):
        given = environment.get(name) or environment.get(name.swapcase()) or ""
        words = [word.strip() for word in given.split(",") if word.strip()]
        if "*" not in words:
            environment[name] = ",".join(dict.fromkeys((*words, *_NEVER_PROXIED)))


def shown(url: str) -> str:
    """The URL without user, password, query: fit for logs and files."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "an address that cannot be read"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _moment(date: str) -> float | None:
    """An HTTP date as Unix time, None if it is none."""
    try:
        parsed = email.utils.parsedate_tz(date)
        return None if parsed is None else float(email.utils.mktime_tz(parsed))
    except (ValueError, OverflowError, TypeError):
        return None
