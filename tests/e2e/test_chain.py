"""The whole chain on the embedded engine, in the order a user would live it.

The tests share one lab and stand on each other: they run in the order of this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.engines.qemu import network
from lab.engines.qemu.network import is_apart
from lab.host.ports import is_free
from lab.ladder.rungs import LADDER
from lab.model.domain import Claim
from tests.e2e.conftest import Lab

pytestmark = pytest.mark.timeout(1800)

_EVIDENCE = (
    "console.log",
    "dmesg.txt",
    "cpuinfo.txt",
    "docker-info.txt",
    "screenshot.png",
    "steps.jsonl",
)


def _rungs(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {rung["rung"]: rung for rung in document["rungs"]}


def _wait_for(what: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.2)


def _steps(lab: Lab) -> str:
    return "".join(path.read_text() for path in lab.state.glob("evidence/default/*-up/steps.jsonl"))


def _qemu(lab: Lab) -> list[psutil.Process]:
    """The VM processes of this state folder, and of no other."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if words and "qemu" in words[0] and any(str(lab.state) in word for word in words):
            found.append(process)
    return found


def _network(lab: Lab) -> list[psutil.Process]:
    """What joins those VMs' network namespaces to the host, where they have some."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(word.startswith(f"--api-socket={lab.state}") for word in process.cmdline()):
                found.append(process)
    return found


def test_a_kill_at_any_step_leaves_a_lab_that_up_goes_on_with(lab: Lab) -> None:
    """Killed hard while L1 boots, then while Docker is installed; the next `up` converges."""
    for number, moment in enumerate(('"name": "vm.boot"', '"name": "docker.install"'), 1):
        process = lab.start("lab.up")
        try:
            _wait_for(lambda moment=moment: _steps(lab).count(moment) >= 1, 900)  # type: ignore[misc]
            if number == 1:
                refused = lab.run("lab.up", "--json")
                assert refused.status == 20
                assert refused.document["schema"] == "lab.error/1"
                assert f"pid {process.pid}" in refused.document["error"]["what"]
                assert lab.json("lab.status")["holder"]["pid"] == process.pid
            time.sleep(3)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert [row["name"] for row in lab.json("lab.list")["labs"]] == ["default"]
        assert len(_qemu(lab)) == 1, "the VM outlives the command that started it"


def test_interrupted_up_saves_evidence_and_says_how_to_go_on(lab: Lab) -> None:
    process = lab.start("lab.up")
    seen = len(_steps(lab))
    _wait_for(lambda: len(_steps(lab)) > seen, 60)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "hint:" in err
    bundle = Path(lab.json("lab.evidence")["runs"][-1]["path"])
    assert (bundle / "console.log").stat().st_size > 0
    assert (bundle / "config.json").exists()


def test_up_ends_with_nesting_confirmed(lab: Lab) -> None:
    document = lab.json("lab.up")
    rungs = _rungs(document)
    assert document["claims"]["nesting"]["verdict"] == "confirmed"
    assert document["claims"]["android"]["verdict"] == "blocked"
    assert document["claims"]["theory"]["verdict"] == "not applicable"
    for name in LADDER.required(Claim.NESTING):
        assert rungs[name]["status"] == "passed", rungs[name]
    assert document["cell"]["image"].startswith("debian-13-")
    assert "KVMKVMKVM" in rungs["nested.adb"]["observed"]
    for forward in document["access"]["ports"]:
        with socket.create_connection(("127.0.0.1", forward["host_port"]), timeout=10):
            pass
    bundle = Path(document["evidence"])
    for name in _EVIDENCE:
        assert (bundle / name).stat().st_size > 0, name
    _no_secret_in(lab, bundle)


def test_android_was_left_out_with_the_reason(lab: Lab) -> None:
    document = lab.json("lab.validate", "--claim", "android", status=11)
    reason = document["claims"]["android"]["reason"]
    assert "canary is not Android" in reason
    assert "nesting is emulated" in reason and "cannot be fetched" in reason
    assert document["claims"]["nesting"]["verdict"] == "confirmed"


def _no_secret_in(lab: Lab, bundle: Path) -> None:
    keys = lab.state / "labs" / "default" / "keys"
    secrets = [path.read_text().splitlines()[1] for path in (keys / "id_ed25519", keys / "host_ed25519")]
    for path in bundle.rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode(errors="replace")
            assert not any(secret in text for secret in secrets), path


def test_everything_listens_on_the_loopback_only(lab: Lab) -> None:
    listening = [
        item
        for process in (*_qemu(lab), *_network(lab))
        if not is_apart(process.pid)
        for item in process.net_connections("inet")
        if item.status == psutil.CONN_LISTEN
    ]
    assert {item.laddr.ip for item in listening} == {"127.0.0.1"}
    assert len(listening) == 2


_REACH = """
import socket, sys
for name, port in (word.rsplit(":", 1) for word in sys.argv[1:]):
    try:
        socket.create_connection((name, int(port)), 5).close()
        print(f"{name} reached")
    except OSError as error:
        print(f"{name} {error}")
"""


@pytest.mark.skipif(bool(network.why_open()), reason=network.why_open())
def test_neither_l1_nor_its_container_reaches_the_hosts_loopback(lab: Lab) -> None:
    """What they do reach, so that it is known that they ask: the host by an address of its network."""
    own = next(
        item.address
        for addresses in psutil.net_if_addrs().values()
        for item in addresses
        if item.family == socket.AF_INET and not item.address.startswith("127.")
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.socket(socket.AF_INET6) as six,
        socket.create_server((own, 0)) as outside,
    ):
        port, reached = four.getsockname()[1], outside.getsockname()[1]
        six.bind(("::1", port))
        six.listen()
        ways = [f"10.0.2.2:{port}", f"fec0::2:{port}", f"{own}:{reached}"]
        said = lab.json("lab.exec", "--", "sudo", "python3", "-c", _REACH, *ways)["out"].splitlines()
        assert [line.split()[-1] == "reached" for line in said] == [False, False, True], said
        outside.accept()[0].close()
        inside = "nc -w 5 10.0.2.2 {port} </dev/null; nc -w 5 {own} {reached} </dev/null"
        words = ["sudo", "docker", "exec", "lab-canary", "sh", "-c"]
        asking = lab.start("lab.exec", "--", *words, inside.format(port=port, own=own, reached=reached))
        try:
            outside.settimeout(120)
            outside.accept()[0].close()  # it waits until its peer is gone
            asking.communicate(timeout=60)
        finally:
            asking.kill()
        assert select.select([four, six], [], [], 1)[0] == []


def test_up_on_a_ready_lab_changes_nothing(lab: Lab) -> None:
    before = [(process.pid, process.create_time()) for process in _qemu(lab)]
    again = lab.run("lab.up")
    assert again.status == 0, again.err
    assert "nothing was changed" in again.out
    assert before == [(process.pid, process.create_time()) for process in _qemu(lab)]


def test_exec_copy_and_logs(lab: Lab, tmp_path: Path) -> None:
    document = lab.json("lab.exec", "--", "printf", "%s|", "two words", "$HOME")
    assert document["out"] == "two words|$HOME|"
    assert lab.run("lab.exec", "--", "sh", "-c", "exit 7").status == 7
    original, back = tmp_path / "original", tmp_path / "back"
    original.write_bytes(os.urandom(100_000))
    assert lab.run("lab.copy", str(original), "lab:/tmp/").status == 0
    assert lab.run("lab.copy", "lab:/tmp/original", str(back)).status == 0
    assert back.read_bytes() == original.read_bytes()
    assert lab.run("lab.copy", "a", "b").status == 2
    assert "systemd" in lab.run("lab.logs").out
    assert lab.run("lab.logs", "--source", "container").out.strip()


def test_status_shows_the_container_and_how_to_reach_the_lab(lab: Lab) -> None:
    document = lab.json("lab.status", "--deep")
    assert document["lab"]["state"] == "running"
    assert document["container"]["running"]
    assert "StrictHostKeyChecking=yes" in document["ssh"]["command"]
    assert document["adb"]["address"].startswith("127.0.0.1:")


def test_suspend_and_resume_bring_the_same_l2_back(lab: Lab) -> None:
    assert lab.json("lab.suspend")["state"] == "suspended"
    assert not _qemu(lab)
    assert lab.json("lab.suspend")["changed"] is False
    answer = lab.json("lab.resume")
    assert answer["state"] == "running"
    assert any("ADB answers" in note for note in answer["notes"])
    log = lab.json("lab.exec", "--", "sudo", "docker", "logs", "--tail", "1", "lab-canary")
    last = log["out"] + log["err"]
    ready = lab.run("lab.up")  # the same L2, by its boot id, or it would have climbed anew
    assert ready.status == 0
    # An emulated processor loses an L2 now and then: QEMU ends with 0. One that was killed (want of memory?)
    # or stopped is the comparison's doing.
    assert "nothing was changed" in ready.out or "QEMU ended with status 0 after L2 had begun" in last, last


def test_validate_agrees(lab: Lab) -> None:
    document = lab.json("lab.validate")
    assert document["verdict"] == "confirmed"
    assert (Path(document["evidence"]) / "report.html").is_file()


def test_a_comparison_measures_what_nesting_is_worth_and_leaves_l2_as_it_was(lab: Lab) -> None:
    """One boot each way: `lab.validate --compare` takes its pair by the same code; ARM: e2e-nightly."""
    document = lab.json("lab.compare", "--runs", "1", "--no-arm")
    assert [item["name"] for item in document["emulators"]] == ["canary"]
    assert {row["outcome"] for row in document["measurements"]} == {"measured"}, document["measurements"]
    with_kvm, without = document["summary"]
    assert (with_kvm["route"], with_kvm["n"], without["n"]) == ("nested-kvm", 1, 1)
    assert 0 < with_kvm["median"] < without["median"]
    (ratio,) = document["ratios"]
    times = without["median"] / with_kvm["median"]
    assert ratio["value"] == pytest.approx(times, abs=0.001)
    # Of one pair no spread is known, and none is made up.
    assert (ratio["n_over"], ratio["n_under"], ratio["low"], ratio["high"]) == (1, 1, None, None)
    bundle = Path(document["evidence"])
    assert (bundle / "compare.png").read_bytes().startswith(b"\x89PNG")
    page = (bundle / "compare.html").read_text()
    assert f"{times:.1f} times" in page and "<svg" in page
    assert "src=" not in page and "<script" not in page and page.count("<link") == page.count("data:,")
    names = lab.json("lab.exec", "--", "sudo", "docker", "ps", "--all", "--format", "{{.Names}}")["out"]
    assert names.split() == ["lab-canary"], "the L2s that were timed are gone"
    ready = lab.run("lab.up")  # the same L2, by its boot id, or it would have climbed anew
    assert ready.status == 0
    assert "nothing was changed" in ready.out


def test_the_report_shows_what_was_compared(lab: Lab) -> None:
    report = {item["format"]: Path(item["path"]) for item in lab.json("lab.report")["files"]}
    measured = json.loads((_compared(lab) / "compare.json").read_text())["ratios"][0]["value"]
    shown = json.loads(report["json"].read_text())["comparison"]["ratios"][0]
    assert shown["ratio"] == measured
    for form in ("html", "markdown"):
        assert f"{measured:.1f} times" in report[form].read_text(), form


def _compared(lab: Lab) -> Path:
    return max(lab.state.glob("evidence/default/*-compare"))


def test_android_and_theory_are_not_claimed(lab: Lab) -> None:
    assert lab.json("lab.validate", "--claim", "android", status=11)["verdict"] == "blocked"


def test_a_snapshot_brings_back_what_was(lab: Lab) -> None:
    lab.json("lab.exec", "--", "touch", "/home/lab/before")
    assert lab.json("lab.snapshot", "good")["changed"] is True
    assert lab.json("lab.snapshot", "good", status=2)["schema"] == "lab.error/1"
    lab.json("lab.exec", "--", "rm", "/home/lab/before")
    assert [row["name"] for row in lab.json("lab.snapshots")["snapshots"]] == ["good"]
    assert lab.json("lab.restore", "good")["state"] == "running"
    assert lab.run("lab.exec", "--", "test", "-e", "/home/lab/before").status == 0


@pytest.mark.parametrize(
    ("sabotage", "repair", "rung", "verdict", "code"),
    [
        pytest.param("docker kill lab-canary", "", "nested.boot", "inconclusive", 12, id="container-killed"),
        # That lab's own user may not open the device says nothing of KVM.
        pytest.param(
            "chmod 0600 /dev/kvm", "chmod 0660 /dev/kvm", "guest.kvm", "inconclusive", 12, id="kvm-closed"
        ),
    ],
)
def test_a_broken_chain_is_never_green(
    lab: Lab, sabotage: str, repair: str, rung: str, verdict: str, code: int
) -> None:
    lab.json("lab.exec", "--", "sudo", *sabotage.split())
    try:
        answer = lab.run("lab.validate", "--json")
        assert answer.status == code, answer.err
        assert answer.document["claims"]["nesting"]["verdict"] == verdict
        assert _rungs(answer.document)[rung]["status"] != "passed"
        assert _rungs(answer.document)["nested.adb"]["status"] != "passed"
    finally:
        if repair:
            lab.json("lab.exec", "--", "sudo", *repair.split())


def test_up_after_a_halt_comes_back_to_confirmed(lab: Lab) -> None:
    halted = lab.json("lab.halt")
    assert halted["state"] == "stopped"
    assert halted["notes"] == ["powered off"]
    assert lab.json("lab.up")["verdict"] == "confirmed"


def test_destroy_leaves_nothing_behind(lab: Lab) -> None:
    address = lab.json("lab.status")["adb"]["address"]
    ours = _of(lab)
    document = lab.json("lab.destroy")
    assert document["state"] == "absent"
    assert not [process for process in ours if _alive(process)]
    assert not list((lab.state / "labs").iterdir())
    assert is_free(int(address.split(":")[1]))
    assert lab.json("lab.list")["labs"] == []
    assert (lab.state / "evidence" / "default").is_dir(), "evidence outlives the lab"


def _alive(process: psutil.Process) -> bool:
    """Still running: an ended process that the system has not collected yet is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _of(lab: Lab) -> list[psutil.Process]:
    """Every process that has this state folder in its words: QEMU and the adb server."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(lab.state) in word for word in process.cmdline()) or (
                "adb" in process.name() and str(lab.state) in str(process.environ().get("HOME"))
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found
