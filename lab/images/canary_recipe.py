"""The recipe of the canaries, and which of them there are: by what their container and their L2 run on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from lab.core import files
from lab.formats import cpio, elf, oci
from lab.images import debtree, making
from lab.images.cache import CachedImage

Architecture = Literal["amd64", "arm64"]
"""As Debian and Docker call it."""

MACHINES: Final[dict[Architecture, str]] = {"amd64": "x86_64", "arm64": "aarch64"}
"""What `uname -m` calls them."""

SOURCES = Path(__file__).resolve().parents[2] / "images" / "canary"
REPOSITORY = "lab/canary"
BUILDERS = (
    Path(__file__).with_name("canary.py"),
    Path(__file__),
    *(Path(str(module.__file__)) for module in (cpio, debtree, elf, oci)),
)
"""lab's modules that shape the image."""


class CanaryBuild(NamedTuple):
    """One canary: what its image is called, what its container runs on, and what its L2 is a machine of."""

    name: str
    container: Architecture
    l2: Architecture


X86: Final = CanaryBuild("canary", "amd64", "amd64")
ARM: Final = CanaryBuild("canary-arm64", "arm64", "arm64")
EMULATED_ARM: Final = CanaryBuild("canary-arm64-emulated", "amd64", "arm64")
"""Its L2 is emulated whatever the machine: no KVM on x86 runs it."""
EMULATED_ARM_MIB: Final = 512
"""What it takes of its VM's memory while it runs: 256 for L2, the rest for QEMU and what it translates."""
EMULATED_ARM_NEEDS: Final = (
    "the ARM image: unless it is cached, about 90 MB of packages and 1 GiB of this disk while it is made; "
    f"40 MB to the VM and 200 MB of its disk; {EMULATED_ARM_MIB} MiB of its memory while it runs"
)
BUILDS: Final = {build.name: build for build in (X86, ARM, EMULATED_ARM)}


class _Container(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    packages: list[str]
    applets: list[str]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    packages: list[str]
    program: str
    applets: list[str]


class _Machine(BaseModel):
    """What differs by the architecture of L2."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kernel: str
    """The package of its kernel."""
    modules: list[str]
    monitor: str
    """The package of the QEMU that runs it."""
    program: str
    firmware: list[str]


class CanaryRecipe(BaseModel):
    """images/canary/recipe.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    keys: str
    fingerprints: list[str]
    container: _Container
    l2: _Payload
    machine: dict[Architecture, _Machine]

    def packages(self, build: CanaryBuild) -> dict[Architecture, list[str]]:
        """The names of the packages that a canary is made of, by the architecture they are of."""
        machine = self.machine[build.l2]
        wanted: dict[Architecture, list[str]] = {build.l2: [*self.l2.packages, machine.kernel]}
        wanted.setdefault(build.container, []).extend([*self.container.packages, machine.monitor])
        return wanted


def recipe() -> CanaryRecipe:
    """The canaries' recipe, as the file has it."""
    return CanaryRecipe.model_validate(files.read_toml(SOURCES / "recipe.toml"))


def recipe_hash(build: CanaryBuild = X86) -> str:
    """Hex digest of everything an image is made from but Debian's packages."""
    return making.digest_of(SOURCES, BUILDERS, oci.COMPRESSOR, *build)


def find(cache: Path, build: CanaryBuild = X86) -> CachedImage | None:
    """The newest image of that canary made from this recipe, or None. Reads the cache only."""
    return making.newest(cache, recipe_hash(build))


def id_of(versions: Mapping[str, str], build: CanaryBuild = X86) -> str:
    """The id of the image that this recipe makes of packages, given as name to version."""
    return making.id_of(build.name, recipe_hash(build), versions)


def reference_of(image_id: str) -> str:
    """What Docker calls the image of that id."""
    return f"{REPOSITORY}:{image_id.rpartition('-')[2]}"
