"""A real registry on the loopback (Debian's docker-registry), and images to push to it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bcrypt
import requests

from lab.core.deadline import Deadline, poll
from lab.formats import oci
from lab.formats.cpio import CpioEntry

USER, PASSWORD = "ada", "difference-engine"
IDENTITY = "an-identity-token-of-ada"
SERVICE = "lab-test-registry"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_PROGRAM = "docker-registry"


@dataclass(frozen=True)
class Image:
    """An image as it is pushed. Digests are sha256:…"""

    config: bytes
    layers: tuple[bytes, ...]

    @property
    def manifest(self) -> bytes:
        described = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(self.config, "application/vnd.docker.container.image.v1+json"),
            "layers": [
                _descriptor(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip")
                for layer in self.layers
            ],
        }
        return json.dumps(described, indent=3).encode()

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    @property
    def diff_ids(self) -> list[str]:
        return list(json.loads(self.config)["rootfs"]["diff_ids"])


def image(*seeds: int, size: int = 400_000, architecture: str = "amd64") -> Image:
    """An image with a layer a seed, made by lab's own writer; each layer hardly shrinks when packed."""
    layers: list[bytes] = []
    diff_ids: list[str] = []
    for seed in seeds:
        content = random.Random(seed).randbytes(size)  # noqa: S311
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "image.tar")
            made = oci.write(
                target, reference="a/b:c", entries={f"data/{seed}": CpioEntry.file(content)}, config={}
            )
            with tarfile.open(target) as archive:
                layers.append(_member(archive, r"[0-9a-f]{64}\.tar"))
                config = json.loads(_member(archive, r"[0-9a-f]{64}\.json"))
        diff_ids.append(made.layer)
    config["rootfs"]["diff_ids"] = diff_ids
    config["history"] = [{"created_by": f"layer {seed}"} for seed in seeds]
    config["architecture"] = architecture
    return Image(json.dumps(config).encode(), tuple(layers))


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def index(images: dict[str, Image]) -> bytes:
    """An OCI index of images by os/architecture, with an entry of unknown platform as BuildKit adds it."""
    listed = [
        {**_descriptor(one.manifest, MANIFEST), "platform": _platform(name)} for name, one in images.items()
    ]
    attestation = listed[-1] | {"platform": {"os": "unknown", "architecture": "unknown"}}
    return json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [attestation, *listed]}, indent=2
    ).encode()


class Registry:
    """docker-registry serving `folder`; `auth` is its own configuration's section of this name."""

    def __init__(self, folder: Path, auth: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self._auth = auth
        self._process: subprocess.Popen[bytes] | None = None
        self.host = ""

    def start(self) -> None:
        work = Path(tempfile.mkdtemp(prefix="registry-", dir=self.folder.parent))
        config = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder)}},
            "http": {"addr": "127.0.0.1:0", "relativeurls": True},
        } | ({"auth": self._auth} if self._auth else {})
        (work / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        log = work / "log"
        with log.open("wb") as stream:
            environment = {key: value for key, value in os.environ.items() if "PROXY" not in key.upper()}
            self._process = subprocess.Popen(
                [_PROGRAM, "serve", str(work / "config.yml")],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=environment | {"OTEL_TRACES_EXPORTER": "none"},
            )

        def listening() -> str | None:
            assert self._process is not None
            said = log.read_text()
            assert self._process.poll() is None, said
            found = re.search(r"listening on (127\.0\.0\.1:\d+)", said)
            return found[1] if found else None

        self.host = poll(listening, Deadline.after(30), "the registry's start", every=0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def push(self, repository: str, tag: str, what: Image) -> str:
        """Push by the distribution API; the manifest's digest."""
        for blob in (what.config, *what.layers):
            self._push_blob(repository, blob)
        return self.push_manifest(repository, tag, what.manifest, MANIFEST)

    def push_index(self, repository: str, tag: str, images: dict[str, Image]) -> str:
        for one in images.values():
            self.push(repository, one.digest, one)
        return self.push_manifest(repository, tag, index(images), INDEX)

    def push_manifest(self, repository: str, name: str, content: bytes, kind: str) -> str:
        url = f"http://{self.host}/v2/{repository}/manifests/{name}"
        answer = requests.put(url, data=content, headers={"Content-Type": kind}, timeout=30)
        assert answer.status_code == 201, answer.text
        assert answer.headers["Docker-Content-Digest"] == digest(content)
        return digest(content)

    def _push_blob(self, repository: str, blob: bytes) -> None:
        start = requests.post(f"http://{self.host}/v2/{repository}/blobs/uploads/", timeout=30)
        assert start.status_code == 202, start.text
        where = start.headers["Location"]
        where = where if "://" in where else f"http://{self.host}{where}"
        end = f"{where}{'&' if '?' in where else '?'}digest={digest(blob)}"
        kind = {"Content-Type": "application/octet-stream"}
        assert requests.put(end, data=blob, headers=kind, timeout=60).status_code == 201


@contextmanager
def registry(folder: Path, auth: dict[str, Any] | None = None) -> Iterator[Registry]:
    """A running registry over `folder`; several may stand over the same one."""
    assert shutil.which(_PROGRAM), "docker-registry is not installed: `invoke lab.doctor`"
    made = Registry(folder, auth)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def passwords(folder: Path) -> dict[str, Any]:
    """The `auth` section of a registry that takes USER and PASSWORD."""
    file = folder / "htpasswd"
    file.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()}\n")
    return {"htpasswd": {"realm": "lab test", "path": str(file)}}


def _descriptor(content: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "size": len(content), "digest": digest(content)}


def _platform(name: str) -> dict[str, str]:
    system, _, architecture = name.partition("/")
    return {"os": system, "architecture": architecture}


def _member(archive: tarfile.TarFile, pattern: str) -> bytes:
    name = next(name for name in archive.getnames() if re.fullmatch(pattern, name))
    stream = archive.extractfile(name)
    assert stream is not None
    return stream.read()
