"""The logins `docker login` keeps in its config.json."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lab import files, redact
from lab.images.registry.reference import same_registry


@dataclass(frozen=True)
class Credentials:
    user: str
    password: str = field(repr=False)


def config_file() -> Path:
    """Docker's config.json of this user."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def stored(host: str, path: Path | None = None) -> Credentials | None:
    """The login for the registry `host`, or None; its secrets are masked from here on.

    Only what is in the file itself counts: a credential helper (credsStore) is not asked.
    """
    try:
        config = files.read_json(path or config_file())
        entries = config["auths"].items() if config else ()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    for server, entry in entries:
        if same_registry(_host(server), host) and (found := _decoded(entry)):
            return found
    return None


def _host(server: str) -> str:
    """`https://index.docker.io/v1/` and `registry.example:5000` name hosts alike."""
    return urlsplit(server if "://" in server else f"//{server}").netloc


def _decoded(entry: object) -> Credentials | None:
    packed = entry.get("auth") if isinstance(entry, dict) else None
    if not isinstance(packed, str):
        return None
    try:
        user, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    if not (user and colon and password):
        return None
    for secret in (packed, password):
        redact.register(secret)
    return Credentials(user, password)
