"""Tokens and logins: got where they are wanted, and told to nobody else."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from registrybench import ANDROID, REPOSITORY, TAG, Bench, at, must_be
from registrydoor import Manner, door, serving
from registryserver import PASSWORD, USER, Registry, digest, passwords, registry
from tokenservice import TokenService

from lab import redact
from lab.images.errors import (
    DeniedError,
    UnreachableError,
)

pytestmark = pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry") / "storage") as made:
        made.push(REPOSITORY, TAG, ANDROID)
        yield made


@pytest.fixture
def bench(real: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with at(real, tmp_path) as made:
        yield made


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
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 refused the connection"):
        bench.pull()
