"""What docker-android says of itself before there is a VM for it."""

from __future__ import annotations

from collections.abc import Callable

from lab.config import Settings
from lab.core.errors import LabError, UsageError
from lab.emulators.docker_android import DockerAndroid, image, room
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.kind import EmulatorKind
from lab.emulators.options import Place
from lab.images import registry
from lab.images.registry import Reference


class DockerAndroidKind(EmulatorKind):
    """docker-android, as the settings have it."""

    name = "docker-android"

    def __init__(
        self,
        settings: Settings,
        unreachable: Callable[[Reference, str, float], str | None] = registry.reachable,
    ) -> None:
        """`unreachable` is asked why an image's registry, or its mirror, does not answer in some seconds."""
        super().__init__(settings)
        self._unreachable = unreachable

    def at(self, place: Place) -> DockerAndroid:
        return DockerAndroid(place, self._options)

    def check(self) -> None:
        image.check(self._options)

    def vm_size(self) -> tuple[int, int]:
        return room.memory_mib(self._options), room.disk_gib(self._image_bytes())

    def lacking(self, memory_mib: int, disk_gib: int) -> list[str]:
        return room.lacking(self._options, self._image_bytes(), memory_mib, disk_gib)

    def hint(self) -> str:
        return room.hint(self._options, self._image_bytes())

    def why_no_image(self, seconds: float) -> str:
        wanted = self._options.image
        try:
            if self._found() is not None:
                return ""
        except LabError as error:  # what is known of images is damaged, or the name is none
            return f"whether {wanted} is here cannot be told ({error.what})"
        try:
            unreachable = self._unreachable(Reference.parse(wanted), self._options.registry, seconds)
        except UsageError as error:
            unreachable = error.what
        return f"{wanted} is not here, and cannot be fetched ({unreachable})" if unreachable else ""

    def cached(self) -> str:
        settings = self.settings
        pulled = image.pulled(self._options, settings.cache_dir / "images", settings.state_dir)
        return pulled.id if pulled else ""

    @property
    def _options(self) -> AndroidOptions:
        return AndroidOptions.of(self.settings)

    def _found(self) -> image.AndroidImage | None:
        settings = self.settings
        return image.find(self._options, settings.cache_dir / "images", settings.state_dir)

    def _image_bytes(self) -> int | None:
        cached = self._found()
        return cached.bytes if cached else None
