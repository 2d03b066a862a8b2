"""image.list."""

from __future__ import annotations

from lab.core import files
from lab.core.showing import table
from lab.documents.images import ImageEntry, ImageList
from lab.images import cache
from lab.workflow.image_uses import in_use
from lab.workflow.session import Reply, Session


def list_images(session: Session) -> Reply:
    """The cached images, and the labs that each is for."""
    used = in_use(session)
    rows = [
        ImageEntry(
            id=entry.id,
            kind=entry.manifest.kind,
            name=entry.manifest.name,
            bytes=entry.manifest.bytes,
            created=entry.manifest.created.isoformat(),
            sha256=entry.manifest.sha256,
            in_use_by=used.get(entry.id, ()),
        )
        for entry in cache.entries(session.images)
    ]

    listed = table(
        ("id", "kind", "MiB", "created", "used by"),
        (
            (row.id, row.kind, f"{row.bytes / 2**20:.0f}", row.created[:19], ", ".join(row.in_use_by) or "-")
            for row in rows
        ),
    )
    used_bytes = files.space_used(session.settings.cache_dir)
    nothing = "no images are cached: `bin/invoke image.build` builds them"
    document = ImageList(cache=str(session.images), images=rows, disk_bytes=used_bytes)
    all_of_it = f"{session.settings.cache_dir}: {used_bytes >> 20} MiB in all"
    return Reply.of(document, listed if rows else nothing, all_of_it)
