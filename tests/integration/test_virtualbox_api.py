"""The worker's whole protocol over a stand-in of VirtualBox 6.1, 7.0, 7.1 and 7.2: every call must fit.

None of these versions runs here. Enums and glue are the real ones of each, downloaded once.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.config.loading import PROJECT
from lab.engines.virtualbox.worker import api as worker_api
from lab.engines.virtualbox.worker.__main__ import OPERATIONS, serve
from lab.engines.virtualbox.worker.faults import FaultError
from tests.integration.vboxcom import VERSIONS, installed, wheels
from tests.integration.vboxcom.running import Session
from tests.integration.vboxcom.scenarios import SCENARIOS, fault
from tests.integration.vboxcom.worker import Worker


@pytest.fixture(params=VERSIONS)
def worker(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Worker]:
    monkeypatch.setattr(worker_api, "_LOCK_SECONDS", 0.5)
    with installed(request.param) as world:
        yield Worker(world, tmp_path / "vm", tmp_path / "shared")


@pytest.mark.parametrize("what", SCENARIOS, ids=lambda item: item.__name__)
def test_every_call_fits(worker: Worker, what: Callable[[Worker], None]) -> None:
    what(worker)
    assert worker.misfits() == []


def test_states_are_read_by_their_names_on_every_version(worker: Worker) -> None:
    """7.0 moved all numbers above 4: pyvbox's tables, and other glue's, name them wrongly."""
    worker.create()
    states = worker.world.constants.all_values("MachineState")
    assert states["Running"] == (5 if worker.world.table.version == "6.1" else 6)
    for name in states:
        if not name.startswith(("First", "Last")):
            worker.record.state = name
            assert worker.state == name
    assert worker.misfits() == []


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ("AMD-V is not available (VERR_CPUM_INVALID_HWVIRT_CONFIG)", "nesting", ""),
        ("VERR_VM_DRIVER_NOT_INSTALLED", "blocked", "lab.doctor"),
        ("VT-x is not available (VERR_VMX_NO_VMX)", "blocked", "firmware"),
        ("VirtualBox can't operate in VMX root mode. (VERR_VMX_IN_VMX_ROOT_MODE)", "blocked", "rmmod"),
        (
            "VT-x is disabled in the BIOS for all CPU modes (VERR_VMX_MSR_ALL_VMX_DISABLED)",
            "blocked",
            "firmware",
        ),
        ("AMD-V is disabled in the BIOS (or by the host OS) (VERR_SVM_DISABLED)", "blocked", "firmware"),
        ("AMD-V is not available (VERR_SVM_NO_SVM)", "blocked", "firmware"),
        ("AMD-V is being used by another hypervisor (VERR_SVM_IN_USE).", "blocked", "rmmod"),
        ("Call to WHvSetupPartition failed (VERR_NEM_VM_CREATE_FAILED).", "blocked", "upgrade VirtualBox"),
        ("Not in a hypervisor partition (HVP=0) (VERR_NEM_NOT_AVAILABLE).", "blocked", "firmware"),
        (
            "Not in a hypervisor partition (HVP=0) (VERR_NEM_NOT_AVAILABLE).\n"
            "VT-x is being used by another hypervisor (VERR_VMX_IN_VMX_ROOT_MODE)",
            "blocked",
            "rmmod",
        ),
        ("The VM session was aborted", "failed", ""),
        ("", "failed", ""),
    ],
)
def test_a_start_that_fails_says_why_and_holds_nothing(
    worker: Worker, said: str, kind: str, hint: str
) -> None:
    worker.create()
    worker.world.broken["launchVMProcess"] = said
    refused = fault(kind, worker.launch)
    assert (said or "no word of explanation") in refused.tail and "0x80004005" in refused.tail
    assert hint in refused.hint
    assert worker.state == "PoweredOff" and not worker.record.holders
    worker.world.broken.clear()
    worker.launch()
    assert worker.state == "Running" and worker.misfits() == []


def test_who_else_holds_the_vm_is_waited_for_and_then_told(worker: Worker) -> None:
    record = worker.create()
    holder = Session(worker.world)
    holder.lock(record, write=True)
    assert "locked" in fault("busy", worker.launch).tail
    assert worker.of("look")["holder"] > 0
    # The lock of one that is about to let go.
    holder.let_go()
    record.lingering = 3
    worker.launch()
    assert worker.state == "Running" and worker.misfits() == []


def test_an_unregistration_waits_for_the_lock_too(worker: Worker) -> None:
    record = worker.create()
    record.lingering = 1
    worker.destroy()
    assert worker.state == "" and worker.misfits() == []


def test_somebody_elses_machine_is_left_alone(worker: Worker) -> None:
    other = Worker(worker.world, worker.folder.with_name("other"), worker.shared)
    record = other.create()
    worker.uuid = other.uuid
    before = json.dumps(record.settings)
    for call in (worker.create, worker.destroy):
        assert str(record.file) in fault("foreign", call).what
    assert json.dumps(record.settings) == before and record.uuid in worker.world.records
    assert worker.misfits() == []


def test_a_disk_on_another_image_is_not_taken(worker: Worker) -> None:
    worker.create()
    (worker.shared / "new.vdi").write_text("another image")
    other = Worker(worker.world, worker.folder.with_name("other"), worker.shared)
    disk = worker.spec()["disk"]
    said = fault("failed", other.create, base=str(worker.shared / "new.vdi"), disk=disk)
    assert "another image" in said.what and said.tail == disk
    missing = fault("failed", other.create, base=str(worker.shared / "gone.vdi"), disk=disk)
    assert missing.what.endswith("gone.vdi is missing")
    assert worker.misfits() == []


def test_what_is_not_there_is_missing(worker: Worker) -> None:
    for operation in sorted(OPERATIONS.keys() - {"describe", "convert", "create", "look", "destroy"}):
        words = {
            "launch": {"forwards": []},
            "forward": {"item": {"name": "x", "host_port": 2222, "guest_port": 22}},
            "unforward": {"name": "x"},
            "screenshot": {"target": str(worker.folder / "x.png")},
            "take": {"name": "x"},
            "restore": {"identity": "x"},
        }
        assert worker.uuid in fault("missing", worker.of, operation, **words.get(operation, {})).what
    assert worker.misfits() == []


def test_the_death_of_vboxsvc_is_told_from_a_failure(worker: Worker) -> None:
    worker.create()
    worker.launch()
    worker.world.dead = True
    for operation in ("look", "settings", "resume", "power_off", "snapshots", "save"):
        assert "0x80004004" in fault("dead", worker.of, operation).tail
    assert fault("dead", worker.create).kind == "dead"


def test_a_stream_of_requests_is_answered_one_by_one(worker: Worker) -> None:
    """Over one connection, made for the first; the numbers are those of the requests."""
    requests = [
        {"id": 1, "op": "create", "args": {"spec": worker.spec()}},
        {"id": 2, "op": "nonsense", "args": {}},
        {"id": 3, "op": "launch", "args": {"uuid": worker.uuid, "forwards": []}},
        {"id": 4, "op": "resume", "args": {"uuid": worker.uuid, "surplus": 1}},
        {"id": 5, "op": "look", "args": {"uuid": worker.uuid}},
    ]
    answers = io.StringIO()
    serve(io.StringIO("".join(json.dumps(item) + "\n" for item in requests)), answers)
    said = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [item["id"] for item in said] == [1, 2, 3, 4, 5]
    assert said[0] == {"id": 1, "result": None}
    assert said[1]["fault"]["kind"] == said[3]["fault"]["kind"] == "failed"
    assert said[4]["result"]["state"] == "Running"
    assert worker.misfits() == []


@pytest.mark.parametrize(
    ("version", "glue"), [("7.2", "6.1"), ("6.1", "7.2"), ("7.2", "7.0"), ("7.1", "7.0"), ("7.0", "6.1")]
)
def test_glue_of_another_version_is_refused(version: str, glue: str) -> None:
    with installed(version, glue) as world, pytest.raises(FaultError) as caught:
        worker_api.Api()
    assert caught.value.kind == "glue"
    assert world.release in caught.value.what and f"vbox-sdk=={world.release}" in caught.value.hint


def test_glue_without_virtualboxs_libraries_is_told() -> None:
    """In a process of its own, as the engine starts it: vboxapi is there, and XPCOM is not."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VBOX_")}
    done = subprocess.run(
        [sys.executable, "-m", "lab.engines.virtualbox.worker"],
        input=json.dumps({"id": 1, "op": "describe", "args": {}}) + "\n",
        env=environment | {"PYTHONPATH": f"{wheels.folder('7.2')}{os.pathsep}{PROJECT}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said = json.loads(done.stdout)
    assert said["id"] == 1 and said["fault"]["kind"] == "glue"
    assert "bindings cannot be loaded" in said["fault"]["what"] and "xpcom" in said["fault"]["tail"]
