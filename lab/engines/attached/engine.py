"""lab.engines.protocol.Engine for machines that are somebody's."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.core.errors import InconclusiveError
from lab.core.journal import Journal
from lab.engines.attached import NAME, link, words
from lab.engines.attached.machine import AttachedMachine
from lab.engines.protocol import Availability, EngineFacts, EngineFinding, MachineSpec


class AttachedEngine:
    """`folder` is the engine's own of the lab that is meant: what a machine is, is in there."""

    name = NAME

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def availability(self) -> Availability:
        known = link.read(self._folder)
        if known is None:
            return Availability(False, "no machine was attached", "`invoke lab.attach --ssh DESTINATION`")
        if known.here and sys.platform != "linux":
            return Availability(False, "this machine runs no Linux", "attach a Linux machine by --ssh")
        if not known.here and not shutil.which("ssh"):
            return Availability(False, "`ssh` is not installed", "install OpenSSH's client")
        return Availability(True, f"{known} is attached")

    def facts(self) -> EngineFacts:
        known = link.read(self._folder)
        if known is None or known.about is None:
            raise InconclusiveError("what the attached machine is was not looked at yet")
        facts = known.about
        kind, nesting = words.described(facts), words.nesting(facts)
        details = {"virtualization": facts.virtualization, "python": facts.python, "nested": facts.nested}
        if known.docker:
            details["docker"] = str(known.docker)
        how = {
            "none": "it was given no virtualization extensions",
            "hardware": f"{facts.under} hands virtualization on to it",
            "emulated": "its processor is software, which emulates virtualization too",
        }[nesting]
        if not facts.under:
            how = "nothing is nested: its own processor runs the container's guest"
        return EngineFacts(
            engine=NAME,
            version=words.version(known),
            acceleration=words.acceleration(facts),
            nesting=nesting,
            how=f"{kind} that lab did not make: {how}",
            details=details,
        )

    def findings(self, folders: Sequence[Path]) -> list[EngineFinding]:  # noqa: ARG002
        return []

    def caution(self) -> str:
        return ""

    def machine(self, spec: MachineSpec, journal: Journal) -> AttachedMachine:  # noqa: ARG002
        return AttachedMachine(spec)
