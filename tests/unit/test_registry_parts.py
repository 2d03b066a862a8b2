"""What of a registry's client needs no registry: logins, challenges, manifests, the memory of digests."""

from __future__ import annotations

import base64
import json
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import deadline, redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.images.registry import Learned, Reference, manifests
from lab.images.registry.challenge import Challenge, challenges
from lab.images.registry.credentials import Credentials, stored
from lab.images.registry.manifests import PlatformIndex

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


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({"username": "ada", "password": "pass-1"}, Credentials("ada", "pass-1")),
        ({"auth": "", "username": "ada", "password": "pass-1"}, Credentials("ada", "pass-1")),
        ({"auth": _packed("ada:pass-2"), "username": "x", "password": "y"}, Credentials("ada", "pass-2")),
        ({"identitytoken": "token-1"}, Credentials("", identity="token-1")),
        ({"auth": _packed("ada:"), "identitytoken": "token-1"}, Credentials("ada", identity="token-1")),
        ({"username": "ada"}, None),
        ({"username": 1, "password": ["x"]}, None),
    ],
)
def test_logins_as_other_tools_write_them(
    tmp_path: Path, mark: str, entry: object, wanted: Credentials | None
) -> None:
    config = tmp_path / "config.json"
    config.write_text(mark + json.dumps({"auths": {"ghcr.io": entry}}))
    result = stored("ghcr.io", config)
    assert result == wanted
    for secret in (result.password, result.identity) if result else ():
        assert not secret or secret not in f"{redact.clean(secret)} {result!r}"


def test_a_helper_that_is_not_there_is_said_and_the_file_counts(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    login = {"ghcr.io": {"auth": _packed("ada:pass-1")}}
    for name in ("absent-helper", "../../bin/sh"):
        config.write_text(json.dumps({"auths": login, "credHelpers": {"https://ghcr.io": name}}))
        notes: list[str] = []
        assert stored("ghcr.io", config, say=notes.append) == Credentials("ada", "pass-1")
        assert [f"credential helper {name} gives no login for ghcr.io" in line for line in notes] == [True]
    assert stored("other.example", config, say=notes.append) is None


def test_a_helper_that_waits_for_its_user_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than the deadline; and it is ended at once when the command is cancelled."""
    helper = tmp_path / "docker-credential-slow"
    helper.write_text("#!/bin/sh\nexec sleep 30\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"credsStore": "slow"}))
    notes: list[str] = []
    assert stored("ghcr.io", config, say=notes.append, deadline=Deadline.after(0.3)) is None
    assert "did not end" in notes[0]
    monkeypatch.setattr(deadline, "cancelled", threading.Event())
    monkeypatch.setattr("lab.core.proc.cancelled", deadline.cancelled)
    threading.Timer(0.3, deadline.cancelled.set).start()
    with pytest.raises(InterruptedByUser):
        stored("ghcr.io", config, say=notes.append)
    helper.chmod(0o644)
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stored("ghcr.io", config, say=notes.append) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["auths", "credHelpers", "ghcr.io", "http://[", "auth", "username"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_no_config_is_too_strange(config: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.json")
        path.write_text(json.dumps(config))
        assert stored("ghcr.io", path) is None or isinstance(config, dict)


def test_dockers_own_folder_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"auths": {"ghcr.io": {"auth": _packed("ada:secret-1")}}})
    )
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert stored("ghcr.io") == Credentials("ada", "secret-1")


BEARER = Challenge(
    "bearer",
    {
        "realm": "https://auth.docker.io/token",
        "service": "registry.docker.io",
        "scope": "repository:a/b:pull,push",
    },
)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [BEARER],
        ),
        (
            'Basic realm="registry", Bearer realm="https://auth.docker.io/token" , '
            'service = registry.docker.io,,scope="repository:a/b:pull,push"',
            [Challenge("basic", {"realm": "registry"}), BEARER],
        ),
        (
            'BEARER Realm="x", Error="invalid_token"',
            [Challenge("bearer", {"realm": "x", "error": "invalid_token"})],
        ),
        ("Basic realm=x", [Challenge("basic", {"realm": "x"})]),
        (
            r'Basic realm="say \"a, b\\"", Digest x=1',
            [Challenge("basic", {"realm": 'say "a, b\\'}), Challenge("digest", {"x": "1"})],
        ),
        ("Negotiate", [Challenge("negotiate")]),
        (
            "Negotiate YWJj==, NTLM, Basic realm=y",
            [Challenge("negotiate"), Challenge("ntlm"), Challenge("basic", {"realm": "y"})],
        ),
        ("", []),
    ],
)
def test_challenges(header: str, wanted: list[Challenge]) -> None:
    assert challenges(header) == wanted


@given(st.text(max_size=80) | st.text(alphabet='ab =",\\B', max_size=80))
def test_no_challenge_is_too_strange(header: str) -> None:
    for challenge in challenges(header):
        assert challenge.scheme == challenge.scheme.lower()
        assert all(isinstance(value, str) for value in challenge.parameters.values())


_WORDS = st.text(alphabet="abcXYZ019-", min_size=1, max_size=8)
_VALUES = st.text(alphabet='ab,= \t:/"\\', max_size=12)


@given(st.lists(st.tuples(_WORDS, st.dictionaries(_WORDS.map(str.lower), _VALUES, max_size=3)), max_size=4))
def test_what_is_written_as_the_standard_says_is_read(asked: list[tuple[str, dict[str, str]]]) -> None:
    """Each challenge with quoted parameters, joined as several headers are."""
    header = ", ".join(
        f"{scheme} " + ", ".join(f'{name}="{quoted(value)}"' for name, value in parameters.items())
        for scheme, parameters in asked
    )
    assert challenges(header) == [Challenge(scheme.lower(), given) for scheme, given in asked]


def quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _listed(digest: str, os: str, architecture: str, variant: str = "") -> dict[str, object]:
    platform = {"os": os, "architecture": architecture} | ({"variant": variant} if variant else {})
    return {"digest": digest, "size": 1, "platform": platform}


def test_the_manifest_for_amd64_is_chosen() -> None:
    content = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                _listed(ONE, "unknown", "unknown"),
                _listed(TWO, "linux", "arm64", "v8"),
                _listed(THREE, "linux", "amd64"),
                _listed(ONE, "windows", "amd64"),
            ],
        }
    )
    found = manifests.parse(content.encode(), NAME)
    assert isinstance(found, PlatformIndex)
    assert found.amd64() == THREE


def test_an_index_without_amd64_says_what_it_has() -> None:
    rows = [_listed(ONE, "unknown", "unknown"), _listed(TWO, "linux", "arm64"), {"digest": TWO, "size": 3}]
    found = manifests.parse(json.dumps({"schemaVersion": 2, "manifests": rows}).encode(), NAME)
    assert isinstance(found, PlatformIndex)
    assert (found.amd64(), found.unnamed()) == ("", [TWO])
    assert "only for linux/arm64" in str(found.refusal(NAME))


@given(st.permutations(["v3", "", "v2"]), st.sampled_from(["", "v1"]))
def test_of_several_variants_the_baseline_is_taken(order: list[str], baseline: str) -> None:
    """What is built for v2 or v3 does not run on every processor."""
    digests = {"": ONE, "v2": TWO, "v3": THREE}
    rows = [_listed(digests[variant], "linux", "amd64", variant or baseline) for variant in order]
    result = manifests.parse(json.dumps({"schemaVersion": 2, "manifests": rows}).encode(), NAME)
    assert isinstance(result, PlatformIndex)
    assert result.amd64() == ONE


def test_a_variant_alone_is_not_the_platform() -> None:
    rows = [_listed(THREE, "linux", "amd64", "v3"), _listed(TWO, "linux", "arm64") | {"platform": None}]
    result = manifests.parse(json.dumps({"schemaVersion": 2, "manifests": rows}).encode(), NAME)
    assert isinstance(result, PlatformIndex)
    assert (result.amd64(), result.unnamed()) == ("", [TWO])
    assert "only for linux/amd64/v3" in str(result.refusal(NAME))


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
