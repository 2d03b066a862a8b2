"""A registry's challenge, answered: a token from its token service, or the login itself.

The protocol is the distribution project's (docs: "Token Authentication Specification"): 401 with
`WWW-Authenticate: Bearer realm=…,service=…,scope=…`; the realm gives a token, to anybody where
reading is free.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import parse_dict_header

from lab import redact
from lab.deadline import Deadline
from lab.errors import BlockedError
from lab.images.errors import DeniedError, RefusedError
from lab.images.registry.credentials import Credentials
from lab.images.registry.reference import scheme
from lab.images.small import fetch
from lab.images.transport import Patience, shown

_TOKEN_LIMIT = 1 << 20


class RegistryAuth(AuthBase):
    """Authorization for one repository of the registry `host`, and for no other host.

    Where the registry redirects a blob's request to another host, requests takes the header off,
    and a challenge from there is not answered. A token that has run out is asked for again.
    """

    def __init__(
        self,
        host: str,
        repository: str,
        credentials: Credentials | None,
        patience: Patience,
        deadline: Deadline,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._host, self._repository = host.lower(), repository
        self._credentials = credentials
        self._patience, self._deadline, self._say = patience, deadline, say
        self._header = ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        request.register_hook("response", self._answer)  # type: ignore[no-untyped-call]
        return request

    def _answer(self, response: requests.Response, **options: Any) -> requests.Response:
        """Called with each response, before a redirect is followed: a 401 is answered once."""
        if response.status_code != 401 or urlsplit(response.url).netloc.lower() != self._host:
            return response
        header = self._authorization(response.headers.get("WWW-Authenticate", ""))
        if not header:
            return response
        self._header = header
        response.close()
        request = response.request.copy()
        request.headers["Authorization"] = header
        again: requests.Response = response.connection.send(request, **options)
        again.history.append(response)
        again.request = request
        return again

    def _authorization(self, challenge: str) -> str:
        """The header that answers it; empty when lab has no answer."""
        kind, asked = parse_challenge(challenge)
        if kind == "bearer" and asked.get("realm"):
            return f"Bearer {self._token(asked)}"
        if kind == "basic" and self._credentials:
            login = requests.Request("GET", "http://localhost", auth=self._login()).prepare()
            return login.headers["Authorization"]
        return ""

    def _token(self, asked: dict[str, str]) -> str:
        realm = asked["realm"]
        parts = urlsplit(realm)
        if parts.scheme != scheme(parts.netloc) and parts.scheme != "https":
            raise DeniedError(
                f"the registry {self._host} sends to {shown(realm)} for a token: lab does not leave https"
            )
        query = {"service": asked.get("service", "")} if asked.get("service") else {}
        query["scope"] = asked.get("scope") or f"repository:{self._repository}:pull"
        url = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}"
        with requests.Session() as session:
            # Never None: requests would then look into ~/.netrc.
            session.auth = self._login() or (lambda request: request)
            try:
                answer = fetch(
                    session,
                    url,
                    {},
                    limit=_TOKEN_LIMIT,
                    deadline=self._deadline,
                    patience=self._patience,
                    say=self._say,
                )
            except RefusedError as error:
                raise self._refused(error, realm) from error
        return _read_token(answer.body, realm)

    def _login(self) -> HTTPBasicAuth | None:
        mine = self._credentials
        return HTTPBasicAuth(mine.user.encode(), mine.password.encode()) if mine else None

    def _refused(self, error: RefusedError, realm: str) -> BlockedError:
        if error.status not in (401, 403):
            return error
        if self._credentials:
            return DeniedError(
                f"{shown(realm)} does not take the login of {self._credentials.user} for {self._host}",
                hint=f"`docker login {self._host}` again, or `docker logout {self._host}`",
            )
        return DeniedError(
            f"{shown(realm)} gives no token for {self._repository} without a login",
            hint=f"`docker login {self._host}` on this machine; lab uses what it keeps in config.json",
        )


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """The scheme in small letters and its parameters: ('bearer', {'realm': …})."""
    kind, _, rest = header.strip().partition(" ")
    found = parse_dict_header(rest) if rest.strip() else {}  # type: ignore[no-untyped-call]
    return kind.lower(), {name.lower(): value for name, value in found.items() if value is not None}


def _read_token(body: bytes, realm: str) -> str:
    try:
        told = json.loads(body)
        token = told.get("token") or told.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str) or not token.isprintable() or not token:
        raise DeniedError(f"{shown(realm)} answered without a token")
    redact.register(token)
    return token
