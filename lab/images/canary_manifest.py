"""What the manifest of a canary holds beside what every image's does."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from lab.images.cache import Manifest

FILE: Final = "image.tar"
FORMAT: Final = "docker-archive"
KERNEL: Final = "vmlinuz"
"""L2's kernel, kept beside the archive."""

_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class CanaryManifest(Manifest):
    """`image_id`, `layer` and `reference` are Docker's words for it; `kernel` is a SHA-256 in hex."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    kind: Literal["canary"]
    recipe: str
    file: Literal["image.tar"]
    format: Literal["docker-archive"]
    bytes: int = Field(gt=0)
    sha256: _Hex
    image_id: _Digest
    layer: _Digest
    layer_bytes: int
    reference: str
    kernel: _Hex
