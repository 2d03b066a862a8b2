"""An emulated PC whose emulator is a shell script: a real process, with a serial port and a work disk.

The work disk is a JSON file here: the job that `FakeDisk.make` wrote, and then what the script leaves.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lab.core import files
from lab.core.deadline import Deadline, check_cancelled
from lab.core.errors import BlockedError
from lab.rehearsal.pc import PcFacts, PcSpec
from lab.rehearsal.process import Sign
from lab.rehearsal.program import ProgramPc
from lab.rehearsal.rehearsal import Workshop
from lab.rehearsal.workdisk import Job, TaskResult

FACTS = PcFacts("bochs", "2.7", "corei7_haswell_4770")
NAME = "Bochs 2.7, corei7_haswell_4770"


@dataclass
class FakePc(ProgramPc):
    """`program` is the script that it runs in its folder; it ends well with status 0."""

    output: ClassVar[str] = "fake.out"
    errors: ClassVar[str] = "fake.out"

    def facts(self) -> PcFacts:
        if not self.program:
            raise BlockedError("`bochs` is not installed")
        return FACTS

    @property
    def sign(self) -> Sign:
        return Sign("-uuid", self.spec.uuid, re.compile(r"sh"))

    @property
    def logs(self) -> list[Path]:
        return [self.spec.folder / self.output, self.serial]

    def arguments(self, facts: PcFacts) -> list[str]:
        return ["sh", "-c", f"{self.program}\n:", "-uuid", self.spec.uuid, str(self.spec.disk)]

    def trouble(self, status: int | None) -> str:
        return "" if status == 0 else f"status {status}"


@dataclass
class FakeDisk:
    """What stands for lab.rehearsal.workdisk. `broken` is raised by `make` or `read`, by their names."""

    jobs: list[Job] = field(default_factory=list)
    images: list[Sequence[Path]] = field(default_factory=list)
    broken: dict[str, BaseException] = field(default_factory=dict)

    def make(self, target: Path, job: Job, images: Sequence[Path], deadline: Deadline) -> None:
        assert deadline.left > 0
        self.jobs.append(job)
        self.images.append(images)
        target.write_text("{}")
        if "make" in self.broken:
            raise self.broken["make"]

    def read(self, disk: Path, folder: Path, job: Job, deadline: Deadline) -> list[TaskResult]:
        check_cancelled()
        assert deadline.left > 0
        if "read" in self.broken:
            raise self.broken["read"]
        left = json.loads(disk.read_text())
        for name, content in left.get("files", {}).items():
            files.write_json(folder / name, content)
        results = []
        for task in job.tasks:
            status, document = left.get(task[0], (None, {}))
            results.append(TaskResult(task, status, document, "the last words of " + task[0]))
        return results


@dataclass
class FakePcs:
    """A workshop whose PCs run `script`."""

    disk: FakeDisk = field(default_factory=FakeDisk)
    script: str = ""
    made: list[FakePc] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @property
    def workshop(self) -> Workshop:
        return Workshop(self.pc, self.disk.make, self.disk.read)

    def pc(self, spec: PcSpec, bochs: str) -> FakePc:
        self.asked.append((spec.cpu, bochs))
        self.made.append(FakePc(spec, self.script))
        return self.made[-1]

    def leaves(self, **answers: Any) -> None:
        """Have it do a whole job: `answers` are what is on its disk then, by task or `files`."""
        lines = ["lab-task 1 started", 'lab-event {"kind": "started", "step": 1, "name": "host.cpu"}']
        lines += [
            'lab-event {"kind": "finished", "step": 1, "text": "a CPU"}',
            "lab-task 1 ended 0",
            "lab-end",
        ]
        self.does(*lines, **answers)

    def does(self, *lines: str, then: str = "", **answers: Any) -> None:
        """Have it say those lines, leave `answers`, and do `then`, a script."""
        say = "".join(f"printf '%s\\r\\n' {shlex.quote(line)} >>serial.log\n" for line in lines)
        content = shlex.quote(json.dumps(answers, default=str))
        self.script = f"{say}printf %s {content} >$2\n{then}"
