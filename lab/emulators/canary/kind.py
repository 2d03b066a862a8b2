"""What the canary says of itself before there is a VM for it."""

from __future__ import annotations

from lab.emulators.canary import Canary
from lab.emulators.kind import EmulatorKind
from lab.emulators.options import Place
from lab.images import canary as recipe


class CanaryKind(EmulatorKind):
    """The canary: it fits every VM, and its image is built here."""

    name = "canary"

    def at(self, place: Place) -> Canary:
        return Canary(place)

    def cached(self) -> str:
        image = recipe.find(self.settings.cache_dir / "images")
        return image.id if image else ""
