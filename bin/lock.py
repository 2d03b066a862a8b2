"""Make requirements.lock and fleet.lock anew from pyproject.toml: `.venv/bin/python bin/lock.py`.

Needs the package index. Beside each, a file of the same name that ends in `.wheels` records the file name of
each hash that fits a system lab runs on, so that a test can tell without an index that every pin can be
installed there. No address of an index is written.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILE = (
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-header", "--no-emit-index-url"),
)
LOCKS = {
    "requirements.lock": ("pyproject.toml", "--group", "dev"),
    "fleet.lock": ("--group", "fleet"),
}
"""Each lock, and what it is resolved from."""
PLATFORMS = ("any", "macosx", "manylinux", "linux")


def compile_lock(output: Path, *words: str) -> None:
    """Resolve for every system and Python at once; what is pinned already stays, unless it must go."""
    uv = Path(sys.executable).parent / COMPILE[0]
    command = [str(uv), *COMPILE[1:], *words, "--output-file", str(output)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def file_names(pylock: Path) -> dict[str, str]:
    """File name to SHA-256 of what a pylock.toml lists (PEP 751), without other systems' wheels."""
    names = {}
    for package in tomllib.loads(pylock.read_text())["packages"]:
        for file in [*package.get("wheels", []), *filter(None, [package.get("sdist")])]:
            name = file.get("name") or file["url"].rsplit("/", 1)[1]
            platform = name.removesuffix(".whl").rsplit("-", 1)[1]
            if not name.endswith(".whl") or platform.startswith(PLATFORMS):
                names[name] = file["hashes"]["sha256"]
    return names


def main() -> None:
    for name, sources in LOCKS.items():
        lock = ROOT / name
        compile_lock(lock, *sources, *sys.argv[1:])
        with tempfile.TemporaryDirectory() as folder:
            pylock = Path(folder) / "pylock.toml"
            compile_lock(pylock, *sources, "--constraint", str(lock))
            names = file_names(pylock)
        lines = [f"{names[name]}  {name}\n" for name in sorted(names, key=str.lower)]
        lock.with_suffix(".wheels").write_text("".join(lines))


if __name__ == "__main__":
    main()
