"""VirtualBoxEngine: what it says of itself on hosts that are not this one, over a client that is played."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.core.errors import BlockedError, DeadlineError, LabError
from lab.engines.options import VirtualBoxOptions
from lab.engines.virtualbox.choice import Choice, choose
from lab.engines.virtualbox.engine import VirtualBoxEngine
from lab.engines.virtualbox.host import HostVirtualBox, Installed
from lab.engines.virtualbox.transport import GlueError, WorkerLostError

MAC = HostVirtualBox("macos", "Intel Core i7", ("vmx", "hv_support"), bare_metal=True)
LINUX = HostVirtualBox(
    "linux", "AMD EPYC", ("svm",), bare_metal=True, driver_loaded=True, driver_device=True, driver_usable=True
)
DESCRIBED = {
    "version": "7.2.22",
    "build": "7.2.22r175245",
    "glue": "/glue/vboxapi",
    "python": "3.13.1",
    "features": {"HWVirtEx": True, "NestedHWVirt": False},
}


MANAGED = DESCRIBED | {"glue": "/vbox/VBoxManage", "python": ""}


class FakeClient:
    def __init__(self, answer: dict[str, Any] | Exception, name: str = "vboxapi") -> None:
        self.answer, self.name = answer, name

    def call(self, operation: str, deadline: object = None, **words: Any) -> dict[str, Any]:
        assert operation == "describe"
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None: ...


def _engine(
    tmp_path: Path,
    where: HostVirtualBox,
    answer: dict[str, Any] | Exception = DESCRIBED,
    installed: bool = True,
    managed: dict[str, Any] | Exception = MANAGED,
    **options: Any,
) -> VirtualBoxEngine:
    found = Installed(tmp_path, "7.2.22r175245", (tmp_path,)) if installed else None

    def chosen(installed: Installed, asked: VirtualBoxOptions) -> Choice:
        return choose(
            installed, asked, lambda *_: FakeClient(answer), lambda _home: FakeClient(managed, "VBoxManage")
        )

    return VirtualBoxEngine(
        tmp_path, VirtualBoxOptions(**options), lambda: where, lambda _home: found, chosen
    )


@pytest.mark.parametrize(
    ("where", "options", "acceleration", "nesting"),
    [
        (LINUX, {}, "hwvirt", "hardware"),
        # The setting is accepted there: whether the guest gets anything is the guest's to show.
        (MAC, {}, "native", "hardware"),
        (LINUX, {"execution_engine": "native"}, "native", "hardware"),
        (LINUX, {"execution_engine": "interpreter"}, "interpreter", "none"),
    ],
)
def test_what_the_cell_says(
    where: HostVirtualBox,
    options: dict[str, Any],
    acceleration: str,
    nesting: str,
    tmp_path: Path,
) -> None:
    engine = _engine(tmp_path, where, **options)
    assert engine.availability().usable
    facts = engine.facts()
    assert (facts.engine, facts.version) == ("virtualbox", "7.2.22")
    assert (facts.acceleration, facts.nesting) == (acceleration, nesting)
    assert facts.details["features"] == "HWVirtEx"


def test_before_7_0_macos_has_virtualboxs_own_hypervisor(tmp_path: Path) -> None:
    where = replace(MAC, driver_device=True, driver_usable=True)
    engine = _engine(tmp_path, where, DESCRIBED | {"version": "6.1.50"})
    assert engine.facts().acceleration == "hwvirt"


def test_absent_and_deaf_ones_are_not_usable(tmp_path: Path) -> None:
    absent = _engine(tmp_path, LINUX, installed=False)
    assert not absent.availability().usable
    with pytest.raises(BlockedError, match="not installed"):
        absent.facts()
    refused = BlockedError("the vboxapi in /x is not that of VirtualBox 7.2.22", hint="use another")
    deaf = _engine(tmp_path, LINUX, refused)
    found = deaf.availability()
    assert not found.usable and "is not that of" in found.why and found.hint == "use another"
    api = next(item for item in deaf.findings([]) if item.name == "api")
    assert not api.good and "is not that of" in api.observed


NO_GLUE = GlueError("VirtualBox's Python bindings cannot be loaded", tail="No module named 'xpcom'")


@pytest.mark.parametrize(
    ("asked", "answer", "transport", "why"),
    [
        ("auto", DESCRIBED, "vboxapi", "its bindings load"),
        ("vboxapi", DESCRIBED, "vboxapi", "virtualbox.transport asks for it"),
        ("vboxmanage", DESCRIBED, "VBoxManage", "virtualbox.transport asks for it"),
        ("vboxmanage", NO_GLUE, "VBoxManage", "virtualbox.transport asks for it"),
        ("auto", NO_GLUE, "VBoxManage", f"{NO_GLUE.what} ({NO_GLUE.tail})"),
        ("auto", WorkerLostError("the process ended"), "VBoxManage", "the process ended"),
    ],
)
def test_the_transport_and_why_it_is_that_one(
    asked: str,
    answer: dict[str, Any] | Exception,
    transport: str,
    why: str,
    tmp_path: Path,
) -> None:
    engine = _engine(tmp_path, LINUX, answer, transport=asked)
    assert engine.availability().usable
    details = engine.facts().details
    assert (details["transport"], details["transport_why"]) == (transport, why)
    assert engine._connect().name == transport
    (api,) = [item for item in engine.findings([]) if item.name == "api"]
    assert api.good and api.observed == f"{transport} from {details['glue']}: {why}"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("vboxapi", NO_GLUE),
        # VirtualBox itself fails: it would over VBoxManage too, and its own words are not to be lost.
        ("auto", LabError("VirtualBox failed: connecting to VBoxSVC")),
        ("auto", DeadlineError("VirtualBox did not finish `describe`")),
        ("auto", BlockedError("VBoxSVC may not be started")),
    ],
)
def test_nothing_else_makes_way_for_vboxmanage(asked: str, answer: LabError, tmp_path: Path) -> None:
    engine = _engine(tmp_path, LINUX, answer, transport=asked)
    assert not engine.availability().usable and answer.what in engine.availability().why
    with pytest.raises(type(answer)):
        engine.facts()


def test_where_neither_answers_both_are_named(tmp_path: Path) -> None:
    silent = BlockedError("/vbox/VBoxManage cannot be run", hint="install VirtualBox")
    engine = _engine(tmp_path, MAC, NO_GLUE, managed=silent)
    answer = engine.availability()
    assert not answer.usable and answer.hint == silent.hint
    assert NO_GLUE.what in answer.why and silent.what in answer.why and NO_GLUE.tail in answer.why


def test_doctor_reads_the_newest_log_of_any_lab(tmp_path: Path) -> None:
    engine = _engine(tmp_path, LINUX)
    assert not [item for item in engine.findings([tmp_path / "none"]) if item.name == "last run"]
    for age, (name, line) in enumerate(
        {"old": "HM: HMR3Init: AMD-V w/ nested paging", "new": "HM: HMR3Init: Falling back on IEM"}.items()
    ):
        log = tmp_path / name / "Logs" / "VBox.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"00:00:00.1 {line}\n")
        os.utime(log, (1000 + age, 1000 + age))
    (ran,) = [
        item for item in engine.findings([tmp_path / "new", tmp_path / "old"]) if item.name == "last run"
    ]
    assert not ran.good and "interpreter" in ran.observed


def test_a_nested_start_is_to_be_agreed_to_on_a_linux_host_only(tmp_path: Path) -> None:
    assert "#30" in _engine(tmp_path, LINUX).caution()
    assert _engine(tmp_path, replace(LINUX, bare_metal=False)).caution() == ""
    assert _engine(tmp_path, MAC).caution() == ""
