"""One repository of one registry over HTTP (the distribution project's API, version 2)."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lab.core import redact, web
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, LabError
from lab.core.steps import Step
from lab.core.web import Patience, TransientError
from lab.images.download import Report, download
from lab.images.errors import (
    DeniedError,
    NotFoundError,
    PartMissingError,
    RateLimitedError,
    RefusedError,
    ServerUnreachableError,
    WrongDigestError,
)
from lab.images.registry import credentials, manifests
from lab.images.registry.auth import RegistryAuth
from lab.images.registry.manifests import Descriptor, Manifest, PlatformIndex, Resolved
from lab.images.registry.reference import Reference, api_host, check_digest, is_digest, scheme
from lab.images.transport import fetch, opened, why_unreachable

_LONGEST_BLOB = 64 << 30
"""Bytes. What a manifest says of its blobs is a stranger's word, too."""


def reachable(reference: Reference, mirror: str, seconds: float) -> str | None:
    """None when the registry answers within `seconds`, else why not. It needs no login for that."""
    host = api_host(reference, mirror)
    url = f"{scheme(host)}://{host}/v2/"
    with web.HttpSession() as session:
        return why_unreachable(session, url, seconds)


class Registry(contextlib.AbstractContextManager["Registry"]):
    """Asks `mirror`, or the registry `reference` names. A context manager: it keeps connections open."""

    def __init__(
        self,
        reference: Reference,
        mirror: str,
        deadline: Deadline,
        patience: Patience | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.reference, self.deadline = reference, deadline
        self.host = api_host(reference, mirror)
        self.url = f"{scheme(self.host)}://{self.host}/v2/{reference.repository}"
        self._patience = patience or Patience()
        self._say = say
        self._session = web.HttpSession()
        logins = functools.partial(credentials.stored, self.host, say=say, deadline=deadline)
        self._session.auth = RegistryAuth(
            self.host, reference.repository, logins, self._patience, deadline, say
        )

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def resolve(self, digest: str = "") -> Resolved:
        """What the reference stands for now, or `digest` (sha256:…) if given, on linux/amd64.

        Raises BlockedError (lab.images.errors), DeadlineError, UsageError.
        """
        wanted = check_digest(digest) or self.reference.digest
        content = self._content(f"manifests/{wanted or self.reference.tag}", wanted)
        first = manifests.digest_of(content)
        manifest = manifests.parse(content, self.reference)
        if isinstance(manifest, PlatformIndex):
            content, manifest = self._amd64(manifest)
        return Resolved(self.reference, first, manifests.digest_of(content), *manifest)

    def _amd64(self, index: PlatformIndex) -> tuple[bytes, Manifest]:
        """The manifest for linux/amd64: the one that says so, else one whose configuration does."""
        named = index.amd64()
        for inner in [named] if named else index.unnamed():
            missing = f"the index is there, its manifest {inner} is not"
            content = self._content(f"manifests/{inner}", inner, missing)
            try:
                manifest = manifests.parse(content, self.reference)
            except BlockedError:
                if named:
                    raise
                continue  # no image: a signature, or a list of contents
            if isinstance(manifest, PlatformIndex):
                raise BlockedError(f"{self.reference} is an index of indexes, which lab does not follow")
            if named or self._is_amd64(manifest[0]):
                return content, manifest
        raise index.refusal(self.reference)

    def _is_amd64(self, config: Descriptor) -> bool:
        """Whether a configuration is an image's for linux/amd64: it is fetched and read."""
        missing = f"the manifest is there, its configuration {config.digest} is not"
        content = self._content(f"blobs/{config.digest}", config.digest, missing)
        try:
            manifests.parse_config(content, str(self.reference))
        except BlockedError:  # another platform's, or no image's
            return False
        return True

    def current(self) -> str:
        """The digest the tag stands for now, by a request that fetches nothing.

        Empty when the registry does not tell it. Raises BlockedError, DeadlineError.
        """
        url = f"{self.url}/manifests/{self.reference.tag}"
        try:
            with (
                self._explained(),
                opened(
                    self._session,
                    url,
                    {"Accept": manifests.ACCEPT},
                    self._patience,
                    self.deadline,
                    method="HEAD",
                ) as response,
            ):
                return _announced(response.headers)
        except TransientError as fault:
            raise fault.becomes(f"{web.shown(url)} could not be asked: {fault}") from fault

    def fetch_blob(self, blob: Descriptor, target: Path, step: Step, report: Report) -> None:
        """Bring a blob to `target`, verified by its digest. See lab.images.download."""
        if blob.size > _LONGEST_BLOB:
            raise BlockedError(f"{self.reference} has a layer of {blob.size} bytes: lab takes none so long")
        with self._explained(f"the manifest is there, its part {blob.digest} is not"):
            download(
                f"{self.url}/blobs/{blob.digest}",
                target,
                sha256=blob.hex,
                step=step,
                deadline=self.deadline,
                session=self._session,
                patience=self._patience,
                report=report,
                immutable=True,
                limit=blob.size,
            )

    def _content(self, path: str, digest: str, missing: str = "") -> bytes:
        """A small thing's bytes: those of `digest`, where it is known; else those the registry announces."""
        url = f"{self.url}/{path}"
        with self._explained(missing):
            answer = fetch(
                self._session,
                url,
                {"Accept": manifests.ACCEPT},
                limit=manifests.LIMIT,
                deadline=self.deadline,
                patience=self._patience,
                say=self._say,
            )
        observed = manifests.digest_of(answer.body)
        expected = digest or _announced(answer.headers)
        if expected and expected != observed:
            raise WrongDigestError(
                f"{web.shown(url)} is not what was asked for: expected {expected}, observed {observed}",
                hint="the registry or something on the way changes what it serves: try another mirror",
            )
        return answer.body

    @contextlib.contextmanager
    def _explained(self, missing: str = "") -> Iterator[None]:
        """Give HTTP's refusals the registry's meaning. `missing` is what a 404 of a part means."""
        try:
            yield
        except RefusedError as error:
            raise self._refusal(error, missing) from error
        except RateLimitedError as error:
            raise RateLimitedError(
                error.what,
                hint=f"wait; or `docker login {self.host}` for more requests; or name a mirror",
            ) from error
        except ServerUnreachableError as error:
            raise ServerUnreachableError(
                f"the registry {self.host} cannot be reached: {error.what}",
                hint=error.hint or "check the network, or name a mirror or an archive",
            ) from error

    def _refusal(self, error: RefusedError, missing: str) -> LabError:
        words = _said(error.body)
        because = f" ({words})" if words else ""
        if error.status == 404 and missing:
            return PartMissingError(
                f"{self.host} has only a part of {self.reference}: {missing}{because}",
                hint="the registry or the mirror is incomplete: name another mirror, or choose another tag",
            )
        if error.status == 404:
            return NotFoundError(
                f"{self.host} has no {self.reference}{because}",
                hint="check the repository and the tag; a tag may have been removed",
            )
        if error.status == 401:
            return DeniedError(
                f"{self.host} does not give {self.reference} without a login{because}",
                hint=f"check the name (many registries say this of one they do not have), "
                f"or `docker login {self.host}`",
            )
        if error.status == 403:
            return DeniedError(
                f"{self.host} does not give {self.reference}{because}",
                hint="the login in Docker's config.json may not read it, or this network is not let in",
            )
        return error


def _announced(headers: Mapping[str, str]) -> str:
    """The digest the registry says a manifest has; empty when it says none lab can check."""
    digest = headers.get("Docker-Content-Digest", "")
    return digest if is_digest(digest) else ""


def _said(body: bytes) -> str:
    """The first error of a registry's answer: its code and message."""
    try:
        first = web.parse_json(body)["errors"][0]
        words = [str(first.get("code", "")), str(first.get("message", ""))]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return redact.clean(": ".join(word for word in words if word))[:200]
