"""One module a layer, one function a rung: `guest.kvm` is `kvm` in guest.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from lab.ladder.model import Observation
from lab.ladder.rungs import android, container, docker, guest, host, nested, vm
from lab.ladder.site import Site

_CHECKS: dict[str, Callable[[Site], Observation]] = {
    "host.cpu": host.cpu,
    "host.engine": host.engine,
    "vm.settings": vm.settings,
    "vm.boot": vm.boot,
    "guest.paravirt": guest.paravirt,
    "guest.cpu": guest.cpu,
    "guest.kvm": guest.kvm,
    "docker.engine": docker.engine,
    "container.kvm": container.kvm,
    "nested.boot": nested.boot,
    "nested.adb": nested.adb,
    "android.boot": android.boot,
    "android.usable": android.usable,
}
_WITHOUT_EMULATOR = {
    "nested.boot": "no emulator was asked for",
    "nested.adb": "no emulator was asked for",
}
_ANDROID = ("android.boot", "android.usable")


def checks(site: Site) -> dict[str, Callable[[], Observation]]:
    """The checks that this site's emulator allows, ready to climb."""
    left_out = skips(site)
    return {name: partial(check, site) for name, check in _CHECKS.items() if name not in left_out}


def skips(site: Site) -> dict[str, str]:
    """The rungs this site cannot try, with the reason."""
    if site.emulator is None:
        return _WITHOUT_EMULATOR | dict.fromkeys(_ANDROID, "no emulator was asked for")
    if not site.emulator.android:
        return dict.fromkeys(_ANDROID, f"{site.emulator.name} is not Android")
    return {}
