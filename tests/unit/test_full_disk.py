"""A full disk is one answer wherever it is met: blocked, with the folder and what to do.

The other places: a night in test_nightly_disk, a verdict in test_refusal, the journal in test_journal, the
VM's own disk in test_docker_guest, a VM that is paused for it with the engines.
"""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from lab.core.errors import BlockedError
from lab.history.database import as_history_error
from lab.images.registry import archive
from lab.images.registry.manifests import Descriptor, Resolved
from lab.images.registry.reference import Reference


def test_under_an_image_that_is_packed(tmp_path: Path) -> None:
    """Its archive is written to a device that is always full."""
    content = b"x" * 100_000
    config = Descriptor(digest=f"sha256:{hashlib.sha256(content).hexdigest()}", size=len(content))
    (tmp_path / config.hex).write_bytes(content)
    image = Resolved(Reference.parse("lab/full:1"), config.digest, config.digest, config, (config,))
    with pytest.raises(BlockedError, match="the disk is full where /dev") as caught:
        archive.write(Path("/dev/full"), image, tmp_path, lambda _bytes: None)
    assert "image.prune" in caught.value.hint


def test_under_the_history(tmp_path: Path) -> None:
    file = tmp_path / "history.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE texts (text)")
    connection.execute("PRAGMA max_page_count = 2")
    with pytest.raises(BlockedError, match="the disk is full where") as caught, as_history_error(file):
        connection.execute("INSERT INTO texts VALUES (?)", ("x" * 100_000,))
    connection.close()
    assert str(tmp_path) in caught.value.what and "LAB_STATE_DIR" in caught.value.hint
