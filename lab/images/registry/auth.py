"""A registry's challenge, answered: a token from its token service, or the login itself.

The protocol is the distribution project's (docs: "Token Authentication Specification"): 401 with
`WWW-Authenticate: Bearer realm=…,service=…,scope=…`; the realm gives a token, to anybody where
reading is free. An identity token is shown to the realm with POST (docs: "OAuth2 Token Authentication").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth

from lab.core import redact, web
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError
from lab.core.web import Patience
from lab.images.errors import DeniedError, RefusedError
from lab.images.registry.challenge import challenges
from lab.images.registry.credentials import Credentials
from lab.images.transport import fetch

_TOKEN_LIMIT = 1 << 20
_SENDABLE = re.compile(r"[!-~]+")
"""What can be a token in a header."""


class RegistryAuth(AuthBase):
    """Authorization for one repository of the registry `host`, and for no other host.

    Where the registry redirects a blob's request to another host, requests takes the header off,
    and a challenge from there is not answered. A token that has run out is asked for again.
    """

    def __init__(
        self,
        host: str,
        repository: str,
        logins: Callable[[], Credentials | None],
        patience: Patience,
        deadline: Deadline,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`logins` is asked when the registry wants to know who it is, and once."""
        self._host, self._repository = host.lower(), repository
        self._logins = logins
        self._patience, self._deadline, self._say = patience, deadline, say
        self._header = ""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        request.register_hook("response", self._answer)  # type: ignore[no-untyped-call]
        return request

    @cached_property
    def _credentials(self) -> Credentials | None:
        return self._logins()

    def _answer(self, response: requests.Response, **options: Any) -> requests.Response:
        """Called with each response, before a redirect is followed: a 401 is answered once."""
        if response.status_code != 401 or urlsplit(response.url).netloc.lower() != self._host:
            return response
        header = self._authorization(response.headers.get("WWW-Authenticate", ""), response.url)
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

    def _authorization(self, header: str, url: str) -> str:
        """What answers one of the challenges, a token before the login itself; empty when nothing does."""
        asked = challenges(header)
        for challenge in asked:
            if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                return f"Bearer {self._token(challenge.parameters, url)}"
        if any(challenge.scheme == "basic" for challenge in asked) and (login := self._login()):
            header = login(requests.Request("GET", url).prepare()).headers["Authorization"]
            return str(header)
        return ""

    def _token(self, asked: Mapping[str, str], url: str) -> str:
        """A token of the service that the registry names, by an address that may be relative to `url`."""
        realm = self._realm(asked["realm"], url)
        query = {"service": asked["service"]} if asked.get("service") else {}
        query["scope"] = asked.get("scope") or f"repository:{self._repository}:pull"
        form = None
        if self._credentials and self._credentials.identity:
            mine = {"grant_type": "refresh_token", "refresh_token": self._credentials.identity}
            form = query | mine | {"client_id": "lab"}
        else:
            realm = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"
        with web.HttpSession() as session:
            # Never None: requests would then look into ~/.netrc.
            session.auth = self._login() or (lambda request: request)
            try:
                answer = fetch(
                    session,
                    realm,
                    {},
                    limit=_TOKEN_LIMIT,
                    deadline=self._deadline,
                    patience=self._patience,
                    say=self._say,
                    form=form,
                )
            except RefusedError as error:
                raise self._refused(error, realm) from error
        return _read_token(answer, realm)

    def _realm(self, realm: str, url: str) -> str:
        """The whole address. A login goes over https; without it from the loopback to the loopback alone."""
        try:
            whole = urljoin(url, realm)
            parts = urlsplit(whole)
            inside = all(web.is_loopback(urlsplit(where).hostname or "") for where in (url, whole))
        except ValueError:
            raise DeniedError(f"the registry {self._host} sends to no address for a token") from None
        if parts.scheme != "https" and not (parts.scheme == "http" and inside):
            raise DeniedError(
                f"the registry {self._host} sends to {web.shown(whole)} for a token: lab does not leave https"
            )
        return whole

    def _login(self) -> HTTPBasicAuth | None:
        mine = self._credentials
        if mine is None or not mine.password:
            return None
        return HTTPBasicAuth(mine.user.encode(), mine.password.encode())

    def _refused(self, error: RefusedError, realm: str) -> BlockedError:
        if error.status not in (401, 403):
            return error
        if self._credentials:
            who = f"the login of {self._credentials.user}" if self._credentials.user else "the identity token"
            return DeniedError(
                f"{web.shown(realm)} does not take {who} for {self._host}",
                hint=f"`docker login {self._host}` again, or `docker logout {self._host}`",
            )
        return DeniedError(
            f"{web.shown(realm)} gives no token for {self._repository} without a login",
            hint=f"`docker login {self._host}` on this machine; lab uses what it keeps in config.json",
        )


def _read_token(answer: web.Answer, realm: str) -> str:
    try:
        body = answer.json()
        token = body.get("token") or body.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if not isinstance(token, str) or not _SENDABLE.fullmatch(token):
        raise DeniedError(f"{web.shown(realm)} answered without a token")
    redact.register(token)
    return token
