"""Image names by Docker's rules (distribution/reference, the grammar of the Go package)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.core.errors import UsageError
from lab.core.web import is_loopback

DOCKER_HUB = "docker.io"
_HUB_NAMES = {DOCKER_HUB, "index.docker.io", "registry-1.docker.io"}
_HUB_API = "registry-1.docker.io"
_OFFICIAL = "library/"
_LONGEST_NAME = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """Which image: `host` of its registry, `repository`, and a `tag`, a `digest` (sha256:…) or both."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a name as `docker pull` does; without tag and digest it is `latest`. Raises UsageError."""
        named, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _wrong(text, f"{digest!r} is not a digest: sha256: and 64 digits")
        head, slash, rest = named.partition("/")
        if not slash or not _is_host(head):
            head, rest = DOCKER_HUB, named
        repository, colon, tag = rest.partition(":")
        if colon and not _TAG.fullmatch(tag):
            raise _wrong(text, f"{tag!r} is not a tag")
        if not _HOST.fullmatch(head):
            raise _wrong(text, f"{head!r} is not a registry's host[:port]")
        if not _REPOSITORY.fullmatch(repository):
            why = "has capital letters" if repository.lower() != repository else "is not a repository"
            raise _wrong(text, f"{repository!r} {why}")
        if _BARE_ID.fullmatch(named):
            raise _wrong(text, "it is an image's id, which no registry can look up")
        host = DOCKER_HUB if head == "index.docker.io" else head
        if host == DOCKER_HUB and "/" not in repository:
            repository = _OFFICIAL + repository
        if len(f"{host}/{repository}") > _LONGEST_NAME:
            raise _wrong(text, f"its name is longer than {_LONGEST_NAME} characters")
        return cls(host, repository, tag or ("" if digest else "latest"), digest)

    @property
    def name(self) -> str:
        """The repository's last word."""
        return self.repository.rpartition("/")[2]

    @property
    def familiar(self) -> str:
        """The repository as Docker shows it: without Docker Hub's own host and folder."""
        if self.host != DOCKER_HUB:
            return f"{self.host}/{self.repository}"
        short = self.repository.removeprefix(_OFFICIAL)
        return self.repository if "/" in short else short

    @property
    def tagged(self) -> str:
        """A name Docker can give the loaded image: it cannot carry a digest, so that becomes a tag."""
        return f"{self.familiar}:{self.tag or self.digest.replace(':', '-')[:19]}"

    @property
    def canonical(self) -> str:
        """The same for every spelling of one tag."""
        return f"{self.host}/{self.repository}:{self.tag}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.familiar}{tag}" + (f"@{self.digest}" if self.digest else "")


def is_digest(text: str) -> bool:
    """Whether a text is a digest lab can check: sha256: and 64 hex digits in small letters."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(digest: str) -> str:
    """`digest` if it is one (or empty). Raises UsageError."""
    if digest and not is_digest(digest):
        raise UsageError(f"{digest!r} is not a digest", hint="sha256: and 64 hex digits, in small letters")
    return digest


def api_host(reference: Reference, mirror: str = "") -> str:
    """The host[:port] that is asked: `mirror`'s in place of the name's own. Raises UsageError."""
    if mirror and not _HOST.fullmatch(mirror):
        raise UsageError(f"{mirror!r} is not a registry's address", hint="host[:port], without https://")
    host = mirror or reference.host
    return _HUB_API if host in _HUB_NAMES else host


def scheme(host: str) -> str:
    """`http` for a registry on this machine's loopback, `https` for every other. `host` may have a port."""
    return "http" if is_loopback(re.sub(r":\d+$", "", host)) else "https"


def same_registry(first: str, other: str) -> bool:
    """Whether two hosts are one registry: Docker Hub has several names."""
    return first == other or {first, other} <= _HUB_NAMES


def _is_host(word: str) -> bool:
    """Whether the first word of a name is a registry: Docker tells it by these signs."""
    return "." in word or ":" in word or word == "localhost" or word.lower() != word


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(
        f"{text!r} is not an image's name: {why}", hint="[host[:port]/]repository[:tag][@sha256:…]"
    )
