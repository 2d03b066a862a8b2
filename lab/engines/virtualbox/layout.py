"""The files of one machine, all in the engine's own folder of the lab."""

from __future__ import annotations

from pathlib import Path


class VirtualBoxLayout:
    """Every path that VirtualBox writes for one machine in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.settings = folder / "lab.vbox"
        """VirtualBox's settings file; its place makes this folder the machine's own."""
        self.settings_before = folder / "lab.vbox-prev"
        """The settings as they were before the last change: VirtualBox keeps them."""
        self.disk = folder / "disk.vdi"
        """The difference on the shared base. Snapshots add more of them in `Snapshots/`."""
        self.console = folder / "console.log"
        self.console_before = folder / "console-before.log"
        """What earlier runs wrote: VirtualBox begins the file anew at each start."""
        self.log = folder / "Logs" / "VBox.log"

    def logs(self) -> list[Path]:
        """VirtualBox keeps the logs of the last runs; the newest is VBox.log."""
        return sorted(self.log.parent.glob("VBox*.log*"))
