"""A publisher with a server of its own, a checkout that knows its image, and a lab there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import certifi
import pytest
from imageserver import ImageServer, Served, image_server, make_certificate

from tests.checkout import copy_project
from tests.e2e.conftest import Lab, lab_environment
from tests.e2e.keeping import keep, pytest_terminal_summary, told  # noqa: F401 - pytest finds them here
from tests.e2e_published import build
from tests.signing import Signer

NAME = "debian-13-generic"
"""The image's name, as `--image` takes it."""
FOLDER = "/releases/trixie"


@pytest.fixture(scope="module")
def kept(told: list[str]) -> Path:  # noqa: F811 - the fixture
    """The folder for what is to be looked at afterwards; it stays."""
    return keep(told, "published", "make the published image")


@dataclass(frozen=True)
class Publisher:
    """Who serves the image on this machine's loopback, over https."""

    server: ImageServer
    manifest: str
    """What images/guest/NAME.toml is to say."""
    key: Path
    """The public key that signs."""
    certificates: Path
    """What a machine trusts that trusts this server, too."""


@pytest.fixture(scope="module")
def publisher(
    kept: Path, signer: Signer, signing_keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Publisher]:
    folder = tmp_path_factory.mktemp("publisher")
    body = build.built().read_bytes()
    sums = folder / "SHA256SUMS"
    sums.write_text(f"{'1' * 64} *other.qcow2\n{hashlib.sha256(body).hexdigest()} *{build.FILE}\n")
    signature = signer.sign(sums, signing_keys["good"])
    certificate = make_certificate(folder)
    certificates = folder / "trusted.pem"
    usual = Path(os.environ.get("REQUESTS_CA_BUNDLE", certifi.where()))
    certificates.write_bytes(usual.read_bytes() + certificate.read_bytes())
    with image_server(certificate) as server:
        server.files = {
            f"{FOLDER}/{build.FILE}": Served(body),
            f"{FOLDER}/SHA256SUMS": Served(sums.read_bytes()),
            f"{FOLDER}/SHA256SUMS.gpg": Served(signature.read_bytes()),
        }
        manifest = (
            f'name = "{NAME}"\nbase = "{server.url(FOLDER)}/"\nsums = "SHA256SUMS"\n'
            f'signature = "SHA256SUMS.gpg"\nkeyring = "keys/{NAME}.gpg"\n'
            f'fingerprint = "{signing_keys["good"]}"\n[files]\nqcow2 = "{build.FILE}"\n'
        )
        key = signer.export(folder / "key.gpg", signing_keys["good"])
        yield Publisher(server, manifest, key, certificates)


@pytest.fixture(scope="module")
def lab(publisher: Publisher, kept: Path) -> Iterator[Lab]:
    """A lab of a checkout of its own, in which the image's manifest is what a user would have added.

    It has a cache of its own for images, so that this one is fetched; what lab builds is the user's.
    """
    work = Path(tempfile.mkdtemp(prefix="lab-e2e-"))  # short: a unix socket's path is limited
    root, cache = work / "checkout", work / "cache"
    copy_project(root)
    guest = root / "images" / "guest"
    (guest / f"{NAME}.toml").write_text(publisher.manifest)
    shutil.copyfile(publisher.key, guest / "keys" / f"{NAME}.gpg")
    env = {
        **lab_environment(work / "state"),
        "LAB_CACHE_DIR": str(cache),
        "LAB_IMAGE": NAME,
        "REQUESTS_CA_BUNDLE": str(publisher.certificates),
    }
    made = Lab(work / "state", env, root)
    yield made
    made.run("lab.destroy", "--purge")
    shutil.rmtree(work, ignore_errors=True)
