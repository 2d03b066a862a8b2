"""A Python that lab carries to a machine without one: Debian's, with its own loader and libraries, in a tar.

It runs wherever the kernel is Linux and the processor is the right one: nothing of the machine's own files
is used but a shell, for the few words that start it.
"""

from __future__ import annotations

import gzip
import io
import posixpath
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.core import files
from lab.core.deadline import Deadline
from lab.core.errors import LabError
from lab.core.steps import Step
from lab.formats import elf
from lab.images import cache as images
from lab.images import canary, debtree, making
from lab.images.canary_recipe import Architecture
from lab.images.debtree import LIBRARY_FOLDERS, DebianTree

SOURCES = Path(__file__).resolve().parents[2] / "images" / "python"
PROGRAM = "python3"
"""What starts it, at the top of the tar."""
FILE = "python.tar.gz"

_BUILDERS = tuple(Path(str(module.__file__)) for module in (debtree, elf))
_BUILD_SECONDS = 600.0
_SPACE = 256 << 20
# Isolated (-I), so that no setting of the user's for another Python counts.
_START = """\
#!/bin/sh
here=${{0%/*}}
exec "$here/lib/{loader}" --library-path "$here/lib" "$here{program}" -I "$@"
"""


class PythonRecipe(BaseModel):
    """images/python/recipe.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    release: str
    suite: str
    program: str
    library: str
    packages: list[str]
    extensions: list[str]


def recipe() -> PythonRecipe:
    """The recipe, as the file has it."""
    return PythonRecipe.model_validate(files.read_toml(SOURCES / "recipe.toml"))


def recipe_hash(architecture: Architecture) -> str:
    """Hex digest of everything the tar is made from but Debian's packages."""
    return making.digest_of(SOURCES, [Path(__file__), *_BUILDERS], architecture)


def find(cache: Path, architecture: Architecture) -> images.CachedImage | None:
    """The newest tar made from this recipe, or None. Reads the cache only."""
    return making.newest(cache, recipe_hash(architecture))


def build(cache: Path, step: Step, mirror: str, architecture: Architecture) -> images.CachedImage:
    """Make the tar of today's packages, unless it is there. One process builds, others wait.

    `mirror` is the address of a Debian archive, as apt has it. Raises BlockedError (the mirror, its signature
    or hashes, disk, packages), LabError when the recipe does not fit the packages, DeadlineError,
    InterruptedByUser.
    """
    made, deadline = recipe(), Deadline.after(_BUILD_SECONDS)
    step.note(f"asking Debian {made.suite} for the packages of Python")
    archive = canary.archive(mirror, architecture)
    packages = [each for each in archive.resolve(made.packages, deadline) if each.name in made.packages]
    versions = {package.name: package.version for package in packages}
    release, digest = f"{made.release}-{architecture}", recipe_hash(architecture)
    image_id = making.id_of(release, digest, versions)

    def fill(work: Path) -> images.Manifest:
        files.require_space(cache, _SPACE, "building a Python for machines without one")
        downloads = images.downloads(cache) / image_id
        tree_file = work / "debian.tar"
        archive.extract(packages, downloads, tree_file, step, deadline)
        with DebianTree(tree_file) as tree:
            pack(tree, made, work / FILE)
        tree_file.unlink()
        shutil.rmtree(downloads)
        return making.describe(
            images.Manifest,
            work / FILE,
            id=image_id,
            kind="python",
            name=release,
            recipe=digest,
            format="tar.gz",
            packages=versions,
        )

    return making.make(cache, image_id, step, fill)


def pack(tree: DebianTree, made: PythonRecipe, target: Path) -> None:
    """Write the tar of what `tree` holds. Raises LabError where the recipe does not fit it."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, mode, data in sorted(_members(tree, made)):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(data)
            tar.addfile(member, io.BytesIO(data))


def _members(tree: DebianTree, made: PythonRecipe) -> Iterator[tuple[str, int, bytes]]:
    """Name, mode and content of every file."""
    extensions = [path for name in made.extensions for path in _extension(tree, made, name)]
    loaded = elf.closure([made.program, *extensions], tree.read, LIBRARY_FOLDERS)
    loader = next(name for name in loaded if name.startswith("/"))  # a library has a name, the loader a path
    yield (
        PROGRAM,
        0o755,
        _START.format(loader=posixpath.basename(loader), program=made.program).encode(),
    )
    for name, path in loaded.items():
        yield f"lib/{posixpath.basename(name)}", 0o755, tree.need(path)
    yield made.program.lstrip("/"), 0o755, tree.need(made.program)
    for path in extensions:
        yield path.lstrip("/"), 0o644, tree.need(path)
    for path in tree.under(made.library):
        if path.endswith(".py") and (data := tree.read(path)) is not None:
            yield path.lstrip("/"), 0o644, data


def _extension(tree: DebianTree, made: PythonRecipe, name: str) -> list[str]:
    folder = f"{made.library}/lib-dynload"
    paths = [path for path in tree.under(folder) if posixpath.basename(path).startswith(f"{name}.cpython-")]
    if not paths:
        raise LabError(
            f"Python's module {name} is not in the extracted packages", hint="the recipe needs an update"
        )
    return paths
