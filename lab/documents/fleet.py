"""What the tasks fleet.* print: a team's hosts, its cells, and the matrix of cells by nights."""

from __future__ import annotations

from typing import Literal

from lab.documents.nights import AnyClaim
from lab.model.document import GIVEN, JsonDocument, JsonPart, MemberRule, Moment, Seconds, Text
from lab.model.domain import Verdict


class CellExpectation(JsonPart):
    """What a cell says it is of. A night that was measured to be of something else is no night of this
    cell. Empty: it does not say"""

    host: str
    """the name of a host in fleet.toml"""
    virtualbox: str
    """a version, or how it begins: `7.1` is every 7.1.x"""
    processor: str
    """words that the processor's name has in it, such as `Apple M3`"""


class CellSetting(JsonPart):
    key: Text
    """dotted, as lab.config/1 has it"""
    value: str


class MatrixCell(JsonPart):
    """A row of the matrix: a combination that is tried every night"""

    name: Text
    """as in fleet.toml; the second half of a night's key, DATE/CELL"""
    tags: tuple[Text, ...]
    """what a host must have to be given it"""
    hosts: tuple[Text, ...]
    """those of fleet.toml that have them; empty: nobody can run it"""
    settings: tuple[CellSetting, ...]
    """lab settings of its nights"""
    expects: CellExpectation
    planned: bool
    """whether fleet.toml has it now; one of earlier nights may be gone"""


class LateResult(JsonPart):
    """What a host handed in for a cell that had its word already. It changes nothing: it is shown"""

    at: Moment
    host: str
    uuid: str
    verdict: Verdict
    word: Text


class MatrixEntry(JsonPart):
    """One cell in one night"""

    cell: Text
    state: Literal["open", "settled", "closed"]
    """open: asked for, and nothing is known yet; settled: its night was handed in, or it is known why there
    is none; closed: the hour came and nothing had been handed in, so it is inconclusive"""
    verdict: Verdict | None
    """null only while it is open"""
    claim: AnyClaim
    """what the verdict is on; empty when no run came far enough to name it"""
    host: str
    """which host of fleet.toml ran it or had it last; empty when none took it"""
    word: Text
    """a sentence: what is open (who has it since when, or what it waits for), or what the verdict rests on"""
    uuid: str
    """of its night in the history (nightly.history/1); empty when there is none"""
    started: Moment | None
    seconds: Seconds | None
    """of its night; null without one"""
    nested_boot: Seconds | None
    """its first figure of L2's boot, for a trend; null when none was taken"""
    report: str
    """the file of its night that a person opens first, on the coordinator; empty when there is none"""
    late: tuple[LateResult, ...]
    """what came after it had its word, oldest first"""

    rules = (MemberRule({"state": "open"}, {"verdict": None}, {"verdict": GIVEN}),)


class MatrixNight(JsonPart):
    """A column of the matrix: one night of all cells"""

    date: Text
    """YYYY-MM-DD, the first half of its nights' keys"""
    asked: Moment | None
    """when its cells were asked for; null where only the history knows of it"""
    closes: Moment | None
    """the hour at which what is open becomes inconclusive"""
    closed: Moment | None
    """when that was done; null while the night is open"""
    entries: tuple[MatrixEntry, ...]
    """of the cells that were asked for, in the order of `cells`; a cell that was not has none"""


class FleetMatrix(JsonDocument):
    """Cells by nights: what every combination came to, on which host, and what is still open"""

    tag = "fleet.matrix/1"

    made: Moment
    cells: tuple[MatrixCell, ...]
    """those of fleet.toml in its order, then those that only earlier nights have, by name"""
    nights: tuple[MatrixNight, ...]
    """newest first"""
    page: str
    """the file with the same for a person; empty when none was written"""


class FleetHostState(JsonPart):
    name: Text
    tags: tuple[Text, ...]
    state: Literal["connected", "silent", "away", "never"]
    """silent: it was not heard for minutes, though its connection may stand; never: it was never there"""
    heard: Moment | None
    """when it was last heard; null when it never was"""
    cells: tuple[Text, ...]
    """those that it may be given"""
    work: tuple[Text, ...]
    """keys of the open nights that it has"""


class FleetStatus(JsonDocument):
    """A coordinator: whether its queue runs, its hosts, the nights that are open"""

    tag = "fleet.status/1"

    running: bool
    pid: int
    """of the queue's process; 0 when it does not run"""
    answers: bool
    port: int
    """on 127.0.0.1, for workers"""
    at: str
    """HH:MM, when a night begins; empty: by fleet.run alone"""
    closes: Text
    """HH:MM, when what is open becomes inconclusive"""
    hosts: tuple[FleetHostState, ...]
    nights: tuple[MatrixNight, ...]
    """those that are not closed, newest first"""
    notes: tuple[str, ...]
    """what a person should know: what could not be taken in, who could not be told"""


class FleetNight(JsonDocument):
    """What fleet.run, fleet.cancel and fleet.gather did, and how the night is now"""

    tag = "fleet.night/1"

    action: Literal["run", "cancel", "gather"]
    nights: tuple[MatrixNight, ...]
    """the night that was asked for or taken back; of a gathering those that it closed"""
    notes: tuple[str, ...]


class FleetAction(JsonDocument):
    """What fleet.up, fleet.down, fleet.join and fleet.leave did"""

    tag = "fleet.action/1"

    action: Literal["up", "down", "join", "leave", "print"]
    changed: bool
    notes: tuple[str, ...]
    """what was done, and what is to be done by hand"""
