"""What of a registry's client needs no registry: logins, challenges, manifests, the memory of digests."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import redact
from lab.errors import BlockedError, LabError
from lab.images.errors import PlatformError
from lab.images.registry import Learned, Reference, manifests
from lab.images.registry.auth import parse_challenge
from lab.images.registry.credentials import Credentials, stored
from lab.images.registry.manifests import Index

NAME = Reference.parse("a/b:c")
ONE, TWO, THREE = (f"sha256:{digit * 64}" for digit in "123")


def _packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
        ("docker.io", "registry-1.docker.io"),
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io"),
        ("http://localhost:5000/v2/", "localhost:5000"),
    ],
)
def test_a_login_is_found_by_each_spelling_of_its_registry(tmp_path: Path, key: str, host: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {"other.example": {}, key: {"auth": _packed("ada:pass:word")}}}))
    found = stored(host, config)
    assert found == Credentials("ada", "pass:word")
    assert "pass:word" not in repr(found)
    assert redact.clean(f"x {_packed('ada:pass:word')} pass:word") == "x [redacted] [redacted]"
    assert stored("elsewhere.example", config) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"auths": []}',
        '{"auths": null}',
        '{"auths": {"ghcr.io": null}}',
        '{"auths": {"ghcr.io": {}}, "credsStore": "desktop"}',
        '{"auths": {"ghcr.io": {"auth": "%%%"}}}',
        '{"auths": {"ghcr.io": {"auth": "/w=="}}}',
        json.dumps({"auths": {"ghcr.io": {"auth": _packed("nobody")}}}),
    ],
)
def test_a_config_without_a_login_means_none(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config.json"
    config.write_text(text)
    assert stored("ghcr.io", config) is None
    assert stored("ghcr.io", tmp_path / "absent.json") is None


def test_dockers_own_folder_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {"ghcr.io": {"auth": _packed("ada:secret-1")}}})
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert stored("ghcr.io") == Credentials("ada", "secret-1")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            (
                "bearer",
                {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:a/b:pull,push",
                },
            ),
        ),
        ('BEARER Realm="x", Error="invalid_token"', ("bearer", {"realm": "x", "error": "invalid_token"})),
        ("Basic realm=x", ("basic", {"realm": "x"})),
        ("Negotiate", ("negotiate", {})),
        ("", ("", {})),
    ],
)
def test_challenges(header: str, wanted: tuple[str, dict[str, str]]) -> None:
    assert parse_challenge(header) == wanted


@given(st.text(max_size=80))
def test_no_challenge_is_too_strange(header: str) -> None:
    kind, asked = parse_challenge(header)
    assert kind == kind.lower()
    assert all(isinstance(value, str) for value in asked.values())


def _listed(digest: str, os: str, architecture: str) -> dict[str, object]:
    return {
        "digest": digest,
        "size": 1,
        "platform": {"os": os, "architecture": architecture, "variant": "v8"},
    }


def test_the_manifest_for_amd64_is_chosen() -> None:
    content = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                _listed(ONE, "unknown", "unknown"),
                _listed(TWO, "linux", "arm64"),
                _listed(THREE, "linux", "amd64"),
                _listed(ONE, "windows", "amd64"),
            ],
        }
    )
    found = manifests.parse(content.encode(), NAME)
    assert isinstance(found, Index)
    assert found.amd64(NAME) == THREE


def test_an_index_without_amd64_says_what_it_has() -> None:
    rows = [_listed(ONE, "unknown", "unknown"), _listed(TWO, "linux", "arm64"), {"digest": TWO, "size": 3}]
    found = manifests.parse(json.dumps({"schemaVersion": 2, "manifests": rows}).encode(), NAME)
    assert isinstance(found, Index)
    with pytest.raises(PlatformError, match=r"only for linux/arm64$"):
        found.amd64(NAME)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"schemaVersion": 1, "fsLayers": []},
        {"schemaVersion": 2},
        {"schemaVersion": 2, "config": {"digest": ONE, "size": 1}},
        {"schemaVersion": 2, "config": {"digest": ONE, "size": 1}, "layers": []},
        {
            "schemaVersion": 2,
            "config": {"digest": "md5:1", "size": 1},
            "layers": [{"digest": ONE, "size": 1}],
        },
        {"schemaVersion": 2, "config": {"digest": ONE, "size": 1}, "layers": [{"digest": ONE, "size": -1}]},
        {
            "schemaVersion": 2,
            "config": {"digest": ONE, "size": 1},
            "layers": [{"digest": "sha256:../x", "size": 1}],
        },
        [],
    ],
)
def test_what_is_no_image_is_refused(document: object) -> None:
    with pytest.raises(BlockedError, match=r"not one lab can read|not a container image's"):
        manifests.parse(json.dumps(document).encode(), NAME)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    for read in (lambda: manifests.parse(content, NAME), lambda: manifests.parse_config(content, "x")):
        with pytest.raises(LabError):
            read()


def test_a_digest_is_learned_kept_and_compared(tmp_path: Path) -> None:
    learned = Learned(tmp_path)
    assert learned.get(NAME) is None
    assert learned.observe(NAME, ONE) is None
    assert learned.get(NAME) is None  # looking teaches nothing
    learned.learn(NAME, ONE)
    assert learned.observe(NAME, ONE) is None
    change = learned.observe(NAME, TWO)
    assert change is not None
    assert (change.old, change.new) == (ONE, TWO)
    assert learned.observe(NAME, TWO) == change
    again = Learned(tmp_path).get(NAME)
    assert again is not None
    assert (again.digest, again.change) == (ONE, change)
    assert learned.observe(NAME, ONE) is None
    learned.learn(NAME, THREE)
    known = learned.get(NAME)
    assert known is not None
    assert (known.digest, known.change) == (THREE, None)


def test_each_spelling_of_a_tag_is_the_same_tag(tmp_path: Path) -> None:
    Learned(tmp_path).learn(Reference.parse("docker.io/library/x"), ONE)
    known = Learned(tmp_path).get(Reference.parse("x:latest"))
    assert known is not None
    assert known.digest == ONE
    assert Learned(tmp_path).get(Reference.parse("ghcr.io/library/x")) is None
    assert Learned(tmp_path).get(Reference.parse("x:other")) is None


@pytest.mark.parametrize("text", ["{", "[1]", '{"schema": "other/1"}', '{"tags": {"x": {}}}'])
def test_a_damaged_memory_is_not_forgotten_silently(tmp_path: Path, text: str) -> None:
    path = tmp_path / "image-digests.json"
    path.write_text(text)
    for use in (lambda: Learned(tmp_path).get(NAME), lambda: Learned(tmp_path).learn(NAME, ONE)):
        with pytest.raises(BlockedError, match="is damaged"):
            use()
    assert path.read_text() == text


def test_what_two_learn_at_once_is_all_kept(tmp_path: Path) -> None:
    names = [Reference.parse(f"a/b:{number}") for number in range(8)]
    threads = [threading.Thread(target=Learned(tmp_path).learn, args=(name, ONE)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(Learned(tmp_path).get(name) for name in names)
    assert [item.name for item in tmp_path.iterdir()] == ["image-digests.json"]
