"""Which Debian archive the canary's packages are from: the one place that decides it.

The setting images.debian_mirror, else this machine's apt sources, else what a person was asked for once. No
address is built in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lab.config import Address
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError
from lab.core.files import read_object, write_json
from lab.core.web import shown
from lab.images import apt_sources, canary
from lab.workflow.session import Session

KEY = "images.debian_mirror"
HINT = (
    f"set {KEY} to the address of one, as apt has it; or bring the canary from a Linux machine: "
    "`invoke image.export canary FILE` there, `invoke image.import FILE` here"
)
_QUESTION = f"""\
The canary is made of Debian's packages, and this machine's apt sources name no Debian archive.
What you answer is asked for once, and kept; the setting {KEY} goes before it.
Address of a Debian mirror, as apt has it:"""
_SECONDS = 60.0
_ADDRESS = TypeAdapter[str](Address)


@dataclass(frozen=True)
class Mirror:
    """An archive's address as apt has it, and who named it."""

    address: str
    origin: str


def known(session: Session) -> Mirror | None:
    """The archive that is used here, None where none is known. Asks nobody."""
    settings = session.settings
    if settings.images.debian_mirror:
        return Mirror(settings.images.debian_mirror, settings.origins[KEY])
    if archive := apt_sources.debian_archive():
        return Mirror(archive, "this machine's apt sources")
    if kept := _kept(session):
        return Mirror(kept, f"asked for once, {_file(session)}")
    return None


def debian(session: Session) -> str:
    """The address of the archive; a person is asked for it where none is known.

    What is answered is kept once a signed release was read there. Raises BlockedError when nobody can be
    asked, nothing is answered, or no Debian archive answers there; UsageError for what is no address.
    """
    if mirror := known(session):
        return mirror.address
    answer = session.ask_for(_QUESTION).strip() if session.interactive else ""
    if not answer:
        raise BlockedError(
            "the canary is made of Debian's packages, and no Debian archive is known here", hint=HINT
        )
    try:
        address = _ADDRESS.validate_python(answer)
    except ValidationError as error:
        raise UsageError(
            f"{answer!r} is no address that begins with http:// or https://", hint=HINT
        ) from error
    with session.steps.step("mirror.check", shown(address)):
        canary.archive(address).check(Deadline.after(_SECONDS))
    asked = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(_file(session), {"address": address, "asked": asked})
    return address


def _kept(session: Session) -> str:
    """What was answered; empty where nothing was, or it cannot be read: then it is asked anew."""
    try:
        return _ADDRESS.validate_python(read_object(_file(session)).get("address", ""))
    except ValueError:
        return ""


def _file(session: Session) -> Path:
    return session.settings.state_dir / "debian-mirror.json"
