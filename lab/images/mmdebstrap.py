"""mmdebstrap: Debian root file systems made from this machine's own apt sources.

It works as root and, through user namespaces, as an ordinary user. What leaves the root file
system is taken out by mmdebstrap itself (`downloads`), the one way that works for both.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, Symptom, diagnose
from lab.images import apt_sources

EPOCH = 1_750_000_000
"""SOURCE_DATE_EPOCH of every image: fixed, so that equal inputs give equal files."""

_KEYRING = "debian-archive-keyring.gpg"
_KEYRINGS = (Path("/usr/share/keyrings"), apt_sources.APT / "trusted.gpg.d")
Progress = Callable[[float, float | None, str], None]
"""Packages set up, packages known to be wanted, what goes on: the shape of `Step.progress`."""


class RootRecipe(BaseModel):
    """What a root file system is made of. `apt_options` are lines of apt's configuration for the build."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suite: str
    packages: list[str] = []
    components: list[str] = ["main"]
    apt_options: list[str] = []
    variant: str = "minbase"
    """mmdebstrap's name for what comes beside `packages`."""


def build(
    recipe: RootRecipe,
    *,
    log: Path,
    archive: str = "",
    sources: Path | None = None,
    output: Path | None = None,
    downloads: Mapping[str, Path] | None = None,
    env: Mapping[str, str] | None = None,
    deadline: Deadline | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Make a root file system, run the hooks in `sources`/hooks on it, and write `output`.

    Hooks are executable files, run in the order of their names after the packages are installed, outside the
    root with its folder as first argument and `env` in their environment (as root of the user namespace when
    an ordinary user builds). They run from a copy of `sources`. `output` names what to make by its ending
    (.tar, .tar.gz, .squashfs, a folder), or is None when only `downloads` are wanted: path in the
    root to path outside, taken after the last hook. `log` receives all output. `archive` are apt's source
    lines; without them they are this machine's, whose keys must be installed.
    Raises BlockedError (mirror, disk, keyring, packages, mmdebstrap itself), CommandError when
    a hook fails, DeadlineError, InterruptedByUser.
    """
    archive = archive or _checked_sources(recipe)
    log.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(log.parent) as scratch, _readable_hooks(sources, scratch) as hooks:
        taken = [
            f"download {shlex.quote(inside)} {shlex.quote(str(outside.absolute()))}"
            for inside, outside in (downloads or {}).items()
        ]
        words: list[str | Path] = [*_apart(), *common_options(recipe), *trimming_options()]
        words += [f"--customize-hook={hook}" for hook in (*hooks, *taken)]
        words += [recipe.suite, "-", "--format=null"] if output is None else [recipe.suite, output.absolute()]
        try:
            proc.run(
                [*words, "-"],
                deadline=deadline,
                env={
                    "SOURCE_DATE_EPOCH": str(EPOCH),
                    "DEBIAN_FRONTEND": "noninteractive",
                    "TMPDIR": str(scratch),
                    **(env or {}),
                },
                log=log,
                on_line=_Reader(on_progress) if on_progress else None,
                stdin=archive,
            )
        except CommandError as error:
            raise _explained(error, recipe.suite, log) from error


def _apart() -> list[str]:
    """As root, mounts of its own: a killed mmdebstrap leaves parts of the host mounted in the root it made,
    and removing that root would empty them. In a namespace of its own they end with it.
    """
    return ["unshare", "--mount", "--propagation=private"] if os.geteuid() == 0 else []


@contextlib.contextmanager
def _scratch(beside: Path) -> Iterator[Path]:
    """Where the root file system grows. A killed mmdebstrap leaves it behind, so for root it lies
    where the caller builds and goes with that; a user namespace cannot get into the user's own folders.
    """
    if os.geteuid() != 0:
        yield Path(tempfile.gettempdir())
        return
    with tempfile.TemporaryDirectory(prefix=".mmdebstrap-", dir=beside, ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def _readable_hooks(sources: Path | None, scratch: Path) -> Iterator[list[Path]]:
    """The hooks, in a copy of `sources` that the root of a user namespace may read, as it may no home."""
    if sources is None:
        yield []
        return
    with tempfile.TemporaryDirectory(prefix="lab-hooks-", dir=scratch) as folder:
        copy = Path(folder) / "sources"
        shutil.copytree(sources, copy)
        for path in [Path(folder), copy, *copy.rglob("*")]:
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        yield sorted((copy / "hooks").iterdir())


def resolve_versions(recipe: RootRecipe, *, deadline: Deadline | None = None) -> dict[str, str]:
    """Name and version of every package that `build` would install now. Asks the mirror.

    Raises as `build` does.
    """
    archive = _checked_sources(recipe)
    words = [*common_options(recipe), "--simulate", "--format=null", recipe.suite, "-", "-"]
    try:
        done = proc.run(words, deadline=deadline, stdin=archive)
    except CommandError as error:
        raise _explained(error, recipe.suite) from error
    return parse_simulation((done.out + "\n" + done.err).splitlines())


def parse_simulation(lines: Iterable[str]) -> dict[str, str]:
    """Package versions from apt's `Inst name (version …)` lines."""
    matches = (re.match(r"Inst (\S+) (?:\[[^\]]*\] )?\((\S+)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def common_options(recipe: RootRecipe) -> list[str]:
    """The command that makes the root of a recipe, but for the suite and where it goes."""
    own = ('APT::Install-Recommends "false"', 'Acquire::Languages "none"', 'Acquire::Retries "3"')
    return [
        "mmdebstrap",
        "--verbose",
        "--mode=auto",
        "--architectures=amd64",
        f"--variant={recipe.variant}",
        *([f"--include={','.join(recipe.packages)}"] if recipe.packages else []),
        *(f"--aptopt={option}" for option in (*own, *recipe.apt_options)),
    ]


def trimming_options() -> list[str]:
    """Options that leave manuals and translations out; copyright files stay, as the licences ask."""
    options = [f"path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "info", "locale")]
    options += ["path-include=/usr/share/doc/*/copyright", "path-include=/usr/share/locale/locale.alias"]
    return [f"--dpkgopt={option}" for option in options]


def _checked_sources(recipe: RootRecipe) -> str:
    """apt's source lines for a recipe. Raises BlockedError: there are none, or no keys to check them by."""
    lines = apt_sources.lines_for(recipe.suite, components=recipe.components)
    # Where mmdebstrap itself is missing, running it says so.
    if shutil.which("mmdebstrap") and not any((folder / _KEYRING).exists() for folder in _KEYRINGS):
        raise BlockedError(
            "Debian's archive keys are not installed, so its packages cannot be checked",
            hint="install the package debian-archive-keyring",
        )
    return lines


class _Reader:
    """Turns mmdebstrap's and apt's lines into progress."""

    def __init__(self, report: Progress) -> None:
        self._report = report
        self._done = 0
        self._total = 0
        self._stage = ""

    def __call__(self, line: str) -> None:
        if match := re.match(r"I: ((?:running|downloading|extracting|installing|cleaning|creating).*)", line):
            self._stage = match[1].split(":")[0].removesuffix("...").split(" /")[0]
        elif match := re.match(r"\d+ upgraded, (\d+) newly installed", line):
            self._total += int(match[1])
        elif line.startswith("Setting up "):
            self._done += 1
        else:
            return
        self._report(self._done, self._total or None, self._stage)


_SYMPTOMS = (
    Symptom(
        r"No space left on device|not enough free space|don't have enough free space",
        "the disk filled up while building a Debian {suite} root file system",
        "free some space, or move lab's cache with LAB_CACHE_DIR (and TMPDIR)",
    ),
    Symptom(
        r"NO_PUBKEY|not signed|signatures couldn't be verified|signatures were invalid",
        "the Debian {suite} archive's signature could not be checked",
        "update the package debian-archive-keyring (keys of newer Debian releases come with it)",
    ),
    Symptom(
        r"Failed to fetch|does not have a Release file|Could not (connect|resolve)|Temporary failure",
        "the Debian mirror in this machine's apt sources did not deliver {suite}",
        "check the network and `apt-get update`; a mirror that has {suite} is needed",
    ),
    Symptom(
        r"Unable to locate package|has no installation candidate|Unable to correct problems",
        "a package the recipe asks for is not in Debian {suite} on this mirror",
        "the mirror may be half updated: try again later, or use another one",
    ),
    Symptom(
        r"unable to pick chroot mode|newuidmap|failed to unshare|unshare\(\) failed|/etc/subuid",
        "an ordinary user may not build root file systems on this machine",
        "install uidmap and give the user a range in /etc/subuid and /etc/subgid, or build as root",
    ),
)


def _explained(error: CommandError, suite: str, log: Path | None = None) -> CommandError | BlockedError:
    """The BlockedError behind mmdebstrap's last words; the CommandError itself if unknown."""
    evidence = [log] if log and log.exists() else []
    fault = diagnose(error.tail, _SYMPTOMS)
    if fault:
        hint = fault.hint.format(suite=suite)
        return BlockedError(fault.what.format(suite=suite), hint=hint, evidence=evidence, tail=error.tail)
    error.what = f"mmdebstrap could not build a Debian {suite} root file system"
    error.hint = "its log says which package or hook failed"
    error.evidence = [str(path) for path in evidence]
    return error
