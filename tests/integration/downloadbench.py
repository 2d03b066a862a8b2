"""A server with a file, and a folder to download it to."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

from imageserver import ImageServer, Served

from lab.core.deadline import Deadline
from lab.core.steps import Event, Steps
from lab.core.web import Patience
from lab.images.download import download

IMAGE = "/disk.img"
BODY = b"QFI\xfb" + random.Random(1).randbytes(1_500_000)  # noqa: S311
SHA = hashlib.sha256(BODY).hexdigest()
QUICK = Patience(connect=2, read=0.5, attempts=3, backoff=0.01, longest_backoff=0.05)


class Bench:
    """A server with the file, a folder to fetch it to, and what the step said."""

    def __init__(self, server: ImageServer, folder: Path) -> None:
        self.server = server
        self.target = folder / "disk.img"
        self.part = folder / "disk.img.part"
        self.events: list[Event] = []
        self.steps = Steps(self.events.append)
        server.files[IMAGE] = Served(BODY)

    def fetch(
        self, *, sha256: str = SHA, seconds: float = 30, patience: Patience = QUICK, url: str = ""
    ) -> Path:
        with self.steps.step("fetch") as step:
            return download(
                url or self.server.url(IMAGE),
                self.target,
                sha256=sha256,
                step=step,
                deadline=Deadline.after(seconds),
                patience=patience,
            )

    def whole(self) -> None:
        """The file is right and nothing else is left in the folder."""
        assert hashlib.sha256(self.target.read_bytes()).hexdigest() == SHA
        assert [item.name for item in self.target.parent.iterdir()] == ["disk.img"]

    def said(self) -> str:
        return "\n".join(event.text for event in self.events)
