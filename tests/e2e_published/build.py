"""The published image: built from this machine's Debian mirror, kept by what it is made of."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

from lab.config import load
from lab.core import files, lock, proc
from lab.core.deadline import Deadline
from lab.images import apt_sources, mmdebstrap
from tests.e2e_published import bootdisk

FILE = "debian-13-generic-amd64.qcow2"
"""Its name on the server."""

_SOURCES = Path(__file__).with_name("image")
_SPACE = 5 << 30
_SECONDS = 1500.0


def built() -> Path:
    """The disk in lab's cache of test roots, made if it is not there. Only root on Debian can.

    Raises as lab.images.mmdebstrap.build does.
    """
    recipe = tomllib.loads((_SOURCES / "recipe.toml").read_text())
    sources = _apt_sources(recipe["suite"])
    cache = load().cache_dir / "test-roots"
    final = cache / f"published-{_digest(recipe, sources)[:12]}"
    with lock.when_free(lock.beside(final), "the published image"):
        if not final.is_dir():
            files.require_space(cache, _SPACE, "a published image")
            with files.building(final) as work:
                work.chmod(0o755)
                _bootstrap(work, recipe, sources)
                bootdisk.make(work / "tree", work / FILE, recipe["disk_mib"])
                proc.run(["rm", "-rf", "--one-file-system", work / "tree"], deadline=Deadline.after(120))
    return final / FILE


def _digest(recipe: dict[str, Any], sources: str) -> str:
    versions = mmdebstrap.resolve_versions(_root(recipe), deadline=Deadline.after(_SECONDS))
    digest = hashlib.sha256(json.dumps([versions, sources], sort_keys=True).encode())
    made_of = [path for path in _SOURCES.rglob("*") if path.is_file()]
    for path in [*sorted(made_of), Path(__file__), Path(bootdisk.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _root(recipe: dict[str, Any]) -> mmdebstrap.RootRecipe:
    return mmdebstrap.RootRecipe(suite=recipe["suite"], packages=recipe["packages"])


def _bootstrap(work: Path, recipe: dict[str, Any], sources: str) -> None:
    """The root in `work`/tree. mmdebstrap has mounts of its own: see tests/integration/vboxroot/root.py."""
    hooks = _SOURCES / "hooks"
    proc.run(
        [
            *("unshare", "--mount", "--propagation=private"),
            *mmdebstrap.common_options(_root(recipe)),
            *("--format=directory", f"--essential-hook={hooks / '10-answers'}"),
            *(f"--customize-hook={hooks / '50-system'}", recipe["suite"], work / "tree", "-"),
        ],
        deadline=Deadline.after(_SECONDS),
        env={
            "DEBIAN_FRONTEND": "noninteractive",
            "PUBLISHED_PARTUUID": bootdisk.PARTUUID,
            "PUBLISHED_SOURCES": sources,
        },
        log=work / "mmdebstrap.log",
        stdin=apt_sources.lines_for(recipe["suite"]),
    )


def _apt_sources(suite: str) -> str:
    """What the image's apt asks: this machine's mirror, and its mirror of the security updates."""
    main = apt_sources.lines_for(suite).split()[1]
    places = {f"{suite} {suite}-updates": main}
    if security := _security():
        places[f"{suite}-security"] = security
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        for suites, uri in places.items()
    )


def _security() -> str:
    return next((uri for uri, name, _ in apt_sources._entries(apt_sources.APT) if "-security" in name), "")
