"""VirtualBoxMachine's saved states, and its whole life in any order, over a stand-in for the worker."""

import contextlib
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lab.core.deadline import Deadline
from lab.core.errors import LabError, UsageError
from lab.engines.protocol import State
from tests.unit.vbox_client import FakeClient, machine_in


@pytest.fixture
def box():
    return FakeClient()


@pytest.fixture
def machine(tmp_path, box):
    return machine_in(tmp_path, box)


@pytest.fixture
def created(machine):
    machine.create()
    return machine


def test_suspend_and_resume(created, box):
    for state in ("Running", "Paused"):
        box.state = state
        created.suspend()
        assert box.state == "Saved" and box.deadlines["save"] > 200
    created.suspend()
    assert box.asked.count("save") == 2
    created.resume([])
    assert box.state == "Running"
    box.state = "Paused"
    created.resume([])
    assert box.state == "Running" and box.asked[-1] == "resume"


@pytest.mark.parametrize("state", ["", "PoweredOff", "Aborted", "Stuck"])
def test_what_does_not_run_is_not_suspended(machine, box, state):
    box.state = state
    with pytest.raises(UsageError, match="cannot be suspended"):
        machine.suspend()
    with pytest.raises(UsageError, match="is not suspended"):
        machine.resume([])
    with pytest.raises(UsageError, match="no screen"):
        machine.screenshot(machine.spec.folder / "x.png")


def test_memory_that_a_crash_left_saved_is_resumed(created, box):
    for begin in (created.resume, created.start):
        box.state = "AbortedSaved"
        assert created.status() is State.SUSPENDED
        created.suspend()
        begin([])
        assert box.state == "Running"
    assert "save" not in box.asked


@pytest.mark.parametrize("state", ["Saved", "AbortedSaved"])
def test_a_restore_that_fails_leaves_the_saved_memory(created, box, state):
    created.snapshot("a")
    box.state = state
    box.broken["restore"] = LabError("the snapshot's file is damaged")
    with pytest.raises(LabError, match="damaged"):
        created.restore("a", [])
    assert box.state == state


def test_snapshots(created, box):
    created.snapshot("off")
    created.start([])
    created.snapshot("live")
    off, live = created.snapshots()
    assert [(item.name, item.live) for item in (off, live)] == [("off", False), ("live", True)]
    assert off.created == datetime.fromtimestamp(1_700_000_000.5, UTC)
    with pytest.raises(UsageError, match="a snapshot `off` already"):
        created.snapshot("off")
    created.restore("off", [])
    assert box.state == "PoweredOff", "what ran is given up"
    created.restore("live", [])
    assert box.state == "Running", "its memory runs again"
    created.suspend()
    created.restore("off", [])
    assert box.state == "PoweredOff", "saved memory is given up, too"
    with pytest.raises(UsageError, match="no snapshot `live 1`") as caught:
        created.restore("live 1", [])
    assert caught.value.hint == "there is: live"


def test_snapshots_of_nothing(machine, box):
    assert machine.snapshots() == []
    with pytest.raises(UsageError, match="is not created"):
        machine.snapshot("x")
    with pytest.raises(UsageError, match="no snapshot `x`") as caught:
        machine.restore("x", [])
    assert "takes one" in caught.value.hint


@pytest.mark.parametrize("state", ["Saved", "AbortedSaved"])
def test_suspended_memory_cannot_go_into_a_snapshot(created, box, state):
    box.state = state
    with pytest.raises(UsageError, match="suspended machine's memory"):
        created.snapshot("x")


class Life(RuleBasedStateMachine):
    """Whatever is done, by lab or to its VM behind its back, the promises of the protocol hold."""

    names = st.sampled_from(["a", "b"])

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.box = FakeClient()
        self.machine = machine_in(self.folder, self.box)

    def teardown(self):
        shutil.rmtree(self.folder)

    @property
    def there(self):
        return self.box.state != ""

    @rule()
    def create(self):
        before = self.box.state
        self.machine.create()
        assert self.box.state == (before or "PoweredOff")

    @precondition(lambda self: self.there)
    @rule()
    def start(self):
        self.machine.start([])
        assert self.machine.status() is State.RUNNING

    @rule(polite=st.booleans())
    def stop(self, polite):
        self.box.polite = polite
        seconds = 30 if polite else 0
        before = self.box.state
        self.machine.stop(Deadline.after(seconds))
        if before in ("Saved", "AbortedSaved"):
            assert self.box.state == before, "its memory is kept"
        else:
            assert self.machine.status() in (State.STOPPED, State.ABSENT)

    @rule()
    def suspend(self):
        could = self.machine.status() in (State.RUNNING, State.PAUSED, State.SUSPENDED)
        with contextlib.nullcontext() if could else pytest.raises(UsageError):
            self.machine.suspend()
        assert (self.machine.status() is State.SUSPENDED) == could

    @rule()
    def resume(self):
        could = self.machine.status() in (State.RUNNING, State.PAUSED, State.SUSPENDED)
        with contextlib.nullcontext() if could else pytest.raises(UsageError):
            self.machine.resume([])
        assert (self.machine.status() is State.RUNNING) == could

    @rule(name=names)
    def snapshot(self, name):
        before = [item.name for item in self.machine.snapshots()]
        suspended = self.box.state in ("Saved", "AbortedSaved", "")
        could = not suspended and name not in before and self.box.state != "Stuck"
        with contextlib.nullcontext() if could else pytest.raises(Exception):
            self.machine.snapshot(name)
        assert [item.name for item in self.machine.snapshots()] == before + [name] * could

    @rule(name=names)
    def restore(self, name):
        known = {item.name: item.live for item in self.machine.snapshots()}
        with contextlib.nullcontext() if name in known else pytest.raises(UsageError):
            self.machine.restore(name, [])
            assert self.machine.status() is (State.RUNNING if known[name] else State.STOPPED)

    @rule()
    def destroy(self):
        self.machine.destroy()
        assert self.machine.status() is State.ABSENT
        assert not self.machine.spec.folder.exists()

    @precondition(lambda self: self.there)
    @rule()
    def its_process_is_killed(self):
        self.box.state = {"Running": "Aborted", "Paused": "Aborted", "Saved": "AbortedSaved"}.get(
            self.box.state, self.box.state
        )

    @precondition(lambda self: self.box.state == "Running")
    @rule(state=st.sampled_from(["Paused", "Stuck", "PoweredOff"]))
    def somebody_else_acts(self, state):
        self.box.state = state

    @rule(states=st.lists(st.sampled_from(["Starting", "Saving", "Restoring"]), max_size=1))
    def it_is_looked_at_in_passage(self, states):
        self.box.passing = states
        self.machine.status()

    @invariant()
    def the_journal_has_what_exists(self):
        assert not self.there or self.machine._journal.entries("vm")


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
