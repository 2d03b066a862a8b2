"""fleet.toml: the hosts of a team, and the cells that are tried every night."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from lab.config.model import FOLDERS, leaves
from lab.config.sources import Layers, read_table, variable
from lab.core import files
from lab.core.errors import UsageError
from lab.schedule.plan import parse_at

FILE = "fleet.toml"
RESERVED = frozenset({"coordinator"})
"""Names that no host can have: Buildbot's worker on the coordinator itself."""


def _at(value: str) -> str:
    try:
        parse_at(value)
    except UsageError as error:
        raise ValueError(error.what) from None
    return value


def _at_or_never(value: str) -> str:
    return _at(value) if value else value


Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,39}$")]
"""Of a host or a cell. It becomes part of file names and of nights' keys."""
Tag = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FleetHost(_Table):
    """A machine that works for the fleet. Its tags only say where a cell may be tried."""

    name: Name
    tags: tuple[Tag, ...] = ()


class FleetExpectation(_Table):
    """What a cell says it is of; empty: it does not say. What was measured decides (lab.nights.expecting)."""

    host: str = ""
    virtualbox: str = ""
    processor: str = ""


class FleetCell(_Table):
    """A cell of the fleet: what is tried, and the tags of the hosts that may try it."""

    name: Name
    tags: tuple[Tag, ...] = ()
    settings: dict[str, Any] = {}
    """As lab.toml has them. After `read`: dotted key to the text a variable of the environment has."""
    expects: FleetExpectation = FleetExpectation()

    @property
    def environment(self) -> dict[str, str]:
        """Its settings as variables of the environment."""
        return {variable(key): text for key, text in self.settings.items()}


class FleetPlan(_Table):
    """A whole fleet.toml. Times are HH:MM, local to the coordinator."""

    at: Annotated[str, AfterValidator(_at_or_never)] = "02:00"
    """When the night's cells are asked for; empty: only by fleet.run."""
    closes: Annotated[str, AfterValidator(_at)] = "07:00"
    """When what is still open becomes inconclusive."""
    port: int = Field(9989, ge=1024, le=65535)
    """On the coordinator's 127.0.0.1, for its workers."""
    minutes: int = Field(300, ge=1, le=24 * 60)
    """What one night may take on a host, waiting for another one there included."""
    archive_mib: int = Field(512, ge=1, le=64 * 1024)
    """The largest archive of a night that is taken from a host."""
    keep_days: int = Field(90, ge=1)
    """How long the queue's own logs are kept."""
    host: tuple[FleetHost, ...] = ()
    cell: tuple[FleetCell, ...] = ()

    def hosts_for(self, row: FleetCell) -> list[str]:
        """The hosts with all tags that a cell wants, in the order of the file."""
        return [host.name for host in self.host if set(row.tags) <= set(host.tags)]


def read(path: Path) -> FleetPlan:
    """The fleet that a file describes. Raises UsageError that names every problem in it."""
    try:
        document = files.read_toml(path)
    except FileNotFoundError:
        raise UsageError(
            f"there is no {path}", hint="docs/fleet.md shows one; --file names another"
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}") from error
    try:
        plan = FleetPlan.model_validate(document)
    except ValidationError as error:
        lines = [f"{_place(document, fault['loc'])}: {fault['msg']}" for fault in error.errors()]
        raise UsageError(_listed(path, lines), hint="docs/fleet.md shows every key") from error
    layers = Layers()
    rows = [row.model_copy(update={"settings": _settings(layers, path, row)}) for row in plan.cell]
    problems = [*layers.problems, *_together(plan)]
    if problems:
        raise UsageError(_listed(path, problems), hint=" ".join(layers.hints))
    return plan.model_copy(update={"cell": tuple(rows)})


def _settings(problems: Layers, path: Path, row: FleetCell) -> dict[str, str]:
    """A cell's settings, checked as lab checks its own, as texts; problems are added to `problems`."""
    layers = Layers()
    read_table(layers, row.settings, f"cell {row.name}", path.parent)
    for key in (*FOLDERS, "install"):
        if key in layers.values:
            layers.problem(f"cell {row.name}: {key} is each host's own, and no setting of a cell")
    for what in layers.problems:
        problems.problem(what, " ".join(layers.hints))
    return {key: _text(value) for key, value in layers.values.items() if key in leaves()}


def _text(value: Any) -> str:
    if isinstance(value, bool | list | tuple):
        return json.dumps(value)
    return str(value)


def _together(plan: FleetPlan) -> list[str]:
    """What one table alone cannot show."""
    problems = [] if plan.cell else ["there is no [[cell]]: nothing would be tried"]
    for kind, names in (
        ("host", [host.name for host in plan.host]),
        ("cell", [row.name for row in plan.cell]),
    ):
        problems += [
            f"there are two {kind}s {name}" for name in sorted({n for n in names if names.count(n) > 1})
        ]
    hosts = {host.name for host in plan.host}
    problems += [f"a host cannot be called {name}" for name in sorted(hosts & RESERVED)]
    problems += [
        f"cell {row.name}: it expects the host {row.expects.host}, and there is none of that name"
        for row in plan.cell
        if row.expects.host and row.expects.host not in hosts
    ]
    return problems


def _place(document: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """Where a fault is, in the words of the file: `cell mac: tags`."""
    table, *rest = location
    if rest and isinstance(rest[0], int):
        item = document[str(table)][rest[0]]
        name = (
            item.get("name", f"number {rest[0] + 1}") if isinstance(item, dict) else f"number {rest[0] + 1}"
        )
        return f"{table} {name}" + "".join(f": {part}" for part in rest[1:])
    return ": ".join(str(part) for part in location)


def _listed(path: Path, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"{path.name}: {problems[0]}"
    return f"{path.name} has {len(problems)} problems:\n" + "\n".join(f"  {line}" for line in problems)
