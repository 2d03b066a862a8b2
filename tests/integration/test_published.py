"""Published images: found in a signed list, fetched, checked and kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloadbench import BODY, QUICK, SHA, Bench
from imageserver import ImageServer, Manner, Served, image_server

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError
from lab.images import cache as images
from lab.images.published import PublishedImage


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "cache"
    folder.mkdir()
    with image_server() as server:
        yield Bench(server, folder)


class Publisher:
    """Somebody who publishes a signed image, with a key of their own."""

    def __init__(self, home: Path, folder: Path, server: ImageServer) -> None:
        self.home, self.folder, self.server = home, folder, server
        self._gpg("--quick-gen-key", "Publisher <p@example.org>", "ed25519", "sign", "never")
        listed = self._gpg("--with-colons", "--list-keys").stdout
        self.fingerprint = next(li.split(":")[9] for li in listed.splitlines() if li.startswith("fpr:"))
        self._gpg("--output", str(folder / "key.gpg"), "--export")
        self.manifest = folder / "test-1.toml"
        self.manifest.write_text(
            f'name = "test-1"\nbase = "https://images.example.org/"\n'
            f'sums = "SHA256SUMS"\nsignature = "SHA256SUMS.gpg"\n'
            f'keyring = "key.gpg"\nfingerprint = "{self.fingerprint}"\n[files]\nqcow2 = "disk.img"\n'
        )

    def publish(self, body: bytes, listed: str = "") -> None:
        digest = hashlib.sha256(body).hexdigest()
        sums = self.folder / "SHA256SUMS"
        sums.write_text(listed or f"{'1' * 64} *other.img\n{digest} *disk.img\n")
        self._gpg("--output", f"{sums}.gpg", "--detach-sign", str(sums))
        signature = Path(f"{sums}.gpg").read_bytes()
        self.server.files |= {
            "/r/disk.img": Served(body, etag=f'"{digest[:8]}"'),
            "/r/SHA256SUMS": Served(sums.read_bytes()),
            "/r/SHA256SUMS.gpg": Served(signature),
        }

    def image(self) -> PublishedImage:
        return PublishedImage(self.manifest, base=self.server.url("/r"), patience=QUICK)

    def _gpg(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--passphrase", "", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True)


@pytest.fixture
def publisher(bench: Bench, tmp_path: Path) -> Iterator[Publisher]:
    home = Path(tempfile.mkdtemp(prefix="lab-gpg-"))
    folder = tmp_path / "publisher"
    folder.mkdir()
    try:
        made = Publisher(home, folder, bench.server)
        made.publish(BODY)
        yield made
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], check=False)
        shutil.rmtree(home, ignore_errors=True)


def _fetch(image: PublishedImage, cache: Path, bench: Bench) -> Path:
    with bench.steps.step("fetch") as step:
        return image.fetch(cache, step, Deadline.after(30))


def test_a_published_image_from_the_list_to_the_cache(
    bench: Bench, publisher: Publisher, tmp_path: Path
) -> None:
    cache, image = tmp_path / "images", publisher.image()
    assert image.reachable(5) is None
    assert image.find(cache) is None
    folder = _fetch(image, cache, bench)
    assert folder == cache / f"test-1-{SHA[:12]}"
    disk = folder / "disk.qcow2"
    assert disk.read_bytes() == BODY
    assert disk.stat().st_mode & 0o777 == 0o444
    assert image.find(cache) == folder
    (entry,) = images.entries(cache)
    assert (entry.manifest.sha256, entry.manifest.bytes) == (SHA, len(BODY))
    images.verify(entry)
    asked = len(bench.server.requests)
    assert _fetch(image, cache, bench) == folder
    assert "/r/disk.img" not in [request.path for request in bench.server.requests[asked:]]
    assert not list((cache / "locks").iterdir()) and not list((cache / "downloads").iterdir())


def test_a_new_release_is_beside_the_old_one(bench: Bench, publisher: Publisher, tmp_path: Path) -> None:
    cache, image = tmp_path / "images", publisher.image()
    old = _fetch(image, cache, bench)
    publisher.publish(BODY + b"new")
    new = _fetch(image, cache, bench)
    assert new != old and old.exists()


def test_a_damaged_cached_image_is_fetched_again(bench: Bench, publisher: Publisher, tmp_path: Path) -> None:
    cache, image = tmp_path / "images", publisher.image()
    disk = _fetch(image, cache, bench) / "disk.qcow2"
    disk.chmod(0o644)
    disk.write_bytes(BODY[:-1] + b"?")
    assert image.find(cache) is None
    assert (_fetch(image, cache, bench) / "disk.qcow2").read_bytes() == BODY


def test_a_list_changed_by_the_mirror_is_refused(bench: Bench, publisher: Publisher, tmp_path: Path) -> None:
    evil = b"QFI\xfbevil"
    bench.server.files["/r/disk.img"] = Served(evil)
    bench.server.files["/r/SHA256SUMS"] = Served(f"{hashlib.sha256(evil).hexdigest()} *disk.img\n".encode())
    with pytest.raises(BlockedError, match="does not fit"):
        _fetch(publisher.image(), tmp_path / "images", bench)
    assert images.entries(tmp_path / "images") == []


def test_an_image_changed_by_the_mirror_is_refused(
    bench: Bench, publisher: Publisher, tmp_path: Path
) -> None:
    bench.server.files["/r/disk.img"] = Served(b"QFI\xfbevil")
    with pytest.raises(BlockedError, match="another hash"):
        _fetch(publisher.image(), tmp_path / "images", bench)
    assert images.entries(tmp_path / "images") == []


def test_an_unlisted_image_and_a_wrong_format_are_refused(
    bench: Bench, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.publish(BODY, listed=f"{SHA} *other.img\n")
    with pytest.raises(BlockedError, match=r"0 hashes for disk\.img"):
        _fetch(publisher.image(), tmp_path / "images", bench)
    publisher.publish(b"<html>sign in first</html>")
    with pytest.raises(BlockedError, match="is no qcow2 disk"):
        _fetch(publisher.image(), tmp_path / "images", bench)
    assert images.entries(tmp_path / "images") == []


def test_unreachable_is_told_in_plain_words(bench: Bench, publisher: Publisher) -> None:
    bench.server.answers("/r/SHA256SUMS", Manner(status=503), Manner(status=404))
    assert publisher.image().reachable(5) == "the server answered 503 Service Unavailable"
    assert "404" in (publisher.image().reachable(5) or "")
    nowhere = PublishedImage(publisher.manifest, base="http://no-such-host.invalid/")
    assert nowhere.reachable(5) == "the name no-such-host.invalid could not be resolved"
    bench.server.go_away()
    assert publisher.image().reachable(5) == "127.0.0.1 refused the connection"


def test_a_wrong_manifest_is_a_usage_error(publisher: Publisher) -> None:
    with pytest.raises(UsageError, match="names no vmdk disk"):
        PublishedImage(publisher.manifest, "vmdk")
    publisher.manifest.write_text(publisher.manifest.read_text().replace("https:", "http:"))
    with pytest.raises(UsageError, match="base"):
        PublishedImage(publisher.manifest)
