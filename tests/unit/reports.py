"""What the reports' tests report: documents made by the ladder itself, one for each way it can end."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from lab.core.errors import BlockedError, DeadlineError
from lab.core.steps import Steps
from lab.documents.reports import (
    PastClaim,
    PastRun,
    ReportComparison,
    ReportExperiment,
    ReportMeasure,
    ReportRatio,
    ReportSource,
    ReportStage,
    ReportTrial,
)
from lab.ladder.climb import Climb, climb
from lab.ladder.report import document
from lab.ladder.rungs import LADDER
from lab.ladder.verdict import judge
from lab.model.domain import Cell, Claim, Host, Nesting, Observation, Outcome, Verdict
from lab.reports import ReportInput
from lab.reports.model import ReportedRun
from lab.reports.spans import Timeline, timeline
from lab.theory.answers import Prediction
from lab.theory.knowledge import Outlook
from tests.unit.differences import differing

NAMES = LADDER.names

AT = datetime(2026, 11, 25, 22, 57, 33, tzinfo=UTC)
CANARY = Cell(
    Host("linux", "Debian GNU/Linux 12", "6.1.0-28-amd64", "AMD EPYC"),
    "qemu",
    "7.2.22",
    "tcg",
    Nesting.EMULATED,
    True,
    "none",
    "debian-13-af8bebca3cc7",
    "canary",
    "canary@sha256:4bd51b99",
)
MAC = Cell(
    Host("macos", "macOS 13.7", "22.6.0", "Intel(R) Core(TM) i9-9880H CPU @ 2.30GHz"),
    "virtualbox",
    "7.2.22",
    "hvf",
    Nesting.HARDWARE,
    False,
    "kvm",
    "ubuntu-24.04-20261101",
    "docker-android",
    "budtmo/docker-android@sha256:0f1e",
    True,
)
SEEN: dict[str, Observation] = {
    "host.cpu": Observation(
        False,
        "a processor that offers vmx or svm (on macOS: Hypervisor.framework)",
        "AMD EPYC: no vmx or svm, itself in a virtual machine",
        "an engine that emulates the processor still works, slowly",
    ),
    "host.engine": Observation(
        True,
        "an engine that can start a 64-bit x86 VM",
        "qemu 7.2.22, tcg: emulation, because KVM is not usable here (QEMU ended before its guest reached "
        "user space: qemu-system-x86_64: ../../target/i386/kvm/kvm.c:3183: kvm_buf_set_msrs: Assertion "
        "failed.); it emulates AMD-V, and offers guests no paravirtualization",
    ),
    "vm.settings": Observation(
        True,
        "cpus 2, memory_mib 4096, nested on",
        "acceleration tcg, cpu_type max-x86_64-cpu, cpus 2, memory_mib 4096, nested on, "
        "nested_extension svm, paravirt none, uuid 1a5b673e-8b32-4fcf-9b9c-11f600938adf, version 7.2.22",
    ),
    "vm.boot": Observation(
        True,
        "a login over SSH, the host key as pinned, and the boot over",
        "Linux 6.12.117+deb13-cloud-amd64, up 32 s, running, host key as pinned",
    ),
    "guest.paravirt": Observation(
        False,
        "KVM's signature, and kvm-clock on offer",
        "hypervisor signature TCGTCGTCGTCG, clocksource tsc of tsc, hpet, acpi_pm",
    ),
    "guest.cpu": Observation(True, "vmx or svm among the VM's cpu flags", "svm, nested paging"),
    "guest.kvm": Observation(
        True,
        "a tiny guest runs to HLT, entered in real mode and in long mode",
        "real mode: runs; long mode: runs",
    ),
    "docker.engine": Observation(
        True,
        "Docker runs a container from an image made by lab",
        "Docker 26.1.5+dfsg1 ran a container of lab's own image (overlay2)",
    ),
    "container.kvm": Observation(
        True,
        "the tiny guest runs in a container with --device /dev/kvm",
        "real mode: runs; long mode: runs",
    ),
    "nested.boot": Observation(
        True,
        "L2 runs under KVM: signature KVMKVMKVM, kvm-clock, a kernel of its own",
        "signature KVMKVMKVM, kvm-clock, Linux 6.12.117+deb13-cloud-amd64, 7.5 s from launch",
        evidence=["container.log"],
    ),
    "nested.adb": Observation(
        True,
        "ADB at 127.0.0.1:15555 gives the nonce back from an L2 under KVM, boot completed",
        "127.0.0.1:15555: nonce returned, signature KVMKVMKVM, kvm-clock, Linux 6.12.117+deb13-cloud-amd64",
    ),
    "android.boot": Observation(True, "sys.boot_completed=1", "Android 14, sys.boot_completed=1 after 212 s"),
    "android.usable": Observation(True, "an app starts and is seen", "the launcher is in front, screen seen"),
}
"""What the embedded engine gives on a machine without KVM, rung by rung; Android's are made up."""
ON_MAC: dict[str, Observation] = {
    "host.cpu": Observation(True, SEEN["host.cpu"].expected, f"{MAC.host.cpu}: vmx"),
    "host.engine": Observation(
        True, SEEN["host.engine"].expected, "virtualbox 7.2.22, hvf: Hypervisor.framework"
    ),
    "guest.paravirt": Observation(
        True,
        SEEN["guest.paravirt"].expected,
        "hypervisor signature KVMKVMKVM, clocksource kvm-clock of kvm-clock, tsc, acpi_pm",
    ),
    "guest.cpu": Observation(True, SEEN["guest.cpu"].expected, "vmx, nested paging"),
}
"""What another host gives instead, made up too."""
FACTS: dict[str, Any] = {
    "vm.settings": {"cpus": "2", "memory_mib": "4096", "nested": "on", "paravirt": "none"},
    "vm.boot": {"kernel": "Linux 6.12.117+deb13-cloud-amd64"},
    "nested.boot": {"seconds": 7.5, "acceleration": "kvm"},
    "nested.compare": {"with_kvm_seconds": 7.6, "without_kvm_seconds": 88.1, "ratio": 11.59, "n": 1},
}


Fate = Callable[[], Observation]


def late() -> Observation:
    raise DeadlineError(
        "ADB did not answer in 120 s", hint="`invoke lab.logs --source l2` shows L2's console"
    )


def absent() -> Observation:
    raise BlockedError("qemu is not installed", hint="apt-get install qemu-system-x86")


def fails(observed: str, hint: str = "") -> Fate:
    return lambda: Observation(False, "that it works", observed, hint)


def made(
    cell: Cell = CANARY,
    claim: Claim = Claim.NESTING,
    *,
    fates: Mapping[str, Fate] | None = None,
    until: str = "",
    facts: Mapping[str, Any] | None = None,
    name: str = "default",
    at: datetime = AT,
) -> dict[str, Any]:
    """lab.validation/1 of a climb as in SEEN but for `fates`, cut short after rung `until`."""
    seen = SEEN | (ON_MAC if cell.host.system == "macos" else {})
    checks: dict[str, Fate] = {rung: (lambda one=one: one) for rung, one in seen.items()}  # type: ignore[misc]
    skip = {} if cell.android else dict.fromkeys(("android.boot", "android.usable"), "canary is not Android")
    climbed = climb({**checks, **(fates or {})}, steps=Steps(), skip=skip)
    outcomes = climbed.outcomes[: NAMES.index(until) + 1] if until else climbed.outcomes
    outcomes = [dataclasses.replace(one, seconds=_took(one)) for one in outcomes]
    return document(
        lab_name=name,
        lab_uuid="0b0e7a52-7a2c-4f0c-9f2e-0f6e0a3f8f11",
        cell=cell,
        climbed=Climb(outcomes, climbed.errors),
        claims=judge(outcomes, cell, cell.emulator),
        claim=claim,
        started=at,
        ended=at + timedelta(seconds=97.4),
        facts=facts if facts is not None else FACTS,
    )


def _took(outcome: Outcome) -> float:
    """As long as it really takes, where something was done at all."""
    real = {"vm.boot": 33.7, "docker.engine": 37.5, "nested.boot": 20.0, "guest.paravirt": 1.8}
    return real.get(outcome.rung, 0.1) if outcome.tried else 0.0


DOCUMENTS: dict[str, dict[str, Any]] = {
    "confirmed": made(),
    "theory confirmed": made(MAC, Claim.THEORY, facts={}),
    "refuted": made(
        MAC,
        Claim.ANDROID,
        fates={
            "guest.kvm": fails(
                "real mode: entry failed, hardware error 0xffffffff; long mode: runs",
                "/dev/kvm being there is not enough; dmesg.txt has the kernel's own words",
            )
        },
        facts={},
    ),
    "blocked": made(
        dataclasses.replace(CANARY, engine_version="", acceleration="", nesting=Nesting.NONE, emulated=False),
        fates={"host.engine": absent},
        facts={},
    ),
    "inconclusive": made(fates={"nested.adb": late}),
    "cut short": made(until="docker.engine"),
    "not applicable": made(claim=Claim.THEORY),
    "android blocked": made(claim=Claim.ANDROID),
}
"""By what came of it: every verdict, every status, and a run that was cut short."""
VERDICTS = {
    "confirmed": Verdict.CONFIRMED,
    "theory confirmed": Verdict.CONFIRMED,
    "refuted": Verdict.REFUTED,
    "blocked": Verdict.BLOCKED,
    "inconclusive": Verdict.INCONCLUSIVE,
    "cut short": Verdict.INCONCLUSIVE,
    "not applicable": Verdict.NOT_APPLICABLE,
    "android blocked": Verdict.BLOCKED,
}
_STEPS = (
    # name, parent (by name), start, seconds
    ("host.cpu", "", 0.0, 0.02),
    ("host.engine", "", 0.03, 0.2),
    ("emulator.prepare", "host.engine", 0.05, 0.04),
    ("vm.settings", "", 0.3, 0.2),
    ("vm.create", "vm.settings", 0.3, 0.03),
    ("vm.start", "vm.settings", 0.35, 0.1),
    ("vm.boot", "", 0.5, 33.7),
    ("emulator.upload", "vm.boot", 22.9, 11.6),
    ("docker.install", "vm.boot", 23.0, 49.6),
    ("guest.paravirt", "", 34.3, 1.8),
    ("guest.cpu", "", 36.1, 0.01),
    ("guest.kvm", "", 36.2, 0.02),
    ("docker.engine", "", 36.3, 37.5),
    ("emulator.load", "vm.boot", 72.6, 14.7),
    ("container.kvm", "", 73.8, 0.02),
    ("nested.boot", "", 73.9, 20.0),
    ("emulator.start", "nested.boot", 74.0, 5.9),
    ("nested.adb", "", 93.9, 0.3),
    ("evidence", "", 94.2, 3.4),
)


def steps(failing: str = "") -> Timeline:
    """The steps of a real run, with one of them failing."""
    numbers = {name: number for number, (name, *_) in enumerate(_STEPS, 1)}
    events: list[tuple[float, dict[str, Any]]] = []
    for name, parent, start, took in _STEPS:
        common = {"step": numbers[name], "parent": numbers.get(parent, 0), "name": name, "text": ""}
        end = "failed" if name == failing else "finished"
        events.append((start, common | {"kind": "started", "seconds": 0.0}))
        events.append((start + took, common | {"kind": end, "seconds": took, "text": f"what {name} said"}))
    events.sort(key=lambda event: event[0])
    return timeline(event | {"at": AT + timedelta(seconds=moment)} for moment, event in events)


def kept(folder: Path, found: Mapping[str, Any], *, started: datetime = AT) -> Path:
    """An evidence folder as a run leaves it: document, steps, a log or two, a screenshot."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(
        json.dumps({"lab": folder.parent.name, "verb": "up", "started": started.isoformat()})
    )
    (folder / "validation.json").write_text(json.dumps(found))
    for name in ("console.log", "dmesg.txt", "container.log", "host.json", "a file, by name: odd.txt"):
        (folder / name).write_text(f"{name}\n")
    screen = Image.new("RGB", (720, 400), (12, 12, 12))
    screen.paste((200, 200, 200), (20, 20, 380, 34))
    screen.save(folder / "screenshot.png")
    return folder


def full(name: str = "confirmed", folder: Path | None = None) -> ReportInput:
    """An input with everything a report can show."""
    failing = {"refuted": "guest.kvm", "inconclusive": "nested.adb"}.get(name, "")
    files = tuple(sorted(item.name for item in folder.iterdir())) if folder else ()
    run = ReportedRun(DOCUMENTS[name], folder, files, steps(failing))
    cells = [
        "qemu 7.2.21 (tcg, nesting emulated in software)",
        "qemu 7.2.22 (tcg, nesting emulated in software)",
    ]
    words = ["confirmed"] * 9 + ["inconclusive", "confirmed", "refuted", "blocked"] + ["confirmed"] * 12
    history = tuple(
        PastRun(
            when=AT - timedelta(days=len(words) - 1 - index),
            verdicts=[PastClaim(claim=Claim.NESTING, verdict=word)],
            note="",
            cell=cells[index > 10],
            nested_boot_seconds=7.0 + (index * 37 % 11) / 5 if word == "confirmed" else None,
        )
        for index, word in enumerate(words)
    )
    return ReportInput(
        (run,),
        difference=differing() if name in ("refuted", "inconclusive") else None,
        predictions=(
            Prediction(
                claim=Claim.NESTING,
                predicted=Outlook.CONFIRMED,
                why="QEMU emulates AMD-V, nested paging included, and Linux's KVM runs on it",
                source="qemu: target/i386/tcg/sysemu/svm_helper.c",
                grade="measured",
            ),
            Prediction(
                claim=Claim.ANDROID,
                predicted=Outlook.UNKNOWN,
                why="nobody has said what becomes of Android there",
                source="",
                grade="inference",
            ),
        ),
        history=history,
        comparison=ReportComparison(
            measures=(
                ReportMeasure(name="L2's boot with KVM", seconds=(7.6, 7.4, 7.9), note=""),
                ReportMeasure(
                    name="L2's boot without KVM", seconds=(88.1, 91.0), note="one of three timed out"
                ),
            ),
            ratios=(ReportRatio(name="without KVM over with it", ratio=11.7, n=2, low=11.2, high=12.3),),
            note="the ARM emulator cannot run here",
            source=ReportSource(run="20261126T071200.000Z-compare", lab="default", when=AT),
        ),
        android=(
            ReportStage(name="container", seconds=0.0),
            ReportStage(name="kvm-open", seconds=3.2),
            ReportStage(name="adb-online", seconds=41.0),
            ReportStage(name="boot-completed", seconds=212.5),
            ReportStage(name="launcher", seconds=None),
        ),
        experiment=ReportExperiment(
            sentence="/dev/kvm worked in every cell with nesting and in none without: nesting decides.",
            trials=tuple(
                ReportTrial(paravirt=paravirt, nested=nested, runs=3, worked=3 if nested else 0, note="")
                for paravirt in ("kvm", "none", "default")
                for nested in (True, False)
            ),
            seed=20261125,
            source=ReportSource(run="20261126T072212.419Z-experiment", lab="experiment", when=AT),
        ),
        written=AT + timedelta(minutes=2),
    )


HOSTILE = (
    "<script>alert(1)</script>",
    "</style></svg></title><i-was-here onmouseover=alert(1)>",
    "\"><img src=x onerror='alert(1)'>",
    "{{ 7 * 7 }} {% raw %} &amp; &lt;b&gt; &#60;i-was-here&#62;",
    "| a | b |\n| --- | --- |\n[x](javascript:alert(1)) ![x](http://evil.example/x.png) <http://evil.example>",
    "]]> <!-- --> <![CDATA[ ?> \x00\x07\x1b[31m\x85\ufffe \u202etxt.exe \ud800",
    "# heading\n\n- item\n\n```\n1. one\n---\n`a` *b* _c_ ~~d~~",
    "javascript:alert(1)",
    "../../../etc/passwd",
    "a very long word " + "x" * 400,
    "長い名前 " * 20 + "🙂",
)
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(), max_size=40))
SAID = TEXTS.filter(lambda text: bool(text.strip()))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Any way a climb can end, saying anything."""
    fates: dict[str, Fate] = {}
    for name in NAMES:
        said, expected, hint = draw(SAID), draw(SAID), draw(TEXTS)
        files = draw(st.lists(TEXTS, max_size=2))
        fate = draw(st.sampled_from(("passed", "passed", "passed", "failed", "late", "absent", "bug")))
        fates[name] = _fate(fate, said, expected, hint, files)
    cell = draw(st.sampled_from((CANARY, MAC)))
    cell = dataclasses.replace(
        cell,
        host=dataclasses.replace(cell.host, os=draw(SAID), kernel=draw(TEXTS), cpu=draw(TEXTS)),
        engine_version=draw(TEXTS),
        image=draw(TEXTS),
        acceleration=draw(TEXTS),
    )
    facts = {
        "vm.boot": {"kernel": draw(TEXTS)},
        "vm.settings": {"cpus": draw(TEXTS)},
        draw(TEXTS): draw(TEXTS),
    }
    until = draw(st.sampled_from(("", "", "", *NAMES)))
    claim = draw(st.sampled_from(list(Claim)))
    return made(cell, claim, fates=fates, until=until, facts=facts, name=draw(SAID))


def _fate(fate: str, said: str, expected: str, hint: str, files: list[str]) -> Fate:
    errors: dict[str, Exception] = {
        "late": DeadlineError(said, hint=hint, evidence=files),
        "absent": BlockedError(said, hint=hint, evidence=files),
        "bug": ValueError(said),
    }

    def check() -> Observation:
        if fate in errors:
            raise errors[fate]
        return Observation(fate == "passed", expected, said, hint, files)

    return check


@st.composite
def inputs(draw: st.DrawFn) -> ReportInput:
    """A report of anything, with anything beside it."""
    found = draw(documents())
    names = st.tuples(st.sampled_from(("vm.boot", "work")), TEXTS).map("".join)
    events = [
        {
            "kind": draw(st.sampled_from(("started", "finished", "failed"))),
            "step": draw(st.integers(1, 4)),
            "parent": draw(st.integers(0, 4)),
            "name": draw(names),
            "at": AT + timedelta(seconds=draw(st.floats(-5, 500))),
            "seconds": draw(st.floats(0, 500)),
            "text": draw(TEXTS),
        }
        for _ in range(draw(st.integers(0, 8)))
    ]
    measured = st.one_of(st.none(), st.floats(0, 1e5))
    claims = draw(st.lists(st.sampled_from(Claim), unique=True))
    history = tuple(
        PastRun(
            when=AT + timedelta(days=day),
            verdicts=[PastClaim(claim=claim, verdict=draw(st.sampled_from(Verdict))) for claim in claims],
            cell=draw(TEXTS),
            nested_boot_seconds=draw(measured),
            note=draw(TEXTS),
        )
        for day in range(draw(st.integers(0, 3)))
    )
    files = tuple(draw(st.lists(TEXTS, max_size=2)))
    prediction = Prediction(
        claim=draw(st.sampled_from(list(Claim))),
        predicted=draw(st.sampled_from(list(Outlook))),
        why=draw(TEXTS),
        source=draw(TEXTS),
        grade=draw(TEXTS),
    )
    trial = ReportTrial(paravirt=draw(TEXTS), nested=draw(st.booleans()), runs=2, worked=1, note=draw(TEXTS))
    return ReportInput(
        (ReportedRun(found, Path("/nowhere/evidence"), files, timeline(events)),),
        predictions=(prediction,),
        history=history,
        comparison=ReportComparison(
            measures=(ReportMeasure(name=draw(TEXTS), seconds=(), note=draw(TEXTS)),),
            ratios=(),
            note=draw(TEXTS),
            source=ReportSource(run=draw(TEXTS), lab=draw(TEXTS), when=AT),
        ),
        android=(
            ReportStage(name=draw(TEXTS), seconds=draw(measured)),
            ReportStage(name=draw(TEXTS), seconds=None),
        ),
        experiment=ReportExperiment(sentence=draw(TEXTS), trials=(trial,), seed=None, source=None),
        difference=differing(f"of {draw(TEXTS)}"),
    )
