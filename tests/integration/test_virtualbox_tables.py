"""That no call of the worker's escapes test_virtualbox_api.py, and that the tables it checks by are right."""

from __future__ import annotations

import ast
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from virtualbox import library, library_base

from lab.engines.virtualbox import worker as worker_package
from lab.engines.virtualbox.worker import api as worker_api
from lab.engines.virtualbox.worker.__main__ import OPERATIONS
from lab.engines.virtualbox.worker.api import Api
from tests.integration.vboxcom import VERSIONS, installed, signatures, typelib, wheels
from tests.integration.vboxcom.scenarios import SCENARIOS
from tests.integration.vboxcom.signatures import Attribute, Method
from tests.integration.vboxcom.worker import Worker
from tests.integration.vboxroot import Root

SOURCES = sorted(Path(worker_package.__path__[0]).glob("*.py"))


@dataclass
class Life:
    """What all scenarios together asked of one version."""

    operations: set[str] = field(default_factory=set)
    used: set[tuple[str, str]] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    probes: set[str] = field(default_factory=set)
    values: set[tuple[str, str]] = field(default_factory=set)


@pytest.fixture(scope="module")
def lives() -> dict[str, Life]:
    asked: set[tuple[str, str]] = set()
    value = Api.value

    def recorded(self: Api, enum: str, label: str) -> int:
        asked.add((enum, label))
        return value(self, enum, label)

    found = {version: Life() for version in VERSIONS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Api, "value", recorded)
        patch.setattr(worker_api, "_LOCK_SECONDS", 0.5)
        for version, life in found.items():
            asked.clear()
            for number, scenario in enumerate(SCENARIOS):
                with installed(version) as world, tempfile.TemporaryDirectory() as folder:
                    worker = Worker(world, Path(folder, f"vm{number}"), Path(folder, "shared"))
                    scenario(worker)
                life.operations |= worker.asked
                life.used |= world.log.used
                life.absent |= {name for _, name in worker.absent()}
                life.probes = worker.probes()
            life.values = set(asked)
    return found


def test_the_scenarios_ask_for_every_operation(lives: dict[str, Life]) -> None:
    assert all(life.operations == OPERATIONS.keys() for life in lives.values())


def test_the_worker_looks_in_vain_only_where_a_version_differs(lives: dict[str, Life]) -> None:
    for version, life in lives.items():
        assert life.absent == life.probes, version


def test_every_member_the_worker_names_was_asked_for(lives: dict[str, Life]) -> None:
    """Raw names, and pyvbox's, in the worker's source: each is one that a scenario reaches."""
    reached = {name for life in lives.values() for _, name in life.used}
    missed = {name for name, behind in _named().items() if not behind & reached}
    assert missed == {"discard", "session", "read_only"}, "these are the worker's own, and an enum's"
    assert {"findMachine", "lockMachine", "IOAPICEnabled", "takeScreenShotToArray"} <= reached


def _named() -> dict[str, set[str]]:
    """Each name in the worker's source that an interface has, and the raw names it can stand for."""
    compared = set(signatures.members()["compared"])
    raw = {
        name
        for version in VERSIONS
        for content in signatures.table(version).interfaces.values()
        for name in content
    }
    found: dict[str, set[str]] = {}
    for name in {word for source in SOURCES for word in _words(ast.parse(source.read_text()))}:
        behind = {name} & raw
        for wrapped in signatures.wrappers().get(name, []):
            if wrapped.interface in compared:
                proper = wrapped.raw[0].upper() + wrapped.raw[1:]
                behind |= {wrapped.raw, f"get{proper}", f"set{proper}"}
        if behind:
            found[name] = behind
    return found


def _words(tree: ast.AST) -> list[str]:
    """Attributes, and the names that `hasattr`, `getattr` and pyvbox's `_call` are given."""
    found = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "hasattr",
            "getattr",
            "_call",
        ):
            found += [
                word.value
                for word in node.args
                if isinstance(word, ast.Constant) and isinstance(word.value, str)
            ]
    return found


def test_every_enum_label_the_worker_names_is_there_when_it_is_asked_for(lives: dict[str, Life]) -> None:
    named = {
        (node.args[0].value, node.args[1].value)
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(".value")
        and all(isinstance(word, ast.Constant) for word in node.args)
    }
    assert ("BitmapFormat", "PNG") in named
    for version, life in lives.items():
        values = wheels.constants(version).all_values
        assert all(label in values(enum) for enum, label in life.values), version
        # An enum that a version has not is one it is not asked for.
        assert named - life.values == {(enum, label) for enum, label in named if not values(enum)}, version


def test_pyvboxs_numbers_are_those_of_every_version_where_the_worker_uses_them() -> None:
    used = {("LockType", "write"), ("LockType", "shared")}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                enum = getattr(library, node.value.attr, None)
                if isinstance(enum, type) and issubclass(enum, library_base.Enum):
                    used.add((node.value.attr, node.attr))
    assert {("DeviceType", "hard_disk"), ("NetworkAdapterType", "virtio")} <= used
    for enum, name in used:
        member = getattr(getattr(library, enum), name)
        for version in VERSIONS:
            assert wheels.constants(version).all_values(enum)[str(member)] == int(member), (
                version,
                enum,
                name,
            )


# The tables


def test_what_changed_is_where_it_changed() -> None:
    tables = [signatures.table(version) for version in VERSIONS]
    arity = [
        [len(table.members("IVirtualBox")[name].takes) for table in tables]
        for name in ("createMachine", "openMachine")
    ]
    assert arity == [[5, 8, 9, 9], [1, 2, 2, 2]]
    assert ["audioSettings" in table.members("IMachine") for table in tables] == [False, True, True, True]
    assert ["IBIOSSettings" in table.interfaces for table in tables] == [True, True, False, False]
    assert tables[3].members("IMachine")["VMExecutionEngine"] == Attribute("VMExecutionEngine", True)
    assert tables[0].members("IMachine")["getGroups"] == Method((), ("str[]",))


def test_no_change_is_written_that_is_none() -> None:
    for number, version in enumerate(VERSIONS[1:], 1):
        before = signatures.table(VERSIONS[number - 1]).interfaces
        for interface, changes in signatures.members()["in"][version].items():
            if changes == "gone":
                assert interface in before
                continue
            after = signatures.table(version).members(interface)
            same = [name for name in changes if before.get(interface, {}).get(name) == after.get(name)]
            assert not same, (version, interface)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_type_is_an_enum_of_that_version_or_an_interface(version: str) -> None:
    """An enum that was renamed shows here: 7.1 made CPUPropertyType CPUPropertyTypeX86."""
    values = wheels.constants(version).all_values
    for interface, content in signatures.table(version).interfaces.items():
        for name, member in content.items():
            types = [member.type] if isinstance(member, Attribute) else [*member.takes, *member.gives]
            for kind in {item.removesuffix("[]") for item in types} - {
                "str",
                "int",
                "bool",
                "octet",
                "Interface",
            }:
                assert (kind[0] == "I" and kind[1].isupper()) or values(kind), (interface, name, kind)


@pytest.mark.slow
def test_72s_table_is_the_type_library_of_a_real_one(vbox_root: Root) -> None:
    found = typelib.read(vbox_root.tree / "usr/lib/virtualbox/components/VirtualBox_XPCOM.xpt")
    for interface, content in signatures.table("7.2").interfaces.items():
        assert {name: typelib.plain(member) for name, member in content.items()} == found[interface], (
            interface
        )
