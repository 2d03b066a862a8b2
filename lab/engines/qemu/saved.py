"""Saved states: disk snapshots with or without memory, and the hardware each was saved on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lab.core import files
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.engines.images import QemuImg
from lab.engines.qemu.command import DISK_NODE, Hardware
from lab.engines.qemu.disk import SavedState, parse_saved
from lab.engines.qemu.layout import QemuLayout
from lab.engines.qemu.qmp import Monitor

_SLOWEST_MIB_PER_SECOND = 20
_SPARE_MIB = 256


class SavedStates:
    """The states in one machine's disk. With a `monitor` the running QEMU is asked, else qemu-img."""

    def __init__(self, layout: QemuLayout, images: QemuImg) -> None:
        self._layout = layout
        self._images = images

    def all(self, monitor: Monitor | None) -> list[SavedState]:
        if monitor is None:
            return parse_saved(self._images.info(self._layout.disk, "-f", "qcow2"))
        for node in monitor.execute("query-named-block-nodes"):
            if node["node-name"] == DISK_NODE:
                return parse_saved(node["image"])
        raise LabError("QEMU does not know the machine's disk")

    def has(self, tag: str, monitor: Monitor | None) -> bool:
        return any(item.tag == tag for item in self.all(monitor))

    def save_live(self, monitor: Monitor, tag: str, hardware: Hardware) -> None:
        """Save disk and memory; the machine stands still meanwhile.

        Raises BlockedError when the disk could fill up, RefusedError, DeadlineError.
        """
        needed = (hardware.memory_mib + _SPARE_MIB) << 20
        files.require_space(self._layout.folder, needed, "saving the machine's memory")
        self._remember(tag, hardware)
        deadline = Deadline.after(120 + hardware.memory_mib / _SLOWEST_MIB_PER_SECOND)
        monitor.job("snapshot-save", deadline, tag=tag, vmstate=DISK_NODE, devices=[DISK_NODE])
        if not any(item.tag == tag and item.live for item in self.all(monitor)):
            raise LabError("QEMU reported the state as saved, and it is not in the disk")

    def save_disk(self, tag: str) -> None:
        """Save the disk of a machine that does not run."""
        self._images.run("snapshot", "-c", tag, self._layout.disk)

    def apply_disk(self, tag: str) -> None:
        """Make the disk of a machine that does not run what it was. Its present content is lost."""
        self._images.run("snapshot", "-a", tag, self._layout.disk)

    def delete(self, tag: str, monitor: Monitor | None) -> bool:
        """Delete a state if there is one of that tag; say whether there was."""
        if not self.has(tag, monitor):
            return False
        if monitor is None:
            self._images.run("snapshot", "-d", tag, self._layout.disk)
        else:
            monitor.job("snapshot-delete", Deadline.after(120), tag=tag, devices=[DISK_NODE])
        self._forget(tag)
        return True

    def hardware(self, tag: str) -> Hardware | None:
        """What the state was saved on, or None when that is not known."""
        try:
            return Hardware(**self._known()[tag])
        except (LookupError, TypeError):
            return None

    def _known(self) -> dict[str, Any]:
        try:
            return files.read_object(self._layout.hardware)
        except ValueError:  # torn: what is in it is not known, and halting must not fail of that
            return {}

    def _remember(self, tag: str, hardware: Hardware) -> None:
        files.write_json(self._layout.hardware, self._known() | {tag: asdict(hardware)})

    def _forget(self, tag: str) -> None:
        left = {key: value for key, value in self._known().items() if key != tag}
        files.write_json(self._layout.hardware, left)
