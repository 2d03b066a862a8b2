"""Images a distribution publishes: a manifest here says where they are and who signs them."""

from __future__ import annotations

import re
import tempfile
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.core import files, web
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError
from lab.core.steps import Step
from lab.core.web import Patience
from lab.images import cache as images
from lab.images import making
from lab.images.download import download
from lab.images.signature import verify_detached
from lab.images.transport import fetch_bytes, why_unreachable

_LIST_LIMIT = 1 << 20
"""Bytes; the real lists of hashes have a few thousand."""
_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_MAGIC = {"qcow2": b"QFI\xfb", "vmdk": b"KDMV"}
DiskFormat = Literal["qcow2", "vmdk"]


class Publication(BaseModel):
    """A manifest of images/guest/*.toml. `base` ends with a slash; `keyring` is relative to the manifest.

    `files` are the same disk in different formats, each in the signed list of hashes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    base: str = Field(pattern=r"^https://.+/$")
    files: dict[DiskFormat, str] = Field(min_length=1)
    sums: str
    signature: str
    keyring: str
    fingerprint: str = Field(pattern=r"^[0-9A-F]{40}$")


class PublishedImage:
    """One published image, in one of its formats. `base` names a mirror: what it serves is verified, too."""

    def __init__(
        self,
        manifest: Path,
        form: DiskFormat = "qcow2",
        *,
        base: str = "",
        session: web.HttpSession | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Raises UsageError when the manifest is missing or wrong, or has no file of that format."""
        self.publication = _read(manifest)
        if form not in self.publication.files:
            raise UsageError(
                f"{manifest} names no {form} disk", hint="add it under [files], or use another engine"
            )
        self.format, self.file = form, self.publication.files[form]
        self.name = self.publication.name
        self.keyring = manifest.parent / self.publication.keyring
        self.base = (base or self.publication.base).rstrip("/") + "/"
        self.patience = patience or Patience()
        self._session = session or web.HttpSession()

    def reachable(self, timeout: float = 10.0) -> str | None:
        """None when the list of hashes can be fetched within `timeout` seconds, else why not."""
        return why_unreachable(self._session, self.base + self.publication.sums, timeout)

    def find(self, cache: Path) -> Path | None:
        """The folder (its name is the image id) of the newest cached release, None if there is none.

        Only an image that is unchanged since it was verified counts.
        """
        mine = [entry for entry in images.entries(cache) if self._made(entry)]
        by_age = sorted(mine, key=lambda entry: entry.manifest.created, reverse=True)
        return next((entry.folder for entry in by_age if not making.damage_of(entry)), None)

    def fetch(self, cache: Path, step: Step, deadline: Deadline) -> Path:
        """The current release's folder in the cache (its name is the image id).

        Fetched and verified unless it is there already; the disk in it is `disk.` and its format.
        Raises BlockedError (unreachable, a signature or hash that does not fit, no space),
        DeadlineError, BusyError, InterruptedByUser; the cache then holds no new image.
        """
        sha256 = self._signed_hash(step, deadline)
        name = images.image_id(self.name, sha256)
        step.result = f"{name} is already here"

        def fill(work: Path) -> images.Manifest:
            arrived = download(
                self.base + self.file,
                images.downloads(cache) / name,
                sha256=sha256,
                step=step,
                deadline=deadline,
                session=self._session,
                patience=self.patience,
            )
            self._check_format(arrived)
            disk = arrived.rename(work / f"disk.{self.format}")
            step.result = f"{name}, verified with {self.publication.fingerprint[-16:]}"
            return making.describe(
                images.Manifest,
                disk,
                id=name,
                kind="guest",
                name=self.name,
                url=web.shown(self.base + self.file),
                format=self.format,
                sha256=sha256,
            )

        return making.make(cache, name, step, fill, again="fetching it again", deadline=deadline).folder

    def _signed_hash(self, step: Step, deadline: Deadline) -> str:
        """The hash the publisher's signed list gives the image."""
        publication = self.publication
        with tempfile.TemporaryDirectory(prefix="lab-sums-") as folder:
            paths = [Path(folder, "SHA256SUMS"), Path(folder, "SHA256SUMS.gpg")]
            for path, name in zip(paths, (publication.sums, publication.signature), strict=True):
                content = fetch_bytes(
                    self._session,
                    self.base + name,
                    limit=_LIST_LIMIT,
                    deadline=deadline,
                    patience=self.patience,
                )
                path.write_bytes(content)
            verify_detached(paths[0], paths[1], self.keyring, publication.fingerprint)
            listed = paths[0].read_text(errors="replace")
        step.note(f"{web.shown(self.base + publication.sums)} is signed by {publication.fingerprint}")
        hashes = {
            match[1].lower()
            for match in map(_SUM.fullmatch, listed.splitlines())
            if match and match[2] == self.file
        }
        if len(hashes) != 1:
            raise BlockedError(
                f"{web.shown(self.base + publication.sums)} has {len(hashes)} hashes for {self.file}",
                hint="the release may have been renamed: look at the base URL in a browser",
            )
        return hashes.pop()

    def _check_format(self, disk: Path) -> None:
        with disk.open("rb") as stream:
            head = stream.read(4)
        if head != _MAGIC[self.format]:
            raise BlockedError(f"{web.shown(self.base + self.file)} is no {self.format} disk")

    def _made(self, entry: images.CachedImage) -> bool:
        manifest = entry.manifest
        mine = (manifest.kind, manifest.name, manifest.format) == ("guest", self.name, self.format)
        return mine and manifest.url is not None


def _read(manifest: Path) -> Publication:
    try:
        return Publication.model_validate(files.read_toml(manifest))
    except FileNotFoundError as error:
        raise UsageError(f"{manifest} is missing") from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise UsageError(f"{manifest} is not a manifest of a published image: {error}") from error
