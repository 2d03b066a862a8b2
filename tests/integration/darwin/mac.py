"""A recorded Mac's disguise for a process: its folders, programs and answers, and nothing that is Linux's."""

from __future__ import annotations

import json
import platform
import plistlib
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.config.loading import PROJECT

HOME = Path("/Users/some body")
CHECKOUT = HOME / "src" / "lab"
APP = Path("/Applications/VirtualBox.app/Contents/MacOS")
TOOLS = ("sh", "cat", "env", "id", "ls", "ps", "rm", "sleep", "ssh", "ssh-keygen")
"""The programs of a Mac that are this machine's own."""

_HERE = Path(__file__).parent
_FOLDERS = (
    *(
        "bin",
        "sbin",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/local/bin",
        "private/tmp",
        "var/tmp",
        "dev",
        "etc",
    ),
    *("Applications", "Library", "System/Library/CoreServices", "Volumes", ".mask/proc", ".mask/python"),
)
_DEVICES = ("null", "zero", "random", "urandom")
_ETC = ("hosts", "resolv.conf", "nsswitch.conf", "localtime")
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_SECONDS = 120.0


@dataclass(frozen=True)
class Mac:
    """One of macs.toml. `product` is what sw_vers says: name, version, build."""

    name: str
    uname: tuple[str, ...]
    product: tuple[str, ...]
    sysctl: Mapping[str, str]
    free: int
    inactive: int

    @property
    def intel(self) -> bool:
        return "hw.optional.arm64" not in self.sysctl


def _recorded() -> dict[str, Mac]:
    macs = tomllib.loads((_HERE / "macs.toml").read_text())
    return {
        name: Mac(name, tuple(of["uname"]), tuple(of["product"]), of["sysctl"], of["free"], of["inactive"])
        for name, of in macs.items()
    }


MACS: Mapping[str, Mac] = _recorded()


@dataclass(frozen=True)
class Completed:
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Masked:
    """A root folder in which commands see the Mac. `home` is where its HOME really is."""

    mac: Mac
    root: Path
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        """The Python that lab runs in."""
        return Path(sys.executable)

    def command(self, words: Sequence[str | Path], env: Mapping[str, str]) -> list[str]:
        """How `words` are run inside: in a mount namespace that ends with them."""
        mounts = [
            f"mount --bind {shlex.quote(str(source))} {shlex.quote(f'{self.root}{place}')}"
            for source, place in _binds(self.home)
        ]
        settings = [f"{name}={value}" for name, value in env.items()]
        inside = ["env", "-i", "--chdir", str(CHECKOUT), *settings, *(str(word) for word in words)]
        script = "\n".join(
            ["set -eu", *mounts, f"exec chroot {shlex.quote(str(self.root))} {shlex.join(inside)}"]
        )
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", script]

    def run(self, *words: str | Path, seconds: float = _SECONDS, **env: str) -> Completed:
        """Run a command as a person of this Mac does, to its end."""
        settings = {
            "HOME": str(HOME),
            "USER": "somebody",
            "SHELL": "/bin/zsh",
            "PATH": _PATH,
            "LANG": "en_US.UTF-8",
            "TMPDIR": "/private/tmp",
            "PYTHONPATH": f"/.mask/python:{CHECKOUT}",
            # Python's own build is Linux's, whatever it tells of itself.
            "_PYTHON_SYSCONFIGDATA_NAME": sysconfig._get_sysconfigdata_name(),  # type: ignore[attr-defined]
            **self.env,
            **env,
        }
        done = subprocess.run(
            self.command(words, settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def lab(self, *words: str, seconds: float = _SECONDS, **env: str) -> Completed:
        """Run a task of lab's, by the program that bin/invoke starts."""
        return self.run(Path(sys.prefix) / "bin" / "invoke", *words, seconds=seconds, **env)


def disguise(mac: Mac, root: Path, home: Path, **env: str) -> Masked:
    """Make the empty folder `root` the Mac's. `home` has the checkout in src/lab, and gets what lab makes."""
    for name in _FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").symlink_to("private/tmp")
    for program in TOOLS:
        found = shutil.which(program)
        assert found, program
        shutil.copy2(found, root / "usr/bin" / program)
    (root / "bin/sh").symlink_to("/usr/bin/sh")
    for name, place in (("sysctl", "usr/sbin"), ("sw_vers", "usr/bin"), ("uname", "usr/bin")):
        shutil.copy2(_HERE / "programs" / name, root / place / name)
    _record(mac, root)
    for name in _ETC:
        if Path("/etc", name).exists():
            shutil.copyfile(Path("/etc", name).resolve(), root / "etc" / name)
    (root / "etc/passwd").write_text(f"root:*:0:0:System Administrator:{HOME}:/bin/sh\n")
    (root / "etc/group").write_text("wheel:*:0:\n")
    for source, place in _binds(home):
        inside = root / str(place).lstrip("/")
        if source.is_dir():
            inside.mkdir(parents=True, exist_ok=True)
        else:
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
    for name in ("lib", "lib64"):
        if (link := Path("/", name)).is_symlink():
            (root / name).symlink_to(link.readlink())
    (home / "Library" / "Application Support").mkdir(parents=True, exist_ok=True)
    return Masked(mac, root, home, env)


def _record(mac: Mac, root: Path) -> None:
    """What the stand-ins and Python's mask read."""
    place = root / ".mask"
    place.joinpath("sysctl").write_text("".join(f"{name}: {value}\n" for name, value in mac.sysctl.items()))
    place.joinpath("product").write_text("".join(f"{line}\n" for line in mac.product))
    place.joinpath("uname").write_text("".join(f"{line}\n" for line in mac.uname))
    document = {"uname": mac.uname, "sysctl": dict(mac.sysctl), "free": mac.free, "inactive": mac.inactive}
    place.joinpath("mac.json").write_text(json.dumps(document))
    name, version, build = mac.product
    keys = {"ProductName": name, "ProductVersion": version, "ProductBuildVersion": build}
    (root / "System/Library/CoreServices/SystemVersion.plist").write_bytes(plistlib.dumps(keys))


def _binds(home: Path) -> list[tuple[Path, Path]]:
    """(this machine's, the Mac's): what Python and its libraries need, and the person's folder."""
    base = Path(sys.base_prefix)
    python = (
        [Path(sysconfig.get_path("stdlib")), Path(sys.executable).resolve()]
        if base == Path("/usr")
        else [base]
    )
    libraries = [path for path in _libraries() if path.is_dir()]
    environment = Path(sys.prefix).resolve()
    outside = [] if environment.is_relative_to(PROJECT.resolve()) else [environment]
    own = [*python, *libraries, PROJECT, *outside]
    return [
        *((path, path) for path in own),
        *((Path("/dev", name), Path("/dev", name)) for name in _DEVICES),
        (_HERE / "mask", Path("/.mask/python")),
        (Path("/proc"), Path("/.mask/proc")),
        (home, HOME),
    ]


def _libraries() -> list[Path]:
    """Where the dynamic linker looks, by their real places."""
    triplet = f"{platform.machine()}-linux-gnu"
    return [Path("/usr/lib64"), Path("/usr/lib", triplet)]
