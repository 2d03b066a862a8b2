"""The files of one machine, all in the engine's own folder of the lab."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class VirtualBoxLayout:
    folder: Path

    @property
    def settings(self) -> Path:
        """VirtualBox's settings file; its place makes this folder the machine's own."""
        return self.folder / "lab.vbox"

    @property
    def settings_before(self) -> Path:
        """The settings as they were before the last change: VirtualBox keeps them."""
        return self.folder / "lab.vbox-prev"

    @property
    def disk(self) -> Path:
        """The difference on the shared base. Snapshots add more of them in `Snapshots/`."""
        return self.folder / "disk.vdi"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def console_before(self) -> Path:
        """What earlier runs wrote: VirtualBox begins the file anew at each start."""
        return self.folder / "console-before.log"

    @property
    def log(self) -> Path:
        return self.folder / "Logs" / "VBox.log"

    def logs(self) -> list[Path]:
        """VirtualBox keeps the logs of the last runs; the newest is VBox.log."""
        return sorted(self.log.parent.glob("VBox*.log*"))
