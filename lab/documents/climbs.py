"""What `lab.up` prints: a climb, and how the lab is reached then. It is what last-up.json holds, too."""

from __future__ import annotations

from lab.documents.labs import AdbAccess, ForwardEntry, ScreenAccess, SshAccess
from lab.ladder.document import ClimbDocument
from lab.model.document import JsonPart, Text


class LabAccess(JsonPart):
    ssh: SshAccess | None
    adb: AdbAccess | None
    novnc: ScreenAccess | None
    ports: tuple[ForwardEntry, ...]
    evidence: str | None
    """the evidence folder"""
    stop: Text
    """the command that stops the lab"""


class LabUp(ClimbDocument):
    """What lab.up found on the way up, and how to reach the lab"""

    tag = "lab.up/1"

    access: LabAccess | None
    """null when the VM cannot be reached"""
