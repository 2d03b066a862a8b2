"""VirtualBox's known issues that bear on nesting, from issues.toml, matched to a host and a version."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from lab.core.versions import BOUND, in_range
from lab.engines.virtualbox.host import HostVirtualBox, System

_TABLE = Path(__file__).with_name("issues.toml")


def since_macos_13(host: HostVirtualBox) -> bool:
    """macOS 13 or newer; False where the release is not known."""
    return in_range(host.macos_version, "13", "")


_CONDITIONS: dict[str, Callable[[HostVirtualBox], bool]] = {
    "bare_metal": lambda host: host.bare_metal,
    "driver_missing": lambda host: not host.driver_device,
    "intel_mac": lambda host: host.system == "macos" and not host.silicon,
    "kvm_at_load": lambda host: bool(host.holders and host.kvm_at_load),
    "kvm_since_6_12": lambda host: bool(host.holders) and host.kvm_at_load is not None,
    "kvm_loaded": lambda host: bool(host.holders),
    "la57": lambda host: host.five_level_paging,
    "macos_13": since_macos_13,
    "silicon": lambda host: host.silicon,
    "svm": lambda host: "svm" in host.extensions,
    "vmx": lambda host: "vmx" in host.extensions,
}


class Issue(BaseModel):
    """One [[issue]]. It matches when the system, the version and every condition do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    source: str = Field(min_length=1)
    """Who says so: `owner/repo#N`, a file of VirtualBox's source, or "measured"."""
    what: str = Field(min_length=1)
    hint: str = ""
    systems: tuple[System, ...] = ()
    """Empty: any."""
    since: str = Field(default="", alias="from", pattern=BOUND)
    """The first version that has it; empty: unknown or all."""
    below: str = Field(default="", pattern=BOUND)
    """The first version that no longer has it; empty: none known."""
    when: tuple[Annotated[str, Field(pattern="^(?:" + "|".join(_CONDITIONS) + ")$")], ...] = ()


class IssueTable(BaseModel):
    """issues.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issue: tuple[Issue, ...]


@cache
def table() -> tuple[Issue, ...]:
    """All known issues, in the order of the file. Raises pydantic's ValidationError for a wrong file."""
    return IssueTable.model_validate(tomllib.loads(_TABLE.read_text(encoding="utf-8"))).issue


def matching(host: HostVirtualBox, version: str) -> list[Issue]:
    """The issues to expect here. With an unknown version, only those that need none."""
    return [issue for issue in table() if _matches(issue, host, version)]


def _matches(issue: Issue, host: HostVirtualBox, version: str) -> bool:
    if issue.systems and host.system not in issue.systems:
        return False
    if not all(_CONDITIONS[name](host) for name in issue.when):
        return False
    return in_range(version, issue.since, issue.below)
