"""Every report of a run: by lab's own reporters, and by those that installed packages bring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lab.core import plugins, redact
from lab.core.errors import InterruptedByUser
from lab.core.files import write_atomic
from lab.reports.model import ReportInput
from lab.reports.protocol import Reporter

_GROUP: plugins.Group = "lab.reporters"


def reporters(complain: Callable[[str], object] = lambda _: None) -> list[Reporter]:
    """All reporters, lab's own first. `complain` is told why one of another package cannot be had."""
    loaded: list[Reporter] = []
    for name in plugins.names(_GROUP):
        try:
            reporter: Reporter = plugins.load(_GROUP, name)()
        except InterruptedByUser:
            raise
        except Exception as error:
            if name in plugins.OWN[_GROUP]:
                raise
            complain(f"no report by `{name}`: {error}")
            continue
        if Path(reporter.file).name != reporter.file or reporter.file in file_names(loaded):
            complain(f"no report by `{name}`: {reporter.file} is no file name of its own")
            continue
        loaded.append(reporter)
    return loaded


def file_names(of: list[Reporter] | None = None) -> list[str]:
    """What the reports are called in a run's folder: no evidence."""
    return [reporter.file for reporter in (reporters() if of is None else of)]


def write(
    run: ReportInput, folder: Path, complain: Callable[[str], object] = lambda _: None
) -> dict[str, Path]:
    """Write every report into `folder`; format to path. An older report there is replaced.

    A reporter of another package that fails costs no report but its own: `complain` is told why.
    """
    written = {}
    for reporter in reporters(complain):
        try:
            content = reporter.render(run, folder)
        except InterruptedByUser:
            raise
        except Exception as error:
            if reporter.format in plugins.OWN[_GROUP]:
                raise
            complain(f"no report by `{reporter.format}`: {error!r}")
            continue
        target = folder / reporter.file
        write_atomic(target, redact.clean(content))
        written[reporter.format] = target
    return written
