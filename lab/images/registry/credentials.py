"""The logins `docker login` keeps: in its config.json, or in the credential helpers that file names."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab.core import files, proc, redact, web
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, DeadlineError, LabError
from lab.images.registry.reference import DOCKER_HUB, same_registry

_HUB_KEY = "https://index.docker.io/v1/"
"""What Docker calls Docker Hub where it keeps logins."""
_IDENTITY = "<token>"
"""The user's name that a helper gives an identity token (docker/docker-credential-helpers)."""
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HELPER_SECONDS = 20.0
"""A helper may ask its user to unlock a keyring, who may not be there."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Credentials:
    """A user and a password; or, for a token service, an identity token in place of the password."""

    user: str
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)


def config_file() -> Path:
    """Docker's config.json of this user."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def stored(
    host: str, path: Path | None = None, *, say: Say | None = None, deadline: Deadline | None = None
) -> Credentials | None:
    """The login for the registry `host`, or None; its secrets are masked from here on.

    A credential helper comes before the file itself, as with Docker: one of the registry's own
    (credHelpers), else the common one (credsStore). `say` is told why one gave nothing.
    """
    try:
        config = files.read_json(path or config_file())
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    helper = _entry(config.get("credHelpers"), host) or config.get("credsStore")
    if isinstance(helper, str) and helper:
        try:
            return _registered(_asked(helper, host, deadline or Deadline.after(_HELPER_SECONDS)))
        except (BlockedError, CommandError, DeadlineError, OSError, ValueError) as error:
            if say:
                why = error.what if isinstance(error, LabError) else str(error)
                say(f"Docker's credential helper {helper} gives no login for {host}: {why}")
    return _registered(_read(_entry(config.get("auths"), host)))


def _entry(table: object, host: str) -> Any:
    """What a table of config.json has for the registry `host`; an empty entry counts as none."""
    if isinstance(table, dict):
        for server, entry in table.items():
            if entry and same_registry(_host(server), host):
                return entry
    return None


def _host(server: str) -> str:
    """`https://index.docker.io/v1/` and `registry.example:5000` name hosts alike."""
    try:
        return urlsplit(server if "://" in server else f"//{server}").netloc
    except ValueError:
        return ""


def _asked(helper: str, host: str, deadline: Deadline) -> Credentials | None:
    """What `docker-credential-…` has. Raises what `proc.run` does, and ValueError for a useless answer."""
    if not _HELPER.fullmatch(helper):
        raise ValueError("that is not the name of a program")
    server = _HUB_KEY if same_registry(DOCKER_HUB, host) else host
    argv = [f"docker-credential-{helper}", "get"]
    answer = web.parse_json(proc.run(argv, stdin=server, deadline=deadline.within(_HELPER_SECONDS)).out)
    user, secret = (
        (answer.get("Username"), answer.get("Secret")) if isinstance(answer, dict) else (None, None)
    )
    if not (isinstance(user, str) and isinstance(secret, str) and user and secret):
        raise ValueError("its answer has no login")
    return Credentials(user, identity=secret) if user == _IDENTITY else Credentials(user, secret)


def _read(entry: object) -> Credentials | None:
    """An entry of `auths`: `auth` holds user and password, packed; other tools write them as they are."""
    if not isinstance(entry, dict):
        return None
    words = {name: value for name, value in entry.items() if isinstance(value, str)}
    user, password = words.get("username", ""), words.get("password", "")
    if packed := words.get("auth", ""):
        redact.register(packed)
        try:
            user, _, password = base64.b64decode(packed, validate=True).decode().rstrip("\0").partition(":")
        except (binascii.Error, ValueError):
            return None
    if identity := words.get("identitytoken", ""):
        return Credentials(user, identity=identity)
    return Credentials(user, password) if user and password else None


def _registered(login: Credentials | None) -> Credentials | None:
    if login:
        redact.register(login.identity)
    if login and login.password:
        redact.register(login.password)
        redact.register(f"{login.user}:{login.password}")  # a short one is masked with its user
    return login
