"""What is done with an emulator that runs: its logs, its screen, apps, a shell."""

from __future__ import annotations

import shlex
from typing import cast

from lab import emulators
from lab.adb import AdbServer
from lab.core import caller, files, proc, redact, screen
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, UsageError
from lab.documents.emulators import EmulatorLogs, LogEntry
from lab.emulators.protocol import AndroidEmulator, Tell
from lab.tasks.emulator.instances import acted
from lab.workflow.answers import captured
from lab.workflow.session import Reply, Session
from lab.workflow.workbench import Workbench

_DAY = 86400.0


def logs(
    session: Session, name: str, emulator: str = emulators.MAIN, follow: bool = False, capture: bool = False
) -> Reply:
    """All logs of an emulator: its container's, and those its payload keeps.

    `follow` prints the container's and the device's as they grow, until the container ends; `capture`
    keeps them for the answer, so not both.
    """
    if follow and capture:
        raise UsageError("a log that is followed never ends, and has no JSON")
    bench = Workbench.open(session, name)
    bench.instance(emulator)
    bench.require_running()
    try:
        if follow:
            bench.emulator(emulator).follow(bench.guest, _printer())
            return Reply()
        texts = _logs(bench, emulator)
        if not capture:
            _print(texts)
    finally:
        bench.close()
    return Reply(
        EmulatorLogs(
            lab=name,
            emulator=emulator,
            files=[LogEntry(name=file, text=text) for file, text in texts.items()],
        ).as_json()
    )


def screenshot(session: Session, name: str, file: str, emulator: str = emulators.MAIN) -> Reply:
    """Write Android's screen into a PNG file."""
    target = caller.path(file)
    if target.suffix.lower() != ".png":
        raise UsageError(f"{file} does not end with .png, and PNG is what is written")
    bench = Workbench.open(session, name)
    android = android_at(bench, emulator, "screenshot")
    bench.require_running()
    try:
        picture = android.screenshot(bench.reach(emulator))
        files.write_atomic(target, picture, files.PUBLIC)
        return acted(bench, emulator, "screenshot", True, [str(target)])
    finally:
        bench.close()


def install(session: Session, name: str, apk: str, emulator: str = emulators.MAIN) -> Reply:
    """Install an app over ADB."""
    package = caller.path(apk)
    if not package.is_file():
        raise UsageError(f"{package} is not a file")
    bench = Workbench.open(session, name)
    android = android_at(bench, emulator, "install")
    bench.require_running()
    try:
        with session.steps.step("emulator.install", package.name) as step:
            deadline = Deadline.after(session.settings.deadlines.android_nested)
            step.result = android.install(bench.reach(emulator), package, step, deadline)
        return acted(bench, emulator, "install", True, [step.result])
    finally:
        bench.close()


def shell(
    session: Session,
    name: str,
    argv: list[str],
    emulator: str = emulators.MAIN,
    capture: bool = False,
) -> Reply:
    """Run a command in the payload by `adb shell`, or open a shell there; its exit status is ours.

    `capture` keeps its output for the answer.
    """
    if capture and not argv:
        raise UsageError("a shell for a person has no JSON", hint="invoke emulator.shell --json -- getprop")
    bench = Workbench.open(session, name)
    bench.instance(emulator)
    bench.require_running()
    address = bench.addresses(emulator).get("adb", "")
    if not address:
        raise BlockedError(f"{emulator} has no ADB forward", hint="`invoke emulator.up` makes it")
    if not bench.emulator(emulator).state(bench.guest).running:
        raise BlockedError(f"the container of {emulator} does not run", hint="`invoke emulator.up` starts it")
    server = AdbServer(bench.lab.adb_folder, bench.lab.journal)
    ready = Deadline.after(session.settings.deadlines.ssh)
    # adb joins the words for a shell over there: quoted, they arrive as they are.
    words = server.command(address, "shell", *map(shlex.quote, argv), deadline=ready)
    bench.close()
    if not capture:
        return Reply(code=proc.passthrough(words))
    done = proc.run(words, check=False, deadline=Deadline.after(_DAY))
    return captured(argv, done)


def android_at(bench: Workbench, name: str, task: str) -> AndroidEmulator:
    """The emulator, if it is Android; UsageError when it has nothing `task` could work on."""
    android = bench.emulator(name)
    if not android.android:
        raise UsageError(
            f"{name} is {bench.instance(name).kind}, which is not Android: there is nothing for {task} to do",
            hint="`invoke emulator.up NAME --kind docker-android` starts one beside it",
        )
    return cast(AndroidEmulator, android)


def _logs(bench: Workbench, name: str) -> dict[str, str]:
    texts = bench.emulator(name).logs(bench.guest)
    return {file: redact.clean(text) for file, text in texts.items()}


def _print(texts: dict[str, str]) -> None:
    for file, text in texts.items():
        if text:
            end = "" if text.endswith("\n") else "\n"
            screen.write(f"==> {file} <==\n{text}{end}")


def _printer() -> Tell:
    """Prints a line, and before it the log's name where that is another than the line's before."""
    last = ""

    def tell(file: str, line: str) -> None:
        nonlocal last
        head = "" if file == last else f"==> {file} <==\n"
        last = file
        screen.write(f"{head}{redact.clean(line)}\n")

    return tell
