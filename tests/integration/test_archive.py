"""A small Debian archive with real packages and a real signature, served on the loopback."""

from __future__ import annotations

import hashlib
import io
import lzma
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from imageserver import ImageServer, Manner, Served, image_server

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, DeadlineError
from lab.core.steps import Steps
from lab.core.web import HttpSession, Patience
from lab.images.archive import ArchiveKeys, DebianArchive
from lab.images.debtree import DebianTree
from tests.signing import LONG_AGO, Signer

QUICK = Patience(connect=2, read=1, attempts=2, backoff=0.01, longest_backoff=0.05)
PACKAGES = {
    "tool": "Depends: lib (>= 2), shell | other-shell, mail-agent",
    "lib": "Pre-Depends: base",
    "base": "",
    "other-shell": "",
    "mta": "Provides: mail-agent",
    "unneeded": "",
}


def deb(name: str, version: str) -> bytes:
    """A package as dpkg-deb makes it, with one file, one link and no scripts."""

    def packed(files: dict[str, bytes], links: dict[str, str]) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:xz") as tar:
            for path, data in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
            for path, target in links.items():
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                tar.addfile(entry)
        return stream.getvalue()

    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": packed({"./control": f"Package: {name}\nVersion: {version}\n".encode()}, {}),
        "data.tar.xz": packed(
            {f"./usr/share/{name}/version": version.encode()}, {f"./usr/lib/{name}": f"../share/{name}"}
        ),
    }
    archive = b"!<arch>\n"
    for member, data in members.items():
        archive += f"{member:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        archive += data + b"\n" * (len(data) % 2)
    return archive


class Mirror:
    """The archive: what is served is made anew by `publish`, and may then be spoilt."""

    def __init__(self, server: ImageServer, signer: Signer, folder: Path) -> None:
        self.server = server
        self.signer = signer
        self.folder = folder
        self.debs = {name: deb(name, "2.5-1") for name in PACKAGES}
        self.stanzas = [self.stanza(name, "2.5-1", self.debs[name]) for name in PACKAGES]

    @staticmethod
    def path(name: str) -> str:
        return f"pool/main/{name}_2.5-1_amd64.deb"

    def stanza(self, name: str, version: str, content: bytes) -> str:
        relation = f"{PACKAGES[name]}\n" if PACKAGES[name] else ""
        digest = hashlib.sha256(content).hexdigest()
        return (
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n{relation}"
            f"Filename: {self.path(name)}\nSize: {len(content)}\nSHA256: {digest}\n"
        )

    def publish(self, key: str, suite: str = "trixie", valid_until: str = "", by_hash: bool = True) -> None:
        packed = lzma.compress("\n".join(self.stanzas).encode())
        digest = hashlib.sha256(packed).hexdigest()
        release = f"Origin: Debian\nSuite: stable\nCodename: {suite}\n"
        release += f"Valid-Until: {valid_until}\n" if valid_until else ""
        release += f"SHA256:\n {digest} {len(packed)} main/binary-amd64/Packages.xz\n"
        text = self.folder / "Release"
        text.write_text(release)
        signed = self.folder / "InRelease"
        self.signer.gpg("--local-user", key, "--output", str(signed), "--clear-sign", str(text))
        folder = "/debian/dists/trixie/"
        self.server.files = {
            f"{folder}InRelease": Served(signed.read_bytes()),
            f"{folder}main/binary-amd64/Packages.xz": Served(packed),
            **{f"/debian/{self.path(name)}": Served(content) for name, content in self.debs.items()},
        }
        if by_hash:
            self.server.files[f"{folder}main/binary-amd64/by-hash/SHA256/{digest}"] = Served(packed)

    def spoil(self, end: str, content: bytes) -> None:
        (path,) = (path for path in self.server.files if path.endswith(end))
        self.server.files[path] = Served(content)


@pytest.fixture
def mirror(signer: Signer, tmp_path: Path) -> Iterator[Mirror]:
    with image_server() as server:
        yield Mirror(server, signer, tmp_path)


@pytest.fixture
def archive(mirror: Mirror, signing_keys: dict[str, str], tmp_path: Path) -> DebianArchive:
    """The client, which believes the good key alone of those in its file."""
    ring = mirror.signer.export(tmp_path / "keys.gpg", *signing_keys.values())
    believed = ArchiveKeys(ring, (signing_keys["good"],))
    mirror.publish(signing_keys["good"])
    return DebianArchive(mirror.server.url("/debian"), "trixie", believed, HttpSession(), QUICK)


def soon() -> Deadline:
    return Deadline.after(30)


def extract(archive: DebianArchive, folder: Path, names: list[str]) -> Path:
    packages = archive.resolve(names, soon())
    output = folder / "tree.tar"
    with Steps(lambda _event: None).step("extract") as step:
        archive.extract(packages, folder / "downloads", output, step, soon())
    return output


def test_what_is_needed_is_resolved_fetched_and_unpacked(archive: DebianArchive, tmp_path: Path) -> None:
    packages = archive.resolve(["tool"], soon())
    assert {package.name: package.version for package in packages} == dict.fromkeys(
        ["base", "lib", "mta", "other-shell", "tool"], "2.5-1"
    )
    with DebianTree(extract(archive, tmp_path, ["tool"])) as tree:
        assert tree.need("/usr/share/lib/version") == b"2.5-1"
        assert tree.read("/usr/share/unneeded/version") is None
        member = tree.resolve("/usr/lib/tool")
        assert member is None or member.isdir(), "a link to a folder that no package lists"


def test_what_dpkg_itself_reads_is_the_same(archive: DebianArchive, tmp_path: Path) -> None:
    """The double's packages are real ones: dpkg-deb agrees about their files."""
    extract(archive, tmp_path, ["base"])
    (path,) = (tmp_path / "downloads").glob("*.deb")
    listed = subprocess.run(["dpkg-deb", "--contents", path], capture_output=True, text=True, check=True)
    assert "./usr/share/base/version" in listed.stdout


def test_the_newest_of_several_versions_is_taken(
    mirror: Mirror,
    archive: DebianArchive,
    signing_keys: dict[str, str],
) -> None:
    for version in ("2.10-1", "2.9~rc1-1"):
        mirror.stanzas.append(mirror.stanza("base", version, mirror.debs["base"]))
    mirror.publish(signing_keys["good"])
    assert [package.version for package in archive.resolve(["base"], soon())] == ["2.10-1"]


def test_a_name_of_the_index_that_was_replaced_is_no_matter(
    mirror: Mirror,
    archive: DebianArchive,
    signing_keys: dict[str, str],
) -> None:
    mirror.spoil("amd64/Packages.xz", lzma.compress(b"Package: base\nVersion: 99\n"))
    assert [package.version for package in archive.resolve(["base"], soon())] == ["2.5-1"]
    mirror.publish(signing_keys["good"], by_hash=False)
    assert [package.version for package in archive.resolve(["base"], soon())] == ["2.5-1"]


@pytest.mark.parametrize(
    ("end", "content", "why"),
    [
        ("InRelease", b"Suite: trixie\n", "signed by no key that is believed"),
        ("InRelease", b"", "signed by no key that is believed"),
        ("by-hash/", None, "not the file that the release lists"),
        ("base_2.5-1_amd64.deb", b"another file", r"sha256|SHA-256|hash"),
    ],
)
def test_what_is_not_as_it_was_signed_is_refused(
    mirror: Mirror, archive: DebianArchive, tmp_path: Path, end: str, content: bytes | None, why: str
) -> None:
    if content is None:
        (end,) = (path for path in mirror.server.files if "/by-hash/" in path)
        content = lzma.compress(b"Package: base\nVersion: 99\n")
    mirror.spoil(end, content)
    with pytest.raises(BlockedError, match=why):
        extract(archive, tmp_path, ["base"])
    assert not (tmp_path / "tree.tar").exists()


def test_a_changed_release_is_refused(mirror: Mirror, archive: DebianArchive) -> None:
    (path,) = (path for path in mirror.server.files if path.endswith("InRelease"))
    mirror.spoil("InRelease", mirror.server.files[path].body.replace(b"Suite: stable", b"Suite: stab1e"))
    with pytest.raises(BlockedError, match="no key that is believed"):
        archive.resolve(["base"], soon())


def test_an_archive_can_be_looked_at_before_it_is_believed(mirror: Mirror, archive: DebianArchive) -> None:
    archive.check(soon())
    with pytest.raises(BlockedError, match="404"):
        DebianArchive(mirror.server.url("/ubuntu"), "trixie", archive.keys, archive.session, QUICK).check(
            soon()
        )
    mirror.spoil("InRelease", b"<html>Welcome to the hotel's network")
    with pytest.raises(BlockedError, match="no key that is believed"):
        archive.check(soon())


@pytest.mark.parametrize("key", ["other", "expired"])
def test_a_key_that_is_not_believed_signs_nothing(
    mirror: Mirror,
    archive: DebianArchive,
    signing_keys: dict[str, str],
    key: str,
) -> None:
    at = {"expired": LONG_AGO}.get(key, "")
    original = mirror.signer.gpg
    mirror.signer.gpg = lambda *words, at=at: original(*words, at=at)  # type: ignore[method-assign]
    try:
        mirror.publish(signing_keys[key])
    finally:
        del mirror.signer.gpg
    believed = ArchiveKeys(archive.keys.file, (signing_keys["good"], signing_keys["expired"]))
    with pytest.raises(BlockedError, match="no key that is believed"):
        DebianArchive(archive.base, "trixie", believed, archive.session, QUICK).resolve(["base"], soon())


def test_another_suite_or_one_out_of_date_is_refused(
    mirror: Mirror,
    archive: DebianArchive,
    signing_keys: dict[str, str],
) -> None:
    mirror.publish(signing_keys["good"], suite="sid")
    with pytest.raises(BlockedError, match="not of 'trixie'"):
        archive.resolve(["base"], soon())
    yesterday, tomorrow = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
    mirror.publish(signing_keys["good"], valid_until=format_datetime(yesterday))
    with pytest.raises(BlockedError, match="out of date"):
        archive.resolve(["base"], soon())
    mirror.publish(signing_keys["good"], valid_until=format_datetime(tomorrow))
    assert archive.resolve(["base"], soon())


def test_what_the_archive_lacks_is_named_with_who_needs_it(archive: DebianArchive) -> None:
    with pytest.raises(BlockedError, match="the recipe needs nothing-of-the-kind"):
        archive.resolve(["nothing-of-the-kind"], soon())


def test_a_dependency_that_is_too_old_is_not_taken(
    mirror: Mirror,
    archive: DebianArchive,
    signing_keys: dict[str, str],
) -> None:
    mirror.stanzas = [text.replace("lib (>= 2)", "lib (>= 3)") for text in mirror.stanzas]
    mirror.publish(signing_keys["good"])
    with pytest.raises(BlockedError, match="tool needs lib"):
        archive.resolve(["tool"], soon())


@pytest.mark.parametrize("bomb", [b"\0" * (600 << 20), b"Package: base\n"])
def test_a_list_that_is_too_long_or_cut_off_is_refused(
    mirror: Mirror,
    archive: DebianArchive,
    signing_keys: dict[str, str],
    bomb: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = lzma.compress(bomb, preset=0)
    monkeypatch.setattr(lzma, "compress", lambda _data: packed if len(bomb) > 99 else packed[:-9])
    mirror.publish(signing_keys["good"])
    with pytest.raises(BlockedError, match=r"longer than|cut off"):
        archive.resolve(["base"], soon())


def test_a_server_that_falls_silent_ends_with_the_deadline(mirror: Mirror, archive: DebianArchive) -> None:
    mirror.server.always = {"/debian/dists/trixie/InRelease": Manner(stall=10)}
    with pytest.raises((BlockedError, DeadlineError)):
        archive.resolve(["base"], Deadline.after(3))


def test_what_is_no_package_is_named(
    mirror: Mirror,
    archive: DebianArchive,
    signing_keys: dict[str, str],
    tmp_path: Path,
) -> None:
    mirror.debs["base"] = b"!<arch>\nnothing else"
    mirror.stanzas = [mirror.stanza("base", "2.5-1", mirror.debs["base"])]
    mirror.publish(signing_keys["good"])
    with pytest.raises(BlockedError, match="no Debian package"):
        extract(archive, tmp_path, ["base"])
