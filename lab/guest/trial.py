"""A container of an image made here: does Docker run one, and does KVM work inside it?

Both are asked of one container where they can be: starting one takes an emulated CPU seconds.
"""

from __future__ import annotations

import contextlib
import posixpath
import secrets
import shlex
import tempfile
from pathlib import Path

from lab.core import proc
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, DeadlineError, LabError
from lab.formats import oci, program
from lab.formats.cpio import CpioEntry
from lab.guest import docker, python
from lab.guest.ssh import Guest
from lab.probes.kvm import SECONDS_PER_MODE, Probe, parse_probe, script

OWNER_LABEL = "io.lab.uuid"
"""The label of what lab makes in Docker: the lab's UUID."""

_NOBODY = "65534:65534"
_TIDY_SECONDS = 30.0
# L1's own Python, or the one that lab brought there, mounted read-only, serves the probe: the image holds
# only these links, and places to mount it.
_LINKS = {name: CpioEntry.link(f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")}
_FOLDERS = {name: CpioEntry.folder() for name in ("usr", "python", "proc", "dev", "etc", "tmp")}


def container(guest: Guest, deadline: Deadline | None = None) -> None:
    """A container runs, and gives back a word used only now; nothing of it is left behind.

    Raises LabError when Docker does not load its image, does not run it, or something else comes out.
    """
    _run(guest, [], [], deadline)


def kvm(guest: Guest, deadline: Deadline) -> Probe:
    """The same, and the functional KVM probe in it, with `--device /dev/kvm`, as nobody in group kvm.

    Raises BlockedError when L1 has no /dev/kvm or no Python, LabError as `container` does.
    """
    owner = guest.run(["stat", "--format", "%g", "/dev/kvm"], check=False, deadline=deadline)
    if owner.status != 0:
        raise BlockedError("the VM has no /dev/kvm to hand to a container", hint="see the rung guest.kvm")
    options = ["--user", _NOBODY, "--cap-drop", "ALL", "--read-only"]
    options += ["--security-opt", "no-new-privileges", "--device", "/dev/kvm"]
    options += ["--group-add", owner.out.strip(), "--volume", "/usr:/usr:ro"]
    python3 = "/usr/bin/python3"
    if guest.terms.python:
        carried, *more = guest.terms.python
        options += ["--volume", f"{posixpath.dirname(carried)}:/python:ro"]
        python3 = shlex.join([f"/python/{posixpath.basename(carried)}", *more])
    probe = f"/proof && exec {python3} - --seconds {SECONDS_PER_MODE}"
    return parse_probe(_run(guest, options, ["sh", "-c", probe], deadline))


def _run(guest: Guest, options: list[str], command: list[str], deadline: Deadline | None) -> str:
    """What the container says after the word."""
    word = f"lab-container-{secrets.token_hex(12)}"
    reference = f"lab-proof:{secrets.token_hex(4)}"
    words = ["docker", "run", "--pull", "never", "--rm", "--interactive", "--network", "none"]
    owner = guest.terms.owner
    words += ["--label", f"{OWNER_LABEL}={owner}"] if owner else []
    words += [*options, reference, *command]
    arm64 = guest.run(["uname", "-m"], deadline=deadline).out.strip() == "aarch64"
    loaded = image(reference, word, owner, arm64=arm64)
    try:
        guest.run(["docker", "load", "--quiet"], stdin=loaded, deadline=deadline)
        out = guest.run(words, stdin=script("kvm_probe.py") if command else "", deadline=deadline).out
    except CommandError as error:
        lacking = python.explained(error)
        raise (docker.explained(error) if lacking is error else lacking) from error
    finally:
        with contextlib.suppress(DeadlineError):  # a VM that stands still is not waited for twice
            tidying = Deadline.after(_TIDY_SECONDS)
            guest.run(["docker", "image", "rm", "--force", reference], check=False, deadline=tidying)
    first, _, rest = out.partition("\n")
    if first.strip() != word:
        raise LabError(
            "a container ran and said something else than what its image holds",
            tail=proc.tail(f"expected {word}\ngot {out}"),
        )
    return rest


def image(reference: str, word: str, owner: str = "", *, arm64: bool = False) -> bytes:
    """An archive for `docker load`: a static program that writes `word`, and where L1's /usr goes.

    `owner` is the UUID of the lab that it is labelled with; `arm64` is what L1's processor is, if no x86.
    """
    with tempfile.TemporaryDirectory(prefix="lab-proof-") as folder:
        target = Path(folder) / "image.tar"
        greeter = CpioEntry.file(program.says(f"{word}\n", arm64=arm64), 0o755)
        entries = {"proof": greeter} | _LINKS | _FOLDERS
        labels = {"Labels": {OWNER_LABEL: owner}} if owner else {}
        config = {"Cmd": ["/proof"], **labels}
        architecture = "arm64" if arm64 else "amd64"
        oci.write(target, reference=reference, entries=entries, config=config, architecture=architecture)
        return target.read_bytes()
