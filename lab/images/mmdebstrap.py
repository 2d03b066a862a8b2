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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError
from lab.images import apt_sources

EPOCH = 1_750_000_000
"""SOURCE_DATE_EPOCH of every image: fixed, so that equal inputs give equal files."""

_KEYRING = "debian-archive-keyring.gpg"
_KEYRINGS = (Path("/usr/share/keyrings"), apt_sources.APT / "trusted.gpg.d")
Progress = Callable[[float, float | None, str], None]
"""Packages set up, packages known to be wanted, what goes on: the shape of `Step.progress`."""


def build(
    *,
    suite: str,
    packages: Sequence[str],
    hooks: Sequence[Path],
    output: Path | None,
    log: Path,
    deadline: Deadline | None = None,
    env: Mapping[str, str] | None = None,
    variant: str = "minbase",
    components: Sequence[str] = ("main",),
    apt_options: Sequence[str] = (),
    on_progress: Progress | None = None,
    downloads: Mapping[str, Path] | None = None,
    sources: Path | None = None,
) -> None:
    """Make a root file system of `packages`, run `hooks` on it, write `output`.

    Hooks are executable files, run in order after the packages are installed, outside the root
    with its folder as first argument and `env` in their environment (as root of the user
    namespace when an ordinary user builds). `sources` is the folder with the hooks and all they
    read: they run from a copy of it. `output` names what to make by its ending (.tar,
    .tar.gz, .squashfs, a folder), or is None when only `downloads` are wanted: path in the
    root to path outside, taken after the last hook. `log` receives all output.
    `apt_options` are lines of apt's configuration.
    Raises BlockedError (mirror, disk, keyring, packages, mmdebstrap itself), CommandError when
    a hook fails, DeadlineError, InterruptedByUser.
    """
    archive = apt_sources.lines_for(suite, components=components)
    _require_keyring()
    log.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(log.parent) as scratch, _readable(sources, scratch) as copy:
        words: list[str | Path] = [*_common(packages, variant, apt_options), *_trimming()]
        for hook in hooks:
            place = copy / hook.relative_to(sources) if copy and sources else hook.resolve()
            words.append(f"--customize-hook={place}")
        for inside, outside in (downloads or {}).items():
            wanted = f"download {shlex.quote(inside)} {shlex.quote(str(outside.absolute()))}"
            words.append(f"--customize-hook={wanted}")
        words += [suite, "-", "--format=null"] if output is None else [suite, output.absolute()]
        try:
            proc.run(
                [*_apart(), *words, "-"],
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
            raise _explained(error, suite, log) from error


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
def _readable(sources: Path | None, scratch: Path) -> Iterator[Path | None]:
    """A copy of `sources` that the root of a user namespace may read: homes are often closed to it."""
    if sources is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="lab-hooks-", dir=scratch) as folder:
        copy = Path(folder) / "sources"
        shutil.copytree(sources, copy)
        for path in [Path(folder), copy, *copy.rglob("*")]:
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        yield copy


def resolve_versions(
    suite: str,
    packages: Sequence[str],
    *,
    deadline: Deadline | None = None,
    variant: str = "minbase",
    components: Sequence[str] = ("main",),
    apt_options: Sequence[str] = (),
) -> dict[str, str]:
    """Name and version of every package that `build` would install now. Asks the mirror.

    Raises as `build` does.
    """
    sources = apt_sources.lines_for(suite, components=components)
    _require_keyring()
    with tempfile.TemporaryDirectory(prefix="lab-resolve-") as folder:
        log = Path(folder) / "mmdebstrap.log"
        try:
            done = proc.run(
                [
                    *_common(packages, variant, apt_options),
                    *("--simulate", "--format=null", suite, "-", "-"),
                ],
                deadline=deadline,
                stdin=sources,
            )
        except CommandError as error:
            raise _explained(error, suite, log) from error
    return parse_simulation((done.out + "\n" + done.err).splitlines())


def parse_simulation(lines: Iterable[str]) -> dict[str, str]:
    """Package versions from apt's `Inst name (version …)` lines."""
    matches = (re.match(r"Inst (\S+) (?:\[[^\]]*\] )?\((\S+)", line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def _common(packages: Sequence[str], variant: str, apt_options: Sequence[str] = ()) -> list[str]:
    own = ('APT::Install-Recommends "false"', 'Acquire::Languages "none"', 'Acquire::Retries "3"')
    return [
        "mmdebstrap",
        "--verbose",
        "--mode=auto",
        "--architectures=amd64",
        f"--variant={variant}",
        *([f"--include={','.join(packages)}"] if packages else []),
        *(f"--aptopt={option}" for option in (*own, *apt_options)),
    ]


def _trimming() -> list[str]:
    """Nobody reads manuals in an image; copyright files stay, as the licences ask."""
    options = [f"path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "info", "locale")]
    options += ["path-include=/usr/share/doc/*/copyright", "path-include=/usr/share/locale/locale.alias"]
    return [f"--dpkgopt={option}" for option in options]


def _require_keyring() -> None:
    if not shutil.which("mmdebstrap"):
        return  # proc.run says it better
    if not any((folder / _KEYRING).exists() for folder in _KEYRINGS):
        raise BlockedError(
            "Debian's archive keys are not installed, so its packages cannot be checked",
            hint="install the package debian-archive-keyring",
        )


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


_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device|not enough free space|don't have enough free space",
        "the disk filled up while building a Debian {suite} root file system",
        "free some space, or move lab's cache with LAB_CACHE_DIR (and TMPDIR)",
    ),
    (
        r"NO_PUBKEY|not signed|signatures couldn't be verified|signatures were invalid",
        "the Debian {suite} archive's signature could not be checked",
        "update the package debian-archive-keyring (keys of newer Debian releases come with it)",
    ),
    (
        r"Failed to fetch|does not have a Release file|Could not (connect|resolve)|Temporary failure",
        "the Debian mirror in this machine's apt sources did not deliver {suite}",
        "check the network and `apt-get update`; a mirror that has {suite} is needed",
    ),
    (
        r"Unable to locate package|has no installation candidate|Unable to correct problems",
        "a package the recipe asks for is not in Debian {suite} on this mirror",
        "the mirror may be half updated: try again later, or use another one",
    ),
    (
        r"unable to pick chroot mode|newuidmap|failed to unshare|unshare\(\) failed|/etc/subuid",
        "an ordinary user may not build root file systems on this machine",
        "install uidmap and give the user a range in /etc/subuid and /etc/subgid, or build as root",
    ),
)


def _explained(error: CommandError, suite: str, log: Path) -> CommandError | BlockedError:
    """The BlockedError behind mmdebstrap's last words; the CommandError itself if unknown."""
    evidence = [log] if log.exists() else []
    for pattern, what, hint in _CAUSES:
        if re.search(pattern, error.tail):
            return BlockedError(
                what.format(suite=suite), hint=hint.format(suite=suite), evidence=evidence, tail=error.tail
            )
    error.what = f"mmdebstrap could not build a Debian {suite} root file system"
    error.hint = "its log says which package or hook failed"
    error.evidence = [str(path) for path in evidence]
    return error
