"""The settings of docker-android."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.config import Settings
from lab.emulators.protocol import Speed


@dataclass(frozen=True)
class AndroidOptions:
    """Sections `emulator` and `deadlines` of lab.toml, as far as they are docker-android's."""

    image: str = "budtmo/docker-android:emulator_14.0"
    digest: str = ""
    """sha256:…; empty: learned at the first pull and kept."""
    registry: str = ""
    """A mirror, host[:port]; empty: the one the image's name stands for."""
    archive: Path | None = None
    """A `docker save` archive to take the image from instead of a registry."""
    device: str = "Samsung Galaxy S10"
    memory_mib: int = 3072
    cpus: float = 2.0
    appium: bool = False
    env: tuple[str, ...] = ()
    """Further KEY=VALUE words for the container."""
    download_seconds: float = 7200.0
    boot_seconds: Mapping[Speed, float] = field(
        default_factory=lambda: {"hardware": 180.0, "nested": 600.0, "shadow": 1800.0}
    )

    @classmethod
    def of(cls, settings: Settings) -> AndroidOptions:
        """What the settings say."""
        wanted, deadlines = settings.emulator, settings.deadlines
        return cls(
            image=wanted.image,
            digest=wanted.digest,
            registry=wanted.registry,
            archive=Path(wanted.archive) if wanted.archive else None,
            device=wanted.device,
            memory_mib=wanted.memory_mib,
            cpus=wanted.cpus,
            appium=wanted.appium,
            env=tuple(wanted.env),
            download_seconds=deadlines.download,
            boot_seconds={
                "hardware": deadlines.android_hardware,
                "nested": deadlines.android_nested,
                "shadow": deadlines.android_shadow,
            },
        )
