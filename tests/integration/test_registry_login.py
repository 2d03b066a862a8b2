"""Tokens and logins: got where they are wanted, and told to nobody else."""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from registrybench import ANDROID, REPOSITORY, Bench, must_be
from registrydoor import Manner, door
from registryserver import IDENTITY, PASSWORD, USER, Registry, digest, passwords, registry
from tokenservice import TokenService

from lab.core import redact
from lab.images.errors import (
    DeniedError,
    ServerUnreachableError,
)
from tests.serving import serving


def _log_in(folder: Path, server: str, user: str = USER, password: str = PASSWORD) -> None:
    packed = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "docker").mkdir(exist_ok=True)
    (folder / "docker" / "config.json").write_text(json.dumps({"auths": {server: {"auth": packed}}}))


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenService]:
    service = TokenService(tmp_path)
    with serving(service):
        yield service


@pytest.fixture
def guarded(real: Registry, tokens: TokenService) -> Iterator[Registry]:
    """The same images behind tokens."""
    with registry(real.folder, tokens.auth) as made:
        yield made


def test_a_token_is_asked_for_and_used(bench: Bench, guarded: Registry, tokens: TokenService) -> None:
    bench.door.behind = guarded.host
    must_be(bench.pull(), ANDROID)
    (asked, login), *more = tokens.asked
    assert asked == {"service": ["lab-test-registry"], "scope": [f"repository:{REPOSITORY}:pull"]}
    assert (login, more) == ("", [])
    assert [request.status for request in bench.door.requests] == [401, 200, 200, 200, 200, 200]
    assert tokens.given[0] not in redact.clean(f"said {tokens.given[0]}")


def test_a_token_that_ran_out_is_asked_for_again(
    bench: Bench, guarded: Registry, tokens: TokenService
) -> None:
    layer = ANDROID.layers[1]
    bench.door.behind = guarded.host
    bench.door.answers(digest(layer), Manner(cut=90_000), Manner(forget=True))
    must_be(bench.pull(), ANDROID)
    assert len(tokens.asked) == 2
    assert [request.status for request in bench.door.asked(digest(layer))] == [200, 401, 206]
    assert sum(request.sent for request in bench.door.asked(digest(layer)) if request.status != 401) == len(
        layer
    )


@pytest.mark.parametrize(
    "challenge",
    [
        'Basic realm="registry", Bearer realm="{realm}",service="{service}",scope="{scope}"',
        'Negotiate, bearer Realm="{realm}", service={service} , scope="{scope}"',
        'Negotiate YWJj==,BEARER realm = "{realm}",service="{service}",scope="{scope}", Basic realm="a, b"',
    ],
)
def test_a_token_is_asked_for_among_other_ways_to_log_in(
    bench: Bench, guarded: Registry, tokens: TokenService, challenge: str
) -> None:
    """As a registry behind a proxy of its own asks: several challenges, in any order."""
    bench.door.behind = guarded.host
    scope = f"repository:{REPOSITORY}:pull"
    header = challenge.format(realm=tokens.url, service="lab-test-registry", scope=scope)
    bench.door.answers("/manifests/", Manner(status=401, headers={"WWW-Authenticate": header}))
    must_be(bench.pull(), ANDROID)
    assert [asked for asked, _ in tokens.asked] == [{"service": ["lab-test-registry"], "scope": [scope]}]


def test_a_token_service_at_a_relative_address(bench: Bench, guarded: Registry, tokens: TokenService) -> None:
    bench.door.behind = guarded.host
    header = 'Bearer realm="/zot/auth/token",service="lab-test-registry"'
    bench.door.answers("/manifests/", Manner(status=401, headers={"WWW-Authenticate": header}))
    given = json.dumps({"token": tokens.token(f"repository:{REPOSITORY}:pull")}).encode()
    bench.door.answers("/zot/auth/token?", Manner(status=200, body=given))
    must_be(bench.pull(), ANDROID)
    assert len(bench.door.asked("/zot/auth/token?service=lab-test-registry&scope=")) == 1


def test_an_identity_token_is_shown_to_the_token_service_alone(
    bench: Bench, guarded: Registry, tokens: TokenService, tmp_path: Path
) -> None:
    bench.door.behind = guarded.host
    tokens.login = True
    _keep(tmp_path, {"auths": {bench.door.host: {"identitytoken": IDENTITY}}})
    must_be(bench.pull(), ANDROID)
    assert [asked.get("grant_type") for asked, _ in tokens.asked] == [["refresh_token"]]
    assert not any(IDENTITY in request.authorization for request in bench.door.requests)
    assert IDENTITY not in redact.clean(IDENTITY)


def test_a_login_of_another_tool_and_one_of_a_helper(
    bench: Bench, guarded: Registry, tokens: TokenService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.door.behind = guarded.host
    tokens.login = True
    _keep(tmp_path, {"auths": {bench.door.host: {"username": USER, "password": PASSWORD}}})
    must_be(bench.pull(), ANDROID)
    _helper(tmp_path, monkeypatch, json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD}))
    _keep(tmp_path, {"auths": {bench.door.host: {}}, "credsStore": "test"})
    shutil.rmtree(bench.cache)
    must_be(bench.pull(), ANDROID)
    assert (tmp_path / "asked").read_text() == f"get {bench.door.host}"
    _helper(tmp_path, monkeypatch, "credentials not found in native keychain", status=1)
    shutil.rmtree(bench.cache)
    with pytest.raises(DeniedError, match="without a login"):
        bench.pull()
    assert f"credential helper test gives no login for {bench.door.host}" in bench.said()


def _keep(folder: Path, config: object) -> None:
    (folder / "docker").mkdir(exist_ok=True)
    (folder / "docker" / "config.json").write_text(json.dumps(config), encoding="utf-8-sig")


def _helper(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int = 0) -> None:
    """A program as docker-credential-helpers has them: the server on standard input, JSON as the answer."""
    program = folder / "bin" / "docker-credential-test"
    program.parent.mkdir(exist_ok=True)
    asked = f"printf '%s ' \"$1\" > {folder}/asked; cat >> {folder}/asked"
    program.write_text(f"#!/bin/sh\n{asked}\nprintf '%s' {shlex.quote(answer)}\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def test_a_login_is_taken_from_dockers_config(
    bench: Bench, guarded: Registry, tokens: TokenService, tmp_path: Path
) -> None:
    bench.door.behind = guarded.host
    tokens.login = True
    with pytest.raises(DeniedError, match="gives no token for budtmo/docker-android without a login"):
        bench.pull()
    _log_in(tmp_path, f"http://{bench.door.host}")
    must_be(bench.pull(), ANDROID)
    assert PASSWORD not in bench.said()
    assert PASSWORD not in redact.clean(PASSWORD)
    assert not any(request.authorization.startswith("Basic") for request in bench.door.requests)


def test_a_login_that_is_not_taken(
    bench: Bench, guarded: Registry, tokens: TokenService, tmp_path: Path
) -> None:
    bench.door.behind = guarded.host
    tokens.login = True
    _log_in(tmp_path, bench.door.host, password="wrong-password")
    with pytest.raises(DeniedError, match=f"does not take the login of {USER}") as caught:
        bench.pull()
    assert "wrong-password" not in f"{caught.value.what} {caught.value.hint} {bench.said()}"


def test_a_login_without_tokens(bench: Bench, real: Registry, tmp_path: Path) -> None:
    with registry(real.folder, passwords(tmp_path)) as basic:
        bench.door.behind = basic.host
        with pytest.raises(DeniedError, match=r"without a login \(UNAUTHORIZED"):
            bench.pull()
        _log_in(tmp_path, bench.door.host, password="wrong-password")
        with pytest.raises(DeniedError):
            bench.pull()
        _log_in(tmp_path, bench.door.host)
        must_be(bench.pull(), ANDROID)


def test_a_registry_that_denies(bench: Bench) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}'
    bench.door.always.append(("/manifests/", Manner(status=403, body=body)))
    with pytest.raises(DeniedError, match=r"DENIED: requested access is denied"):
        bench.pull()
    assert len(bench.door.requests) == 1


def test_another_host_gets_the_layer_request_but_not_the_token(
    bench: Bench, guarded: Registry, tokens: TokenService
) -> None:
    with door(bench.real.host) as elsewhere:
        bench.door.behind = guarded.host
        layer = ANDROID.layers[1]
        path = f"/v2/{REPOSITORY}/blobs/{digest(layer)}"
        away = Manner(status=307, headers={"Location": f"http://{elsewhere.host}{path}?signature=x"})
        bench.door.answers(digest(layer), away, away)
        elsewhere.answers(digest(layer), Manner(cut=90_000))
        must_be(bench.pull(), ANDROID)
    assert [request.range for request in elsewhere.requests] == ["", "bytes=90000-"]
    assert {request.authorization for request in elsewhere.requests} == {""}
    assert all(request.authorization for request in bench.door.asked(digest(layer)))
    assert sum(request.sent for request in elsewhere.requests) == len(layer)


def test_a_challenge_from_another_host_is_not_answered(
    bench: Bench, tokens: TokenService, tmp_path: Path
) -> None:
    _log_in(tmp_path, bench.door.host)
    challenge = {"WWW-Authenticate": f'Bearer realm="{tokens.url}",service="x"'}
    with door(bench.real.host) as elsewhere:
        elsewhere.always.append(("/", Manner(status=401, headers=challenge)))
        away = {"Location": f"http://{elsewhere.host}/x"}
        bench.door.always.append(("/blobs/", Manner(status=307, headers=away)))
        with pytest.raises(DeniedError):
            bench.pull()
        assert {request.authorization for request in elsewhere.requests} == {""}
    assert tokens.asked == []


def test_a_token_is_not_asked_for_over_plain_http_elsewhere(bench: Bench, tmp_path: Path) -> None:
    _log_in(tmp_path, bench.door.host)
    challenge = {"WWW-Authenticate": 'Bearer realm="http://tokens.invalid/token",service="x"'}
    bench.door.always.append(("/manifests/", Manner(status=401, headers=challenge)))
    with pytest.raises(DeniedError, match="does not leave https"):
        bench.pull()


def test_a_token_service_that_is_silent(bench: Bench) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/token",service="x"'}
    bench.door.always.append(("/manifests/", Manner(status=401, headers=challenge)))
    with pytest.raises(ServerUnreachableError, match=r"127\.0\.0\.1 refused the connection"):
        bench.pull()
