"""What a registry says an image is made of: OCI's image manifest and index, Docker's version 2 of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lab.core.errors import BlockedError
from lab.images.errors import PlatformError
from lab.images.registry.reference import Reference

ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
LIMIT = 4 << 20
"""Bytes; registries take no longer manifest."""
PLATFORM = "linux/amd64"
_UNNAMED = 8

_Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class _RegistryModel(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)


class _Platform(_RegistryModel):
    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(word for word in (self.os, self.architecture, self.variant) if word)


class Descriptor(_RegistryModel):
    """A blob by its digest; `size` is bytes as they are stored, mostly compressed."""

    digest: _Digest
    size: int = Field(ge=0)

    @property
    def hex(self) -> str:
        """The digest's 64 hex digits alone."""
        return self.digest.removeprefix("sha256:")


class _PlatformManifest(Descriptor):
    platform: _Platform | None = None
    """OCI leaves it free to an index to name platforms."""


class _Document(_RegistryModel):
    schema_version: int = Field(alias="schemaVersion")
    manifests: tuple[_PlatformManifest, ...] | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] | None = None


class _RootFs(_RegistryModel):
    diff_ids: tuple[_Digest, ...]


class Config(_RegistryModel):
    """An image's configuration, as far as lab reads it."""

    os: str
    architecture: str
    rootfs: _RootFs

    @property
    def layers(self) -> tuple[str, ...]:
        """The digests of the unpacked layers, lowest first."""
        return self.rootfs.diff_ids


@dataclass(frozen=True)
class Resolved:
    """One image for linux/amd64. `digest` is what the name stands for: an index's, or the manifest's own."""

    reference: Reference
    digest: str
    manifest: str
    """The digest of the image's manifest."""
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Each once; a layer may be in an image several times."""
        return tuple({blob.digest: blob for blob in (self.config, *self.layers)}.values())

    @property
    def size(self) -> int:
        """Bytes to fetch."""
        return sum(blob.size for blob in self.blobs)


Manifest = tuple[Descriptor, tuple[Descriptor, ...]]
"""An image's configuration and its layers."""


@dataclass(frozen=True)
class PlatformIndex:
    """A manifest that lists one manifest a platform."""

    listed: tuple[_PlatformManifest, ...]

    def amd64(self) -> str:
        """The digest of the manifest that is said to be for linux/amd64; empty if none is.

        Of several variants it is the baseline (v1, or no variant): what is built for v2 and later does not
        run on every processor.
        """
        for entry in self.listed:
            named = entry.platform or _Platform()
            if (named.os, named.architecture) == ("linux", "amd64") and named.variant in ("", "v1"):
                return entry.digest
        return ""

    def unnamed(self) -> list[str]:
        """The digests of those of which it is not said what they are for: the first few, as each is read."""
        return [entry.digest for entry in self.listed if not str(entry.platform or "")][:_UNNAMED]

    def refusal(self, reference: Reference) -> PlatformError:
        """The error that says what there is instead."""
        names = sorted({str(entry.platform) for entry in self.listed if entry.platform})
        there = [name for name in names if name not in ("", "unknown/unknown")]
        return PlatformError(
            f"{reference} has no image for {PLATFORM}, only for {', '.join(there) or 'none that is named'}",
            hint="choose another tag",
        )


def digest_of(content: bytes) -> str:
    """The content's digest, as sha256:…"""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def parse(content: bytes, reference: Reference) -> PlatformIndex | Manifest:
    """An index, or an image's configuration and layers. Raises BlockedError for anything else."""
    try:
        document = _Document.model_validate_json(content)
    except ValidationError as error:
        raise BlockedError(
            f"the registry's manifest of {reference} is not one lab can read",
            tail=str(error).splitlines()[0],
        ) from error
    if document.manifests is not None:
        return PlatformIndex(document.manifests)
    if document.schema_version != 2 or document.config is None or not document.layers:
        raise BlockedError(
            f"the registry's manifest of {reference} is not a container image's",
            hint="images of schema 1, pushed before 2016, are not supported; choose another tag",
        )
    if document.config.size > LIMIT:
        raise BlockedError(
            f"the configuration of {reference} has {document.config.size} bytes: no image's has"
        )
    return document.config, document.layers


def parse_config(content: bytes, what: str) -> Config:
    """An image's configuration. Raises BlockedError, PlatformError when it is not for linux/amd64."""
    try:
        config = Config.model_validate_json(content)
    except ValidationError as error:
        raise BlockedError(
            f"{what} has a configuration lab cannot read", tail=str(error).splitlines()[0]
        ) from error
    if (config.os, config.architecture) != ("linux", "amd64"):
        raise PlatformError(f"{what} is for {config.os}/{config.architecture}, not for {PLATFORM}")
    return config
