"""The settings: every key with its type, its default and its limits. lab.toml says what each is for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from platformdirs import user_cache_path, user_state_path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic.fields import FieldInfo

from lab.core import plugins

GUEST_IMAGES = Path(__file__).resolve().parents[2] / "images" / "guest"
FOLDERS = ("state_dir", "cache_dir")
"""Keys whose empty value means the platform's own folder."""

_LOWEST_PORT = 1024
_HIGHEST_PORT = 65535
_DAY = 24 * 3600


def _folder(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise ValueError("should be a path in quotes")  # noqa: TRY004 - pydantic reports ValueError
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:  # ~nobody-of-that-name
        raise ValueError(str(error)) from error
    if not path.is_absolute():
        raise ValueError("should be an absolute path, or begin with ~")
    return path


def _program(value: str) -> str:
    return os.path.expanduser(value)  # noqa: PTH111 - a bare name must stay one


def _port(value: int) -> int:
    if value and not _LOWEST_PORT <= value <= _HIGHEST_PORT:
        raise ValueError(f"should be 0 (lab chooses), or from {_LOWEST_PORT} to {_HIGHEST_PORT}")
    return value


def _matching(pattern: str, meant: str) -> AfterValidator:
    """Refuses a text that is not wholly as the pattern is; `meant` says what it should be."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.DOTALL):
            raise ValueError(f"should be {meant}")
        return value

    return AfterValidator(check)


def _server(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= _HIGHEST_PORT:
        raise ValueError("should be HOST:PORT")
    return value


def choices(key: str) -> list[str]:
    """What a dotted key can be, those that installed packages bring too; empty where it is no choice."""
    if key == "engine":
        return ["auto", *plugins.names("lab.engines")]
    if key == "emulator.kind":
        return ["auto", *plugins.names("lab.emulators"), "none"]
    return [str(choice) for choice in get_args(leaves()[key].annotation)]


def _brought(key: str, group: plugins.Group, *words: str) -> AfterValidator:
    """One of `words` or of the group's names; packages are searched only for one that is not lab's."""

    def check(name: str) -> str:
        if name not in (*words, *plugins.OWN[group]) and name not in (known := choices(key)):
            *others, last = map(repr, known)
            raise ValueError(f"should be {', '.join(others)} or {last}")
        return name

    return AfterValidator(check)


Folder = Annotated[Path, BeforeValidator(_folder)]
Program = Annotated[str, Field(min_length=1), AfterValidator(_program)]
EngineName = Annotated[str, _brought("engine", "lab.engines", "auto")]
EmulatorKindName = Annotated[str, _brought("emulator.kind", "lab.emulators", "auto", "none")]
File = Annotated[str, AfterValidator(_program)]
Digest = Annotated[str, _matching("(sha256:[0-9a-f]{64})?", "empty, or sha256: and 64 hexadecimal digits")]
Variable = Annotated[str, _matching("[A-Za-z_][A-Za-z0-9_]*=.*", "KEY=VALUE")]
Port = Annotated[int, AfterValidator(_port)]
Address = Annotated[
    str,
    _matching(r"(https?://[^\s/?#]+[^\s?#]*)?", "empty, or an address that begins with http:// or https://"),
]
Repository = Annotated[str, _matching("([A-Za-z0-9][A-Za-z0-9-]*/[A-Za-z0-9._-]+)?", "empty, or owner/name")]
Server = Annotated[str, AfterValidator(_server)]
Seconds = Annotated[int, Field(ge=1, le=_DAY)]

PUBLISHED = tuple(sorted(path.stem for path in GUEST_IMAGES.glob("*.toml")))
"""The published images that can be asked for: each has a manifest of its name."""
if TYPE_CHECKING:
    GuestImage = str
else:
    GuestImage = Literal["auto", *PUBLISHED, "debian-13"]


class Section(BaseModel):
    """A table of lab.toml; lab.toml itself says what each key is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VmSection(Section):
    cpus: int = Field(2, ge=1, le=64)
    memory_mib: int = Field(4096, ge=512)
    disk_gib: int = Field(12, ge=4, le=2048)
    paravirt: Literal["kvm", "none", "default"] = "kvm"
    nested: bool = True


class EmulatorSection(Section):
    kind: EmulatorKindName = "auto"
    image: str = Field("budtmo/docker-android:emulator_14.0", min_length=1)
    digest: Digest = ""
    registry: str = ""
    archive: File = ""
    device: str = Field("Samsung Galaxy S10", min_length=1)
    memory_mib: int = Field(3072, ge=512)
    cpus: float = Field(2.0, gt=0, le=64)
    appium: bool = False
    env: list[Variable] = []


class PortsSection(Section):
    ssh: Port = 0
    adb: Port = 0
    console: Port = 0
    novnc: Port = 0
    appium: Port = 0


class ImagesSection(Section):
    debian_mirror: Address = ""


class DockerSection(Section):
    package: Literal["docker.io", "docker-ce"] = "docker.io"


class QemuSection(Section):
    acceleration: Literal["auto", "kvm", "tcg"] = "auto"
    binary: Program = "qemu-system-x86_64"


class VirtualBoxSection(Section):
    home: str = ""
    python: str = ""
    transport: Literal["auto", "vboxapi", "vboxmanage"] = "auto"
    execution_engine: Literal["default", "hwvirt", "native", "interpreter"] = "default"
    extra_data: list[str] = []
    allow_nested_on_host: bool = False


class RehearsalSection(Section):
    pc: str = Field("", max_length=200)
    bochs: Program = "bochs"
    deadline: Seconds = 3600


class DeadlinesSection(Section):
    """Seconds. Sane for an emulated host: hardware needs a tenth of them."""

    boot: Seconds = 600
    ssh: Seconds = 120
    docker: Seconds = 1800
    download: Seconds = 7200
    nested_boot: Seconds = 900
    android_hardware: Seconds = 180
    android_nested: Seconds = 600
    android_shadow: Seconds = 1800
    stop: Seconds = 90


class NightlySection(Section):
    runs: int = Field(3, ge=1, le=20)
    compare: bool = True
    budget_minutes: int = Field(180, ge=1, le=24 * 60)
    look_back: int = Field(14, ge=1, le=365)
    keep_days: int = Field(90, ge=1)
    keep_nights: int = Field(1000, ge=1)
    keep_on: list[Literal["refuted", "inconclusive", "blocked"]] = []
    keep_hours: int = Field(72, ge=1, le=24 * 365)
    keep_gib: int = Field(20, ge=1, le=4096)
    notify: Literal["always", "changes", "never"] = "always"
    webhook: Literal["", "json", "slack"] = ""
    github: Repository = ""
    github_api: str = "https://api.github.com"
    mail_to: str = ""
    mail_from: str = ""
    mail_server: Server = "localhost:25"
    mail_user: str = ""


class Settings(Section):
    """What a command works with. Made by `lab.config.load`, which also tells where each value is from."""

    model_config = ConfigDict(validate_default=True)

    engine: EngineName = "auto"
    image: GuestImage = "auto"
    install: Literal["auto", "never"] = "auto"
    state_dir: Folder = Field(default_factory=lambda: user_state_path("lab", appauthor=False))
    cache_dir: Folder = Field(default_factory=lambda: user_cache_path("lab", appauthor=False))
    vm: VmSection = VmSection()
    emulator: EmulatorSection = EmulatorSection()
    ports: PortsSection = PortsSection()
    images: ImagesSection = ImagesSection()
    docker: DockerSection = DockerSection()
    qemu: QemuSection = QemuSection()
    virtualbox: VirtualBoxSection = VirtualBoxSection()
    rehearsal: RehearsalSection = RehearsalSection()
    deadlines: DeadlinesSection = DeadlinesSection()
    nightly: NightlySection = NightlySection()

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> dict[str, str]:
        """Dotted key to where its value is from: a file, a variable, a flag, or `default`."""
        return {key: self._origins.get(key, "default") for key in leaves()}

    def with_origins(self, origins: dict[str, str]) -> Settings:
        """These settings, knowing where their values are from."""
        self._origins.update(origins)
        return self

    def value(self, key: str) -> Any:
        """The value of a dotted key."""
        value: Any = self
        for part in key.split("."):
            value = getattr(value, part)
        return value


@cache
def leaves() -> Mapping[str, FieldInfo]:
    """Every key there is, dotted, in the order of lab.toml."""
    return MappingProxyType(dict(_walk(Settings, "")))


def sections() -> list[str]:
    """The names of lab.toml's tables."""
    return [name for name, field in Settings.model_fields.items() if _model(field)]


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = _model(field)
        if inner:
            yield from _walk(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _model(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
