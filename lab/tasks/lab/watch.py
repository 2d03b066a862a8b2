"""lab.watch: what the command at work on a lab is doing, from another terminal, until it ends."""

from __future__ import annotations

from pathlib import Path

from lab.config.names import check_name
from lab.core import lock
from lab.core.deadline import pause
from lab.core.errors import InconclusiveError
from lab.core.lock import Holder
from lab.core.steps import Event
from lab.documents.labs import HolderEntry, LabWatch, WatchedEvent
from lab.nights import keeping
from lab.records import live
from lab.workflow.session import Reply, Session

_LOOK_SECONDS = 0.2
_MOST = 20_000
"""Events that the document has at most: the newest."""


def watch(session: Session, name: str) -> Reply:
    """Show what the command that holds the lab does, as it does it. It ends when the command ends.

    Nothing is changed, and the command does not notice. Raises UsageError where there is no such lab.
    """
    check_name(name)
    session.again = "the command that was watched goes on; the same command watches again"
    files = _locks(session, name)
    holder = _holder(files)
    if holder is None:
        return Reply.of(LabWatch(lab=name, holder=None, events=()), f"nobody works on lab {name} now")
    if not holder.pid or not holder.lives():
        raise InconclusiveError(
            f"a process that is not known here holds lab {name}",
            hint="it may run on another machine that shares the state folder: watch it there",
        )
    events = _follow(session, files, holder)
    document = LabWatch(
        lab=name,
        holder=HolderEntry(pid=holder.pid, verb=holder.verb, since=holder.since),
        events=[WatchedEvent.of(event) for event in events[-_MOST:]],
    )
    last = next((event for event in reversed(events) if event.kind == "failed" and not event.informs), None)
    how = f"; what failed last: {last.name}: {last.text}" if last else ""
    return Reply.of(document, f"{holder.verb} (pid {holder.pid}) has ended{how}")


def _follow(session: Session, files: list[Path], holder: Holder) -> list[Event]:
    """All events of the holder until it holds no lock of these any more; each is shown at once."""
    reader: live.LiveReader | None = None
    events: list[Event] = []
    session.steps.note(f"{holder.verb} (pid {holder.pid}) is at work since {holder.since}")
    try:
        while True:
            ended = _holder(files) != holder  # looked at first: what it told before that is read below
            if reader is None and (path := live.file_of(session.settings.state_dir, holder)):
                reader = _opened(path)
            for event in reader.new() if reader else ():
                events.append(event)
                session.steps.relay(event)
            if ended:
                return events
            pause(_LOOK_SECONDS)
    finally:
        if reader:
            reader.close()


def _opened(path: Path) -> live.LiveReader | None:
    try:
        return live.LiveReader(path)
    except FileNotFoundError:  # it has just ended
        return None


def _locks(session: Session, name: str) -> list[Path]:
    """What a command holds that works on that lab; a night holds its own from beginning to end."""
    if name == keeping.NAME:
        return [keeping.lock_file(session), session.store.labs_folder / name / "lock"]
    return [session.store.get(name).lock_file]


def _holder(files: list[Path]) -> Holder | None:
    return next((holder for file in files if (holder := lock.holder(file))), None)
