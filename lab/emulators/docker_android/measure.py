"""Timing another boot of the same image, with KVM and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from lab.core.deadline import Deadline, cleaning_up
from lab.core.errors import BlockedError, InconclusiveError
from lab.core.journal import Journal
from lab.emulators.container import Container, available_mib
from lab.emulators.docker_android import contract, waiting, within
from lab.emulators.docker_android.image import AndroidImage
from lab.emulators.docker_android.looking import Watch
from lab.guest.ssh import Guest

_WITHOUT_KVM = "-accel off"
"""The image always says `-accel on`; what is added to the emulator's command line comes after that."""


def time_boot(
    guest: Guest,
    container: Container,
    image: AndroidImage,
    launch: within.AndroidLaunch,
    acceleration: Literal["kvm", "tcg"],
    deadline: Deadline,
    journal: Journal,
) -> float:
    """Seconds from the start of the emulator to its ADB daemon; the container is removed again.

    Raises BlockedError when the VM has no memory for another Android, InconclusiveError when what
    ran is not what was to be measured, and as waiting.for_adb does.
    """
    needed, available = launch.options.memory_mib, available_mib(guest)
    if available is not None and available < needed:
        raise BlockedError(
            f"another Android needs {needed} MiB, and the VM has {available} MiB to give",
            hint="`invoke emulator.down` ends the one that runs; vm.memory_mib gives a new VM more",
        )
    if acceleration == "tcg":
        launch = replace(launch, arguments=_WITHOUT_KVM)
    watch = Watch(container.name, contract.of(image.archive.reference), journal)
    try:
        within.start(guest, container, image, launch, None)
        waiting.for_adb(guest, container, watch, deadline, with_kvm=acceleration == "kvm")
        inside, seconds = watch.seen[-1].inside, waiting.monitor_to_adb(watch)
        if watch.clock_was_set:
            raise InconclusiveError("the VM's clock was set meanwhile, so this boot cannot be timed")
        if watch.restarted:
            raise InconclusiveError("L2 restarted meanwhile, so this boot cannot be timed")
        if seconds is None:
            raise InconclusiveError("the emulator's process was not seen, so its boot cannot be timed")
        if inside.made_vm != (acceleration == "kvm"):
            ran = "with KVM" if inside.made_vm else "without KVM"
            raise InconclusiveError(
                f"the emulator ran {ran}, which was not to be measured (-accel {inside.acceleration})"
            )
        return seconds
    finally:
        with cleaning_up():
            container.remove(guest)
