"""What rungs measure on the way, for the report: the `facts` of lab.validation/1.

One member a name there; the name is the member's with its first `_` as a dot: `vm_boot` is `vm.boot`.
What was not measured is absent. Documents are read as leniently as they were written by any version of
lab: what does not fit its member counts as not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lab.probes.kvm import KvmFacts, Probe


class _Measured(BaseModel):
    """Members that were not set are left out of the document."""

    model_config = ConfigDict(ser_json_inf_nan="constants", defer_build=True, from_attributes=True)


class L1Boot(_Measured):
    boot_id: str = ""
    uptime_seconds: float = 0.0
    kernel: str = ""
    """Name and release: `Linux 6.12.1`."""
    booted_anew: bool = False
    """Since it was looked at last, and not by lab."""
    clock_ahead_seconds: int | None = None
    """L1's wall clock against the host's."""


class Launches(_Measured):
    failed: list[str] = []
    """What ended the launches of L2 before the one that was looked at."""


class L2Boot(_Measured):
    seconds: float
    """From launch to the end of its boot."""
    acceleration: str = ""


class L2Adb(_Measured):
    address: str = ""
    boot_id: str = ""


class ComparedBoots(_Measured):
    """The same L2 with KVM and without; None for a boot that gave no figure."""

    with_kvm_seconds: float | None
    without_kvm_seconds: float | None
    ratio: float | None
    n: int
    """Pairs that the ratio rests on."""
    why: str = ""
    """Why there is no ratio."""


class StageFact(_Measured):
    name: str
    seconds: float | None
    """From the container's start; None when it was not reached."""


class Recognised(_Measured):
    """A way to fail that was recognised: of lab.emulators.protocol.Diagnosis what was seen."""

    name: str
    what: str
    lines: list[str]
    final: bool
    refutes: bool


class Looked(_Measured):
    """One thing that was looked at; `ok` is None when it could not be seen."""

    name: str
    ok: bool | None
    observed: str


class AndroidBoot(_Measured):
    """What Android says of itself (release, fingerprint, …) is kept beside these, under its own names."""

    model_config = ConfigDict(extra="allow")

    double: bool = False
    """What ran calls itself a test double of Android."""
    timeline: list[StageFact] = []
    diagnoses: list[Recognised] = []


class AndroidUse(_Measured):
    checks: list[Looked] = []
    timeline: list[StageFact] = []
    diagnoses: list[Recognised] = []
    double: bool = False


class Facts(BaseModel):
    """All that one climb measured."""

    model_config = ConfigDict(defer_build=True)  # most commands only import it

    vm_settings: dict[str, str] | None = None
    """As the engine reads them back (lab.engines.protocol.Machine.settings)."""
    vm_boot: L1Boot | None = None
    guest: KvmFacts | None = None
    """The KVM probe in L1 itself."""
    docker: dict[str, Any] | None = None
    """What Docker says of itself (lab.guest.docker.facts)."""
    container_kvm: Probe | None = None
    """The KVM probe in a container."""
    nested_launches: Launches | None = None
    nested_boot: L2Boot | None = None
    nested_adb: L2Adb | None = None
    android_boot: AndroidBoot | None = None
    android_usable: AndroidUse | None = None
    nested_compare: ComparedBoots | None = None

    def document(self) -> dict[str, Any]:
        """The facts in JSON's own types; those not measured are left out."""
        measured = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {_key(name): _plain(value) for name, value in measured if value is not None}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Facts:
        """The facts of a document."""
        facts = cls()
        for name in cls.model_fields:
            try:
                read = cls.model_validate({name: document.get(_key(name))})
            except ValidationError:
                continue
            setattr(facts, name, getattr(read, name))
        return facts


def _key(name: str) -> str:
    return name.replace("_", ".", 1)


def _plain(value: Any) -> Any:
    if isinstance(value, AndroidBoot):
        own = value.model_extra or {}
        return own | value.model_dump(mode="json", exclude_unset=True, exclude=set(own))
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=isinstance(value, _Measured))
    return value
