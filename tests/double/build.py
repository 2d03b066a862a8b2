"""Builds the double's image from Debian packages, without Docker: `python -m tests.double.build TARGET.tar`.

Made once for a recipe and kept in `test-images` of lab's cache. Needs gcc (L2's screen has a helper in C).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.config import load
from lab.core import files, lock, proc
from lab.core.deadline import Deadline
from lab.formats import cpio, elf, oci
from lab.formats.cpio import CpioEntry
from lab.images import canary, debtree, mmdebstrap
from lab.images.debtree import LIBRARY_FOLDERS, DebianTree
from tests.double import pictures

HERE = Path(__file__).parent
REPOSITORY = "lab/double"
LABEL = "io.lab.double"
HOME = "home/androidusr"
USER, GROUP = 1300, 1301
PORTS = (4723, 5554, 5555, 5900, 6080, 9000)
EMULATOR = "opt/android/emulator"

_BUILD_SECONDS = 900.0
_TOOL_SECONDS = 300.0
_SPACE = 2 << 30
_SETUID, _RUN, _SECRET = 0o4755, 0o755, 0o440
_APP = f"{HOME}/docker-android"
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/android/emulator:/opt/android/platform-tools",
    "HOME": f"/{HOME}",
    "ANDROID_HOME": "/opt/android",
    "USERNAME": "androidusr",
    "WORK_PATH": f"/{HOME}",
    "SCRIPT_PATH": "docker-android",
    "APP_PATH": f"/{_APP}",
    "LOG_PATH": f"/{HOME}/logs",
    "WEB_LOG_PORT": "9000",
    "DEVICE_TYPE": "emulator",
    "DOCKER_ANDROID_VERSION": "double",
    "EMULATOR_ANDROID_VERSION": "14.0",
    "EMULATOR_API_LEVEL": "34",
    "EMULATOR_SYS_IMG": "x86_64",
    "EMULATOR_IMG_TYPE": "google_apis",
    "DISPLAY": ":0",
    "SCREEN_NUMBER": "0",
    # 1600x900 in the real one: fewer pixels are fewer seconds on an emulated processor.
    "SCREEN_WIDTH": "800",
    "SCREEN_HEIGHT": "680",
    "SCREEN_DEPTH": "24+32",
    "VNC_PORT": "5900",
    "WEB_VNC_PORT": "6080",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Image:
    """The cached image: `archive` is what `docker load` reads; ids are sha256:… digests."""

    folder: Path
    reference: str
    image_id: str
    layer: str
    layer_bytes: int

    @property
    def archive(self) -> Path:
        return self.folder / "image.tar"


def built(cache: Path | None = None, say: Callable[[str], None] = print) -> Image:
    """The image in `cache` (lab's own by default), built if it is not there; one process builds."""
    folder = (cache or load().cache_dir) / "test-images"
    recipe = recipe_hash()
    final = folder / f"double-{recipe[:12]}"
    with lock.when_free(lock.beside(final), "the test double's image", say=say):
        if not final.is_dir():
            files.require_space(folder, _SPACE, "the test double's image")
            with files.building(final) as work:
                _build(work, recipe)
    facts = files.read_json(final / "facts.json")
    return Image(final, **facts)


def recipe_hash() -> str:
    """Hex digest of everything the image is made from but Debian's packages."""
    digest = hashlib.sha256()
    builders = [Path(str(module.__file__)) for module in (canary, cpio, debtree, elf, oci)]
    sources = (path for path in HERE.rglob("*") if path.is_file() and path.suffix not in (".md", ".pyc"))
    for path in [*sorted(sources), *builders]:
        digest.update(f"{path.name}\0{files.sha256(path)}\0".encode())
    return digest.hexdigest()


def _build(work: Path, name: str) -> None:
    recipe = tomllib.loads((HERE / "recipe.toml").read_text())
    tar = work / "debian.tar"
    mmdebstrap.build(
        mmdebstrap.RootRecipe(suite=recipe["suite"], packages=recipe["packages"], variant="extract"),
        output=tar,
        log=work / "build.log",
        deadline=Deadline.after(_BUILD_SECONDS),
    )
    with DebianTree(tar) as tree:
        entries = container(tree, recipe, work)
    tar.unlink()
    reference = f"{REPOSITORY}:{name[:12]}"
    made = oci.write(work / "image.tar", reference=reference, entries=entries, config=config(name))
    facts = {
        "reference": reference,
        "image_id": made.image_id,
        "layer": made.layer,
        "layer_bytes": made.layer_bytes,
    }
    files.write_json(work / "facts.json", facts)


def container(tree: DebianTree, recipe: dict[str, Any], work: Path) -> dict[str, CpioEntry]:
    """The container's files by path."""
    wanted = recipe["container"]
    entries = dict(_programs(tree, [*wanted["programs"], *wanted["plugins"]]))
    entries["usr/bin/sudo"] = CpioEntry.file(tree.need("/usr/bin/sudo"), _SETUID)
    entries |= _programs(tree, [wanted["qemu"]])
    entries[f"{EMULATOR}/qemu/linux-x86_64/qemu-system-x86_64"] = entries.pop(wanted["qemu"].lstrip("/"))
    entries |= canary._busybox(tree, wanted["applets"])
    for name in wanted["firmware"]:
        found = (tree.read(f"{folder}/{name}") for folder in canary._FIRMWARE_FOLDERS)
        entries[f"usr/share/qemu/{name}"] = CpioEntry.file(next(filter(None, found)))
    for folder in wanted["trees"]:
        for path in tree.under(folder):
            if not path.startswith(tuple(wanted["without"])) and (data := tree.read(path)) is not None:
                entries[path.lstrip("/")] = CpioEntry.file(data)
    entries |= _python(tree, wanted)
    entries = _compiled(entries, work / "python")
    entries |= _own_files()
    entries[f"{EMULATOR}/vmlinuz"] = CpioEntry.file(canary._kernel(tree))
    entries[f"{EMULATOR}/initramfs"] = CpioEntry.file(cpio.pack(payload(tree, recipe, work)))
    return entries


def payload(tree: DebianTree, recipe: dict[str, Any], work: Path) -> dict[str, CpioEntry]:
    """L2's files by path; not compressed, since inflating would be L2's longest work."""
    wanted = recipe["l2"]
    entries = dict(canary._program(tree, wanted["adbd"], as_path="bin/adbd"))
    for program in wanted["programs"]:
        entries |= canary._program(tree, program, as_path=f"bin/{program.rpartition('/')[2]}")
    entries |= canary._busybox(tree, wanted["applets"])
    entries["bin/framebuffer"] = CpioEntry.file(_framebuffer(work), _RUN)
    for path in sorted((HERE / "l2" / "bin").iterdir()):
        entries[f"bin/{path.name}"] = CpioEntry.file(path.read_bytes(), _RUN)
    entries["init"] = CpioEntry.file((HERE / "l2" / "init").read_bytes(), _RUN)
    entries["etc/build.prop"] = CpioEntry.file((HERE / "l2" / "build.prop").read_bytes())
    for name, picture in pictures.ALL.items():
        entries[f"usr/share/double/{name}.gz"] = CpioEntry.file(pictures.raw(picture()))
    modules = dict(canary._modules(tree, wanted["modules"]))
    for name, data in modules.items():
        entries[f"lib/modules/{name}"] = CpioEntry.file(data)
    entries["lib/modules/order"] = CpioEntry.file("".join(f"{name}\n" for name in modules).encode())
    entries["etc/passwd"] = CpioEntry.file(b"root:x:0:0:root:/root:/bin/sh\n")
    entries["system"] = CpioEntry.link("/")
    entries |= {name: CpioEntry.folder() for name in ("dev", "proc", "sys", "run", "tmp", "root")}
    return entries


def _programs(tree: DebianTree, paths: list[str]) -> Iterator[tuple[str, CpioEntry]]:
    for path in paths:
        yield from canary._program(tree, path)


def _framebuffer(work: Path) -> bytes:
    target = work / "framebuffer"
    words = ["gcc", "-O2", "-Wall", "-s", "-o", target, HERE / "l2" / "framebuffer.c"]
    proc.run(words, deadline=Deadline.after(_TOOL_SECONDS))
    data = target.read_bytes()
    target.unlink()
    return data


def _python(tree: DebianTree, wanted: dict[str, Any]) -> Iterator[tuple[str, CpioEntry]]:
    """The standard library without what nobody here asks for, and the extensions somebody does."""
    folder = wanted["python"]
    for path in tree.under(folder):
        top = path.removeprefix(f"{folder}/").split("/")[0]
        if top not in wanted["python_without"] and (data := tree.read(path)) is not None:
            yield path.lstrip("/"), CpioEntry.file(data)
    paths = list(tree.under(f"{folder}/lib-dynload"))
    for name in wanted["python_extensions"]:
        # Some are part of the interpreter.
        for path in (path for path in paths if path.rpartition("/")[2].startswith(f"{name}.cpython")):
            yield from canary._program(tree, path)
    yield "usr/bin/python3", CpioEntry.link("python3.13")
    yield "usr/bin/supervisord", CpioEntry.file(tree.need("/usr/bin/supervisord"), _RUN)
    # supervisor imports it for plugins, of which there are none here; the real one takes a second to load.
    yield "usr/lib/python3/dist-packages/pkg_resources.py", CpioEntry.file(b"")


def _compiled(entries: dict[str, CpioEntry], work: Path) -> dict[str, CpioEntry]:
    """`entries` with compiled modules in the place of sources: an emulated processor compiles for seconds.

    The image's own Python compiles them, run from a copy of its files by its own loader.
    """
    for path, entry in cpio.with_folders(entries).items():
        target = work / path
        if entry.is_folder:
            target.mkdir(parents=True, exist_ok=True)
        elif entry.is_link:
            target.symlink_to(entry.data.decode())
        else:
            target.write_bytes(entry.data)
            target.chmod(entry.permissions & 0o777)
    libraries = ":".join(f"{work}{folder}" for folder in LIBRARY_FOLDERS)
    loader = [work / "lib64/ld-linux-x86-64.so.2", "--library-path", libraries, work / "usr/bin/python3.13"]
    folders = [work / "usr/lib/python3.13", work / "usr/lib/python3"]
    words = ["-I", "-m", "compileall", "-q", "-b", "-f", "-s", work, "-p", "/"]
    proc.run(
        [*loader, *words, "--invalidation-mode=unchecked-hash", *folders],
        deadline=Deadline.after(_TOOL_SECONDS),
        env={"PYTHONHOME": str(work / "usr")},
    )
    kept = {path: entry for path, entry in entries.items() if not path.endswith(".py")}
    for path in [path for path in entries if path.endswith(".py")]:
        module = (work / path).with_suffix(".pyc")
        if path.startswith("usr/lib/") and module.exists():
            kept[f"{path}c"] = CpioEntry.file(module.read_bytes())
    shutil.rmtree(work)
    return kept


def _own_files() -> dict[str, CpioEntry]:
    """What is not Debian's: docker-android's program and its surroundings."""

    def own(name: str, permissions: int = 0o644) -> CpioEntry:
        return CpioEntry.file((HERE / "container" / name).read_bytes(), permissions)

    user = f"androidusr:x:{USER}:{GROUP}::/{HOME}:/bin/sh"
    entries = {
        "usr/local/bin/docker-android": own("docker_android.py", _RUN),
        "usr/local/bin/screen": own("screen.py", _RUN),
        f"{EMULATOR}/emulator": own("emulator.py", _RUN),
        "usr/bin/emulator": CpioEntry.link(f"/{EMULATOR}/emulator"),
        "usr/bin/adb": CpioEntry.link("/usr/lib/android-sdk/platform-tools/adb"),
        "opt/android/platform-tools/adb": CpioEntry.link("/usr/lib/android-sdk/platform-tools/adb"),
        "opt/noVNC": CpioEntry.link("/usr/share/novnc"),
        "usr/share/novnc/index.html": CpioEntry.link("vnc.html"),
        "usr/share/novnc/utils/novnc_proxy": own("novnc_proxy", _RUN),
        f"{_APP}/mixins/scripts/run.sh": own("run.sh", _RUN),
        # Debian's /lib is a link, and PAM looks for its modules there.
        "lib/x86_64-linux-gnu": CpioEntry.link("/usr/lib/x86_64-linux-gnu"),
        # A busybox shell would prefer busybox's own ps to Debian's.
        "bin/sh": CpioEntry.link("/usr/bin/dash"),
        "bin/bash": CpioEntry.link("/usr/bin/bash"),
        "usr/bin/pkill": CpioEntry.link("pgrep"),
        "etc/passwd": CpioEntry.file(f"root:x:0:0:root:/root:/bin/sh\n{user}\n".encode()),
        "etc/group": CpioEntry.file(f"root:x:0:\nandroidusr:x:{GROUP}:\n".encode()),
        "etc/nsswitch.conf": CpioEntry.file(
            b"passwd: files\ngroup: files\nhosts: files dns\nsudoers: files\n"
        ),
        "etc/sudoers": CpioEntry.file(b"androidusr ALL=(ALL) NOPASSWD: ALL\n", _SECRET),
        "etc/sudo.conf": CpioEntry.file(b""),
        "etc/pam.d/sudo": CpioEntry.file(
            "".join(f"{kind} required pam_permit.so\n" for kind in ("auth", "account", "session")).encode()
        ),
        "tmp": CpioEntry.folder(0o1777),
        "run": CpioEntry.folder(),
        "run/sudo": CpioEntry.folder(0o711),
        # The real image's belongs to its user; entries here are root's, so everybody may write.
        HOME: CpioEntry.folder(0o1777),
        f"{HOME}/logs": CpioEntry.folder(0o1777),
    }
    for name in ("base", "port", "screen"):
        entries[f"{_APP}/mixins/configs/process/supervisord-{name}.conf"] = own(f"supervisord-{name}.conf")
    return entries


def config(name: str) -> dict[str, Any]:
    """The image's configuration in Docker's words, `name` its recipe's hash.

    Like the real one it has no health check.
    """
    return {
        "Cmd": [f"/{_APP}/mixins/scripts/run.sh"],
        "Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
        "ExposedPorts": {f"{port}/tcp": {} for port in PORTS},
        "Labels": {LABEL: "1", "io.lab.android": "not Android", "io.lab.recipe": name},
        "StopSignal": "SIGTERM",
        "User": f"{USER}:{GROUP}",
        "WorkingDir": f"/{HOME}",
    }


def main() -> None:
    image = built()
    if len(sys.argv) > 1:
        shutil.copyfile(image.archive, sys.argv[1])
    named = {"archive": str(image.archive), "reference": image.reference, "image_id": image.image_id}
    print(json.dumps(named))


if __name__ == "__main__":
    main()
