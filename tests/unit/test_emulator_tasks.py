"""Several emulators in one VM: started, looked at, ended; none is lost, and no port is taken twice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.adb import AdbServer
from lab.cli.program import with_flags
from lab.core import deadline
from lab.core.errors import BlockedError, DeadlineError, ExitCode, InconclusiveError, UsageError
from lab.emulators.docker_android import DockerAndroid
from lab.emulators.docker_android.options import AndroidOptions
from lab.emulators.protocol import Check, Diagnosis, NestedLostError
from lab.engines.protocol import EngineFacts, Forward, PortTakenError, State
from lab.records.record import Instance
from lab.tasks.emulator import device, instances
from lab.tasks.lab import open as opening
from lab.tasks.lab import power, snapshots, status
from lab.tasks.lab.up import up
from lab.workflow import ports
from lab.workflow.session import Reply
from lab.workflow.workbench import Workbench
from tests.unit.bed import Bed, checked
from tests.unit.beside import NAME, _forwards, _shown, _up
from tests.unit.fakes import HEALTHY, TCG, VNC_PASSWORD, FakeAndroid, FakeEmulator, FakeMachine

REFUTING = Diagnosis(
    "kvm-denied", "the emulator may not open /dev/kvm", ("Permission denied",), "", True, True
)
LATE = dataclasses.replace(HEALTHY, usable=False, checks=(Check("launcher", None, "not asked yet"),))


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    """A lab whose canary is up."""
    made = Bed(tmp_path, monkeypatch)
    monkeypatch.setattr(AdbServer, "disconnect", lambda _self, address: made.world.did(f"forget {address}"))
    up(made.session(), NAME)
    yield made
    deadline.cancelled.clear()


def _row(reply: Reply, name: str) -> dict[str, Any]:
    (found,) = (row for row in checked(reply)["emulators"] if row["name"] == name)
    return dict(found)


def test_an_android_beside_the_canary(bed: Bed) -> None:
    document, code = _up(bed)
    assert code == 0
    assert (document["launched"], document["emulator"]["kind"]) == (True, "docker-android")
    opened = _forwards(bed)
    assert set(opened) == {"ssh", "adb", "adb-second", "console-second", "novnc-second"}
    assert len(set(opened.values())) == len(opened)
    assert {item.guest_port for item in bed.world.forwards if "second" in item.name} == {5655, 5654, 6180}
    assert document["emulator"]["adb"] == {"address": f"127.0.0.1:{opened['adb-second']}"}
    assert bed.world.l2 is not None and bed.world.others["second"].nonce != bed.world.l2.nonce
    known = bed.lab().record().instances["second"]
    assert (known.index, known.nonce) == (1, bed.world.others["second"].nonce)
    evidence = Path(document["evidence"])
    assert {"container.log", "emulator.json", "steps.jsonl"} <= {file.name for file in evidence.iterdir()}
    assert known.nonce not in "".join(file.read_text() for file in evidence.iterdir())


def test_what_is_up_is_not_started_again(bed: Bed) -> None:
    _up(bed)
    before, record = bed.world.l2_boots, bed.lab().record()
    document, code = _up(bed, kind="")
    assert (document["launched"], code, bed.world.l2_boots) == (False, 0, before)
    assert bed.lab().record() == record


def test_more_of_the_same_kind_each_with_a_number_of_its_own(bed: Bed) -> None:
    for name in ("b", "c"):
        document, code = _up(bed, name, kind="")
        assert (document["emulator"]["kind"], code) == ("canary", 0)
    instances.down(bed.session(), NAME, "b")
    _up(bed, "d", kind="")
    assert {name: found.index for name, found in bed.lab().record().instances.items()} == {
        "main": 0,
        "c": 2,
        "d": 1,
    }
    assert sorted(_forwards(bed)) == ["adb", "adb-c", "adb-d", "ssh"]


def test_down_frees_what_it_had(bed: Bed) -> None:
    _up(bed)
    address = _row(instances.list_emulators(bed.session(), NAME), "second")["adb"]["address"]
    document = checked(instances.down(bed.session(), NAME, "second"))
    assert (document["action"], document["changed"]) == ("down", True)
    assert set(_forwards(bed)) == {"ssh", "adb"}
    assert bed.lab().record().instances.keys() == {"main"} and bed.world.others == {}
    assert f"forget {address}" in bed.world.calls
    assert bed.world.l2 is not None, "the main one stays"
    with pytest.raises(UsageError, match="no emulator second"):
        instances.down(bed.session(), NAME, "second")


def test_the_main_one_down_and_up_again(bed: Bed) -> None:
    before = _forwards(bed)
    checked(instances.down(bed.session(), NAME))
    assert bed.world.l2 is None and bed.main().nonce == ""
    reply = instances.status(bed.session(), NAME)
    assert (_row(reply, "main")["container"]["exists"], reply.code) == (False, 12)
    document, code = _up(bed, "main", "")
    assert (document["launched"], code) == (True, 0)
    assert _forwards(bed) == before


def test_restart_launches_anew(bed: Bed) -> None:
    _up(bed)
    nonce = bed.lab().record().instances["second"].nonce
    reply = instances.restart(bed.session(), NAME, "second")
    assert (checked(reply)["launched"], reply.code) == (True, 0)
    assert bed.lab().record().instances["second"].nonce == bed.world.others["second"].nonce != nonce


@pytest.mark.parametrize("act", [instances.restart, instances.down])
def test_no_verdict_stands_of_an_l2_that_is_gone(bed: Bed, act: Any) -> None:
    assert bed.lab().record().verdict == "confirmed"
    _up(bed, "second", "canary")
    act(bed.session(), NAME, "second")
    assert bed.lab().record().verdict == "confirmed"  # of the main one
    act(bed.session(), NAME)
    assert bed.lab().record().verdict == ""
    before = len(bed.runs())
    assert up(bed.session(), NAME).code == 0
    assert len(bed.runs()) == before + 1, "it was climbed anew"


@pytest.mark.parametrize(
    ("health", "code"),
    [
        (HEALTHY, 0),
        (LATE, 12),
        (dataclasses.replace(LATE, diagnoses=(REFUTING,)), 10),
        (dataclasses.replace(LATE, diagnoses=(dataclasses.replace(REFUTING, refutes=False),)), 12),
        (dataclasses.replace(HEALTHY, diagnoses=(dataclasses.replace(REFUTING, refutes=False),)), 0),
    ],
)
def test_status_says_for_all_how_they_are(bed: Bed, health: Any, code: int) -> None:
    _up(bed)
    bed.world.health = health
    with bed.untouched("health"):
        reply = instances.status(bed.session(), NAME)
    assert reply.code == code
    assert [row["name"] for row in checked(reply)["emulators"]] == ["main", "second"]
    assert [check["ok"] for check in _row(reply, "main")["health"]["checks"]] == [True, True, True]
    shown = _shown(reply)
    for check in health.checks:
        assert check.observed in shown
    for diagnosis in health.diagnoses:
        assert diagnosis.what in shown and "│ Permission denied" in shown
    assert instances.up(bed.session(), NAME, "second").code == code
    assert instances.status(bed.session(), NAME, "main").code == 0


def test_a_canary_is_judged_by_the_ladders_own_rungs(bed: Bed) -> None:
    assert bed.world.l2
    bed.world.l2.hypervisor = TCG
    reply = instances.status(bed.session(), NAME)
    assert reply.code == 10
    assert "TCGTCGTCGTCG" in _row(reply, "main")["health"]["diagnoses"][0]["what"]
    bed.world.l2.nonce = "of another"
    reply = instances.status(bed.session(), NAME)
    assert (reply.code, _row(reply, "main")["health"]["checks"][-1]["ok"]) == (12, None)


def test_a_container_that_ended_refutes_nothing(bed: Bed) -> None:
    """As after a crash of L1: nothing starts it again by itself."""
    _up(bed, "second", "canary")
    bed.world.ended, bed.world.others = {"second"}, {}
    reply = instances.status(bed.session(), NAME)
    assert reply.code == 12 and not _row(reply, "second")["health"]["diagnoses"]
    assert "its container ended (exit code 255)" in _shown(reply)
    with pytest.raises(BlockedError, match="does not run"):
        device.shell(bed.session(), NAME, ["getprop"], "second")
    document, code = _up(bed, "second", "")
    assert (document["launched"], code) == (True, 0)


@pytest.mark.parametrize("failures", [1, 3])
def test_a_launch_that_fails_is_tried_again_and_none_is_hidden(bed: Bed, failures: int) -> None:
    bed.world.failures = ["KVM gave up"] * (failures + (failures == 3))
    document, code = _up(bed, "second", "canary")
    failed = bed.lab().record().instances["second"].failed_launches
    assert failed == ["KVM gave up"] * failures
    assert code == (10 if failures == 3 else 0)
    assert "KVM gave up" in json.dumps(document["emulator"]["health"])


def test_a_launch_that_cannot_go_better_is_not_tried_again(bed: Bed) -> None:
    bed.world.failures = [InconclusiveError("there is no /dev/kvm")] * 4
    document, code = _up(bed, "second", "canary")
    assert bed.lab().record().instances["second"].failed_launches == []
    assert code == 12 and "no /dev/kvm" in json.dumps(document["emulator"]["health"])


@pytest.mark.parametrize("losses", [1, 3])
def test_an_l2_that_is_lost_is_launched_anew_and_is_no_finding(bed: Bed, losses: int) -> None:
    bed.world.failures = [NestedLostError("L2 ended by itself")] * (losses + (losses == 3))
    document, code = _up(bed, "second", "canary")
    assert bed.lab().record().instances["second"].failed_launches == ["L2 ended by itself"] * losses
    assert code == (12 if losses == 3 else 0)
    told = json.dumps(document["emulator"]["health"])
    assert f"{losses} launches failed: L2 ended by itself" in told


def test_silence_is_no_finding(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> None:
        raise DeadlineError("L2 was not heard in 900 s")

    monkeypatch.setattr(FakeEmulator, "booted", silent)
    document, code = _up(bed, "second", "canary")
    assert code == 12
    assert document["emulator"]["health"]["checks"][-1]["observed"] == "L2 was not heard in 900 s"


@pytest.mark.parametrize("state", [State.STOPPED, State.SUSPENDED])
def test_without_a_vm_everything_is_blocked_and_nothing_done(bed: Bed, tmp_path: Path, state: State) -> None:
    _up(bed)
    bed.world.state = state
    record = bed.lab().record()
    for command in (instances.up, instances.down, instances.restart, device.logs, device.shell):
        more: list[Any] = [["getprop"]] if command is device.shell else []
        with bed.untouched(), pytest.raises(BlockedError, match=state.value):
            command(bed.session(), NAME, *more, emulator="second")  # type: ignore[operator]
    with pytest.raises(BlockedError):
        device.screenshot(bed.session(), NAME, str(tmp_path / "a.png"), "second")
    with pytest.raises(BlockedError):
        opening.open_(bed.session(), NAME, "second")
    reply = instances.status(bed.session(), NAME)
    assert (reply.code, _row(reply, "second")["health"]) == (ExitCode.BLOCKED, None)
    assert "the VM does not run" in _shown(reply)
    assert bed.lab().record() == record


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("Second", "", "cannot name an emulator"),
        ("a" * 32, "", "cannot name an emulator"),
        ("second", "redroid", "no emulator 'redroid'"),
        ("main", "docker-android", "main is canary, not docker-android"),
    ],
)
def test_what_cannot_be_asked_for_changes_nothing(bed: Bed, name: str, kind: str, what: str) -> None:
    record = bed.lab().record()
    with bed.untouched(), pytest.raises(UsageError, match=what):
        instances.up(bed.session(), NAME, name, kind)
    assert bed.lab().record() == record


def test_a_lab_without_an_emulator_may_have_named_ones(bed: Bed) -> None:
    up(bed.session(emulator="none"), NAME, fresh=True)
    with pytest.raises(UsageError, match="made without an emulator"):
        instances.up(bed.session(), NAME)
    document, code = _up(bed, "second", "")
    assert (document["emulator"]["kind"], code) == ("canary", 0)
    assert set(_forwards(bed)) == {"ssh", "adb-second"}
    assert status.status(bed.session(), NAME).document["emulators"][0]["name"] == "second"


@pytest.mark.parametrize("call", ["prepare", "load", "add_forward", "launch"])
def test_nothing_is_lost_when_it_is_cut_short(bed: Bed, call: str) -> None:
    bed.world.broken[call] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        _up(bed)
    record = bed.lab().record()
    assert record.instances["second"].index == 1
    names = {item.name for item in bed.world.forwards}
    assert names <= set(record.forwards), "a forward that is open is known"
    del bed.world.broken[call]
    deadline.cancelled.clear()
    assert _up(bed, kind="")[1] == 0
    instances.down(bed.session(), NAME, "second")
    assert set(_forwards(bed)) == {"ssh", "adb"}


def test_a_down_that_was_cut_short_is_repeated(bed: Bed) -> None:
    _up(bed)
    bed.world.broken["remove_forward"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        instances.down(bed.session(), NAME, "second")
    assert "second" in bed.lab().record().instances
    del bed.world.broken["remove_forward"]
    deadline.cancelled.clear()
    instances.down(bed.session(), NAME, "second")
    assert set(_forwards(bed)) == {"ssh", "adb"} and bed.lab().record().instances.keys() == {"main"}


def test_a_port_lost_in_a_race_is_chosen_again(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[int] = []
    add = FakeMachine.add_forward

    def race(self: FakeMachine, forward: Forward) -> None:
        if len(lost) < 2:
            lost.append(forward.host_port)
            raise PortTakenError("taken", [forward.host_port])
        add(self, forward)

    monkeypatch.setattr(FakeMachine, "add_forward", race)
    monkeypatch.setattr(ports, "is_free", lambda port: port not in lost)
    monkeypatch.setattr("lab.host.ports.is_free", lambda port: port not in lost)
    assert _up(bed, kind="canary")[1] == 0
    assert _forwards(bed)["adb-second"] not in lost and len(lost) == 2


def test_further_emulators_keep_their_ports_when_the_vm_stops_sleeps_and_goes_back(bed: Bed) -> None:
    _up(bed)
    opened = _forwards(bed)
    power.suspend(bed.session(), NAME)
    bed.world.forwards = []
    power.resume(bed.session(), NAME)
    assert _forwards(bed) == opened
    assert instances.status(bed.session(), NAME, "second").code == 0
    power.halt(bed.session(), NAME)
    bed.world.forwards = []
    assert up(bed.session(), NAME).code == 0
    assert _forwards(bed) == opened
    assert _up(bed, kind="")[0]["launched"] is True


def test_a_snapshot_has_the_emulators_of_then(bed: Bed) -> None:
    _up(bed)
    then = bed.lab().record().instances
    snapshots.snapshot(bed.session(), NAME, "two")
    instances.down(bed.session(), NAME, "second")
    _up(bed, "third", "canary")
    snapshots.restore(bed.session(), NAME, "two")
    assert bed.lab().record().instances == then
    assert set(_forwards(bed)) == {"ssh", "adb", "adb-second", "console-second", "novnc-second"}
    record = bed.lab().record()
    with pytest.raises(UsageError):
        snapshots.restore(bed.session(), NAME, "no-such")
    assert bed.lab().record() == record


def test_no_gigabytes_are_fetched_for_a_second_one_where_kvm_does_not_work(bed: Bed) -> None:
    bed.world.to_be_fetched, bed.world.kvm_ok = True, False
    prepared = bed.world.calls.count("prepare")
    with pytest.raises(BlockedError, match="is not fetched: KVM runs no tiny guest in the VM"):
        instances.up(bed.session(), NAME, "second", "docker-android")
    assert bed.world.calls.count("prepare") == prepared


def test_a_second_android_that_would_starve_the_vm_is_blocked(bed: Bed) -> None:
    bed.world.l1_memory_mib = 1000
    with pytest.raises(BlockedError, match="3072 MiB of the VM's memory, and 1000 MiB"):
        _up(bed)
    assert _up(bed, "third", "canary")[1] == 0


def test_lists_and_the_lab_itself_show_them_all(bed: Bed) -> None:
    _up(bed)
    with bed.untouched():
        listed = instances.list_emulators(bed.session(), NAME)
        single = status.status(bed.session(), NAME)
        labs = status.list_labs(bed.session())
    rows = checked(listed)["emulators"]
    assert [(row["name"], row["kind"]) for row in rows] == [("main", "canary"), ("second", "docker-android")]
    assert checked(single)["emulators"] == rows == checked(labs)["labs"][0]["emulators"]
    address = rows[1]["adb"]["address"]
    for reply in (listed, single, labs):
        assert address in _shown(reply)
    assert rows[1]["novnc"]["address"] in _shown(listed)


def test_up_with_android_ends_with_its_page(bed: Bed) -> None:
    reply = up(bed.session(emulator="docker-android"), NAME, fresh=True)
    page = checked(reply)["access"]["novnc"]["address"]
    assert page in _shown(reply) and "adb connect 127.0.0.1:" in _shown(reply)
    assert VNC_PASSWORD not in _shown(reply)
    assert bed.lab().record().emulator_why == "asked for"
    assert "screen:" in _shown(status.status(bed.session(), NAME))


# Parts


@pytest.mark.parametrize(
    ("acceleration", "nesting", "key"),
    [("kvm", "hardware", "android_nested"), ("tcg", "emulated", "android_shadow")],
)
def test_how_long_android_may_take(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, acceleration: str, nesting: Any, key: str
) -> None:
    waited: list[float] = []

    def wait(self: FakeAndroid, reach: Any, stage: str, step: Any, deadline: deadline.Deadline) -> Any:
        waited.append(deadline.seconds)
        return HEALTHY

    monkeypatch.setattr(FakeAndroid, "wait", wait)
    bed.world.facts = EngineFacts("qemu", "7.2", acceleration, nesting, "fake")
    session = bed.session(deadlines={"android_nested": 601, "android_shadow": 1801})
    instances.up(session, NAME, "second", "docker-android")
    assert waited == [getattr(session.settings.deadlines, key)]


def test_the_settings_reach_docker_android(bed: Bed, tmp_path: Path) -> None:
    wanted = {"archive": str(tmp_path / "a.tar"), "device": "Nexus 5", "env": ["A=b"], "cpus": 1.5}
    place = Workbench.open(bed.session(emulator=wanted), NAME).place("second", 1)
    options = AndroidOptions.of(place.settings)
    assert (options.archive, options.device, options.env) == (tmp_path / "a.tar", "Nexus 5", ("A=b",))
    assert (options.cpus, options.memory_mib, options.appium) == (1.5, 3072, False)
    assert (place.instance, place.index) == ("second", 1)
    assert AndroidOptions.of(bed.session().settings).archive is None


@pytest.mark.parametrize(("of_vm", "given"), [(1, 1.0), (2, 2.0), (4, 2.0), (0, 2.0)])
def test_a_container_is_never_given_more_processors_than_the_vm_has(
    bed: Bed, of_vm: int, given: float
) -> None:
    """Docker refuses that; 0 is not known."""
    bed.lab().change(cpus=of_vm)
    made = DockerAndroid(Workbench.open(bed.session(), NAME).place(), AndroidOptions())
    assert made._options.cpus == given


_NAMES = st.sampled_from(["a", "b", "c", "d"])


@given(st.lists(st.tuples(st.booleans(), _NAMES), max_size=12))
def test_numbers_are_free_again_and_never_shared(acts: list[tuple[bool, str]]) -> None:
    """Whatever comes and goes: every emulator has a number, and no two the same."""
    known: dict[str, Instance] = {}
    for comes, name in acts:
        if not comes:
            known.pop(name, None)
        elif name not in known:
            index = instances.free_index(known)
            assert 1 <= index <= len(known) + 1
            known[name] = Instance(kind="canary", index=index)
        indexes = [found.index for found in known.values()]
        assert len(set(indexes)) == len(indexes)


def test_a_name_may_follow_its_task() -> None:
    import tasks

    contexts = tasks.namespace.to_contexts()
    assert with_flags(["emulator.up", "second", "--kind", "canary"], contexts) == [
        "emulator.up",
        "--emulator",
        "second",
        "--kind",
        "canary",
    ]
    for words in (
        ["emulator.up", "--name", "x"],
        ["emulator.up", "emulator.list"],
        ["emulator.down"],
        ["lab.snapshot", "good"],
        [],
    ):
        assert with_flags(words, contexts) == words
    assert with_flags(["image.build", "canary"], contexts)[1:] == ["--image", "canary"]
    both = ["--before", "1", "--after", "2", "--json"]
    assert with_flags(["lab.diff", "1", "2", "--json"], contexts)[1:] == both
    assert with_flags(["lab.diff", "7", "--last-good"], contexts)[1:] == ["--before", "7", "--last-good"]


def test_the_stand_in_keeps_the_protocol() -> None:
    from lab.emulators.protocol import AndroidEmulator, Emulator

    for protocol, made in ((Emulator, FakeEmulator), (AndroidEmulator, FakeAndroid)):
        wanted = {name for base in protocol.__mro__ for name in vars(base) if not name.startswith("_")}
        wanted |= set(getattr(protocol, "__annotations__", {}))
        assert {name for name in wanted if not hasattr(made, name)} <= {"name"}


def test_an_image_that_has_no_name_leaves_no_emulator(bed: Bed) -> None:
    before = bed.lab().record()
    session = bed.session(emulator={"kind": "auto", "image": "Not An Image"})
    with bed.untouched(), pytest.raises(UsageError, match="not an image's name"):
        instances.up(session, NAME, "second", "docker-android")
    assert bed.lab().record() == before


def test_an_image_that_has_no_name_ends_no_emulator_that_runs(bed: Bed) -> None:
    instances.up(bed.session(), NAME, "second", "docker-android")
    session = bed.session(emulator={"kind": "auto", "image": "Not An Image"})
    runs = bed.runs()
    with bed.untouched(), pytest.raises(UsageError, match="not an image's name"):
        instances.restart(session, NAME, "second")
    assert bed.runs() == runs
