#!/srv/lab/.venv/bin/python
"""A task of lab's on a masked Mac with the emulated PC's own VirtualBox. Runs in that PC, as root:

    on_mac.py TRANSPORT TASK WORD…        how VirtualBox is spoken to: VBoxManage or vboxapi

The Mac is made where there is none yet: both transports have the same home, a root each. Meanwhile the
image's publisher is on this PC's loopback. The task's answer, status and events are this program's.
"""

from __future__ import annotations

import functools
import os
import shutil
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

FILES = Path(__file__).resolve().parent
sys.path[:0] = [str(FILES), "/srv/lab"]

from tests.integration.darwin import HOME, MACS, Masked, app, disguise  # noqa: E402

MAC = "intel-13"
MANIFEST = tomllib.loads((FILES / "manifest.toml").read_text())
NAME, BASE = str(MANIFEST["name"]), urlsplit(str(MANIFEST["base"]))
"""Of the published image: its name, as `--image` takes it, and where its publisher listens."""
ROOTS, HOME_HERE = Path("/srv/mac"), Path("/srv/mac/home")
CACHE, STATE = HOME_HERE / "Library/Caches/lab", HOME_HERE / "Library/Application Support/lab"
OUT = Path("/srv/out/host")
_SECONDS = 36_000.0
"""Who switches the PC off decides sooner."""


class Publisher(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        with (OUT / "publisher.txt").open("a") as stream:
            stream.write(format % args + "\n")


@contextmanager
def publisher() -> Iterator[None]:
    """Serve the folder `published` over https."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(FILES / "server.pem")
    handler = functools.partial(Publisher, directory=str(FILES / "published"))
    with ThreadingHTTPServer((str(BASE.hostname), BASE.port or 443), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


def make_home() -> None:
    """The person's folder: a checkout that knows the publisher's image, and the canary in the cache."""
    checkout = HOME_HERE / "src/lab"
    shutil.copytree("/srv/lab", checkout, symlinks=True)
    guest = checkout / "images/guest"
    shutil.copyfile(FILES / "manifest.toml", guest / f"{NAME}.toml")
    shutil.copyfile(FILES / "key.gpg", guest / f"keys/{NAME}.gpg")
    shutil.copyfile(FILES / "trusted.pem", HOME_HERE / "trusted.pem")
    CACHE.mkdir(parents=True)
    Path("/srv/cache/images").rename(CACHE / "images")
    # VirtualBox has the home at the Mac's place, too, which is made on a disk that forgets it.
    subprocess.run(["mount", "-o", "remount,rw", "/"], check=True)


def mac(transport: str) -> Masked:
    root, env = ROOTS / transport, settings(transport)
    if root.is_dir():
        return Masked(MACS[MAC], root, HOME_HERE, env)
    if not HOME_HERE.is_dir():
        make_home()
    root.mkdir()
    masked = disguise(MACS[MAC], root, HOME_HERE, **env)
    app.install(masked, app.Linux(1, Path("/")), glue=transport == "vboxapi")
    return masked


def settings(transport: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name.startswith("LAB_")}
    if transport == "vboxapi":
        own["LAB_VIRTUALBOX__PYTHON"] = str(app.PYTHON)
    return own | {"LAB_IMAGE": NAME, "REQUESTS_CA_BUNDLE": f"{HOME}/trusted.pem"}


def events() -> str:
    """The file for the task's events, by a name that it has on the Mac."""
    here = HOME_HERE / "events"
    here.unlink(missing_ok=True)
    here.hardlink_to(os.environ["LAB_EVENTS"])
    return str(HOME / "events")


def keep() -> None:
    """Put what is to be looked at where the PC's results are taken from."""
    for run in STATE.glob("evidence/*/*"):
        shutil.copytree(
            run, Path("/srv/state/evidence") / run.relative_to(STATE / "evidence"), dirs_exist_ok=True
        )
    for log in (HOME_HERE / "Library/VirtualBox").glob("*.log"):
        shutil.copyfile(log, OUT / log.name)


def main() -> int:
    transport, *words = sys.argv[1:]
    masked = mac(transport)
    with publisher():
        done = masked.lab(*words, seconds=_SECONDS, LAB_EVENTS=events())
    sys.stdout.write(done.out)
    sys.stderr.write(done.err)
    keep()
    return done.status


if __name__ == "__main__":
    sys.exit(main())
