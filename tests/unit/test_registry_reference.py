"""Image names by Docker's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.images.registry import Reference
from lab.images.registry.reference import api_host, scheme

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("ubuntu", "docker.io", "library/ubuntu", "latest", ""),
        ("ubuntu:24.04", "docker.io", "library/ubuntu", "24.04", ""),
        ("docker.io/ubuntu", "docker.io", "library/ubuntu", "latest", ""),
        ("index.docker.io/a/b", "docker.io", "a/b", "latest", ""),
        (
            "budtmo/docker-android:emulator_14.0",
            "docker.io",
            "budtmo/docker-android",
            "emulator_14.0",
            "",
        ),
        (
            "butomo1989/docker-android-x86-8.1",
            "docker.io",
            "butomo1989/docker-android-x86-8.1",
            "latest",
            "",
        ),
        ("localhost/a", "localhost", "a", "latest", ""),
        ("localhost:5000/a:b", "localhost:5000", "a", "b", ""),
        ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000", "a/b/c", "latest", ""),
        ("[::1]:5000/a", "[::1]:5000", "a", "latest", ""),
        ("ghcr.io/a/b__c.d-e:v1", "ghcr.io", "a/b__c.d-e", "v1", ""),
        ("Host/a", "Host", "a", "latest", ""),
        (f"a/b@{DIGEST}", "docker.io", "a/b", "", DIGEST),
        (f"a/b:c@{DIGEST}", "docker.io", "a/b", "c", DIGEST),
        ("a:5000", "docker.io", "library/a", "5000", ""),
    ],
)
def test_names_are_read_as_docker_reads_them(
    text: str, host: str, repository: str, tag: str, digest: str
) -> None:
    assert Reference.parse(text) == Reference(host, repository, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "a:",
        "a@",
        "a//b",
        "a/",
        "/a",
        "a/B",
        "a b",
        "a___b/c",
        "-a/b",
        "a:b:c",
        "a:-b",
        f"a:{'b' * 129}",
        "a@sha256:123",
        f"a@sha512:{'0' * 128}",
        f"a@{DIGEST.upper()}",
        "https://docker.io/a",
        "host.example:port/a",
        "a" * 64,
        "x/" * 130 + "y",
        "a\n",
        f"a@{DIGEST}\n",
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    if text == "a" * 64:
        text = "ab" * 32
    with pytest.raises(UsageError, match="is not an image's name"):
        Reference.parse(text)


_WORD = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", fullmatch=True).filter(
    lambda it: len(it) < 40
)
_HOSTS = st.one_of(
    st.just("docker.io"),
    st.just("localhost"),
    st.builds(
        lambda name, port: f"{name}.example{port}",
        st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True),
        st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}")),
    ),
)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    host = draw(_HOSTS)
    words = draw(st.lists(_WORD, min_size=1, max_size=4))
    if host == "docker.io" and len(words) == 1:
        words = ["library", *words]
    tag = draw(st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)))
    digest = draw(st.sampled_from(["", DIGEST])) if tag else DIGEST
    return Reference(host, "/".join(words), tag, digest)


@given(references())
def test_a_written_name_reads_as_the_same(reference: Reference) -> None:
    bare_id = len(reference.familiar) == 64 and set(reference.familiar) <= set("0123456789abcdef")
    if not bare_id and not reference.familiar.split("/")[0].count("."):
        assert Reference.parse(str(reference)) == reference
    full = f"{reference.host}/{reference.repository}" + str(reference)[len(reference.familiar) :]
    assert Reference.parse(full) == reference


@given(references())
def test_the_name_docker_gets_has_a_tag_and_no_digest(reference: Reference) -> None:
    again = Reference.parse(
        f"{reference.host}/{reference.repository}" + reference.tagged[len(reference.familiar) :]
    )
    assert (again.repository, again.digest) == (reference.repository, "")
    assert again.tag == (reference.tag or f"sha256-{DIGEST[7:19]}")


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_a_usage_error(text: str) -> None:
    try:
        found = Reference.parse(text)
    except UsageError:
        return
    assert found.host
    assert found.repository
    assert found.tag or found.digest


@pytest.mark.parametrize(
    ("name", "mirror", "host"),
    [
        ("a/b", "", "registry-1.docker.io"),
        ("a/b", "docker.io", "registry-1.docker.io"),
        ("a/b", "mirror.example:5000", "mirror.example:5000"),
        ("ghcr.io/a/b", "", "ghcr.io"),
        ("ghcr.io/a/b", "localhost:5000", "localhost:5000"),
    ],
)
def test_who_is_asked(name: str, mirror: str, host: str) -> None:
    assert api_host(Reference.parse(name), mirror) == host


@pytest.mark.parametrize("mirror", ["http://mirror.example", "mirror.example/path", "a b", "user@host"])
def test_a_mirror_is_a_host_and_a_port(mirror: str) -> None:
    with pytest.raises(UsageError, match="is not a registry's address"):
        api_host(Reference.parse("a/b"), mirror)


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("localhost", "http"),
        ("localhost:5000", "http"),
        ("127.0.0.1:5000", "http"),
        ("127.9.9.9", "http"),
        ("[::1]:5000", "http"),
        ("registry-1.docker.io", "https"),
        ("10.0.0.1:5000", "https"),
        ("localhost.example", "https"),
        ("127.0.0.1.example:80", "https"),
    ],
)
def test_only_loopback_is_asked_without_tls(host: str, wanted: str) -> None:
    assert scheme(host) == wanted
