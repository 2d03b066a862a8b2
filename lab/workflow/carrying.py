"""A Python for an attached machine that has none: built here once, put into lab's own folder there."""

from __future__ import annotations

from collections.abc import Mapping

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, LabError
from lab.guest import python
from lab.guest.ssh import Guest, Progress
from lab.images import cache as images
from lab.images import carried_python
from lab.images.canary_recipe import Architecture
from lab.workflow import mirror
from lab.workflow.session import Session

_MACHINES: Mapping[str, Architecture] = {"x86_64": "amd64", "aarch64": "arm64"}
"""A machine, as `uname -m` says, and what Debian calls the Python for it."""
_SECONDS = 900.0
_HINT = "or install it there: python3, 3.6 or newer, with its whole standard library"
# A copy cut short is never taken for the whole. The first run compiles what the scripts import.
_UNPACK = """
set -e
cd "$1"
rm -rf "$2" "$2.part"
mkdir -m 755 "$2.part"
tar -xzf "$2.tar.gz" -C "$2.part"
"$2.part/$3" -c "$4"
mv "$2.part" "$2"
rm "$2.tar.gz"
"""


def words(session: Session, guest: Guest, why: str) -> tuple[str, ...]:
    """The words that start the Python that lab has in its folder in the machine; brought now, if needed.

    `why` is what the machine's own lacks. Raises BlockedError: there is no such Python for the machine, its
    packages cannot be had, or it does not run there; LabError.
    """
    machine = guest.run(["uname", "-m"]).out.strip()
    if machine not in _MACHINES:
        raise BlockedError(
            f"lab cannot look into the machine: {why}, and lab has none for {machine}", hint=_HINT
        )
    with session.steps.step("python.carry", why) as step:
        image = carried_python.find(session.images, _MACHINES[machine])
        if image is None:
            try:
                debian = mirror.debian(session)
                image = carried_python.build(session.images, step, debian, _MACHINES[machine])
            except BlockedError as error:
                what = f"lab cannot look into the machine: {why}, and no Python can be brought: {error.what}"
                raise BlockedError(what, hint=f"{error.hint}; {_HINT}", tail=error.tail) from error
        program = f"{guest.terms.folder}/{image.id}/{carried_python.PROGRAM}"
        if guest.run(["test", "-x", program], check=False).status != 0:
            _bring(guest, image, step.progress)
        step.result = f"{image.id}, in {guest.terms.folder}"
    return program, "-B"


def _bring(guest: Guest, image: images.CachedImage, on_progress: Progress) -> None:
    images.check(image)
    folder, deadline = guest.terms.folder, Deadline.after(_SECONDS)
    guest.put(image.path, f"{folder}/{image.id}.tar.gz", on_progress, deadline)
    imports = f"import {', '.join(python.modules())}"
    unpack = ["sh", "-c", _UNPACK, "unpack", folder, image.id, carried_python.PROGRAM, imports]
    done = guest.run(unpack, check=False, deadline=deadline)
    if done.status != 0:
        raise LabError(
            "the Python that lab brought does not run in the machine",
            tail=done.err.strip(),
            hint=f"is {folder} on a file system that programs may not be started from (noexec)? {_HINT}",
        )
