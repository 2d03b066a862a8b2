"""The client against real processes: a scripted worker, and the worker's own main without VirtualBox."""

import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest

from lab.config.loading import PROJECT
from lab.core import deadline
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, BusyError, DeadlineError, InterruptedByUser, LabError
from lab.engines.protocol import NestingRefusedError
from lab.engines.virtualbox import client as client_module
from lab.engines.virtualbox.client import WorkerClient
from lab.engines.virtualbox.transport import ForeignError, GlueError, MissingError, WorkerLostError

WORKER = """
import json, os, sys, time
from pathlib import Path

def times(name):
    mark = Path(__file__).with_name(name)
    count = int(mark.read_text()) + 1 if mark.exists() else 1
    mark.write_text(str(count))
    return count

Path(__file__).with_name("pid").write_text(str(os.getpid()))
for line in sys.stdin:
    asked = json.loads(line)
    def say(**words):
        print(json.dumps({"id": asked["id"], **words}), flush=True)
    op, args = asked["op"], asked["args"]
    if op == "echo":
        say(result=args)
    elif op == "pid":
        say(result=[os.getpid(), asked["id"]])
    elif op == "fault":
        say(fault={"kind": args["kind"], "what": "it failed", "tail": "VERR_X", "hint": "do something"})
    elif op == "dies":
        if times("dies") <= args["deaths"]:
            sys.stderr.write("first line\\nVBoxSVC has gone\\n")
            sys.exit(3)
        say(result=os.getpid())
    elif op == "loses":
        if times("loses") <= args["times"]:
            say(fault={"kind": "dead", "what": "VBoxSVC died", "tail": "0x80004004", "hint": ""})
        else:
            say(result=os.getpid())
    elif op == "leaves":
        say(result=None)
        break
    elif op == "hangs":
        time.sleep(600)
    elif op == "noise":
        print("init exception: something\\n{ not JSON", flush=True)
        print(json.dumps({"id": asked["id"] - 1, "result": "of another request"}), flush=True)
        say(result="answer")
    elif op == "environment":
        say(result={"argv": sys.argv[1:], "env": dict(os.environ), "session": os.getsid(0) == os.getpid()})
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "python"
    path.write_text(f"#!{sys.executable}\n" + WORKER)
    path.chmod(0o755)
    return path


@pytest.fixture
def client(script, monkeypatch):
    monkeypatch.setattr(client_module, "_GOODBYE_SECONDS", 1.0)
    made = WorkerClient(str(script), Path("/opt/box"), [Path("/glue/a"), Path("/glue/b")])
    yield made
    made.close()


def alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_one_process_answers_call_after_call(client):
    assert client.call("echo", a=1, b=["ä", None]) == {"a": 1, "b": ["ä", None]}
    (first, one), (second, two) = client.call("pid"), client.call("pid")
    assert first == second and two == one + 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("missing", MissingError),
        ("busy", BusyError),
        ("nesting", NestingRefusedError),
        ("foreign", ForeignError),
        ("glue", GlueError),
        ("failed", LabError),
        ("something new", LabError),
    ],
)
def test_faults_are_errors_of_their_kind(client, kind, error):
    with pytest.raises(LabError) as caught:
        client.call("fault", kind=kind)
    assert type(caught.value) is error
    assert (caught.value.what, caught.value.tail, caught.value.hint) == (
        "it failed",
        "VERR_X",
        "do something",
    )
    assert client.call("echo") == {}


def test_what_is_only_refused_keeps_the_process(client):
    before = client.call("pid")[0]
    with pytest.raises(MissingError):
        client.call("fault", kind="missing")
    assert client.call("pid")[0] == before


@pytest.mark.parametrize(("operation", "words"), [("dies", {"deaths": 1}), ("loses", {"times": 1})])
def test_a_death_is_survived_once(client, operation, words):
    """Of the worker itself, or of VBoxSVC, after which the worker is of no more use."""
    before = client.call("pid")[0]
    assert client.call(operation, **words) not in (None, before)
    assert not alive(before)


def test_two_deaths_are_told_with_what_was_said_last(client):
    with pytest.raises(WorkerLostError) as caught:
        client.call("dies", deaths=2)
    assert "`dies` (status 3)" in caught.value.what
    assert caught.value.tail == "first line\nVBoxSVC has gone"
    assert client.call("echo", x=1) == {"x": 1}, "and the next call has a new process"
    with pytest.raises(WorkerLostError, match="VBoxSVC died"):
        client.call("loses", times=2)


def test_a_worker_that_ended_between_two_calls(client, script):
    client.call("leaves")
    psutil.wait_procs([psutil.Process(int(script.with_name("pid").read_text()))], timeout=10)
    assert client.call("echo", x=2) == {"x": 2}


def test_a_deadline_ends_the_worker(client, script):
    client.call("echo")
    pid = int(script.with_name("pid").read_text())
    with pytest.raises(DeadlineError, match="`hangs` in 0 s"):
        client.call("hangs", Deadline.after(0.3))
    assert not alive(pid)
    assert client.call("pid")[0] != pid


def test_a_cancelled_command_waits_no_longer(client, script):
    client.call("echo")
    pid = int(script.with_name("pid").read_text())
    timer = threading.Timer(0.3, deadline.cancelled.set)
    started = time.monotonic()
    try:
        timer.start()
        with pytest.raises(InterruptedByUser):
            client.call("hangs")
    finally:
        timer.join()
        deadline.cancelled.clear()
    assert time.monotonic() - started < 5
    assert not alive(pid)
    assert client.call("echo", x=3) == {"x": 3}


def test_noise_and_answers_to_others_are_passed_over(client):
    assert client.call("noise") == "answer"
    assert client.call("echo", x=4) == {"x": 4}


def test_threads_take_turns(client):
    found = {}
    threads = [
        threading.Thread(target=lambda n=number: found.update({n: client.call("echo", n=n)}))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {number: {"n": number} for number in range(8)}


def test_the_worker_finds_its_glue_and_the_libraries(client):
    said = client.call("environment")
    assert said["argv"] == ["-m", "lab.engines.virtualbox.worker"]
    assert said["session"], "Ctrl-C must not reach it"
    path = said["env"]["PYTHONPATH"].split(os.pathsep)
    assert path[:3] == ["/glue/a", "/glue/b", str(PROJECT)]
    assert (Path(path[3]) / "virtualbox" / "__init__.py").exists()
    home = {name: said["env"][name] for name in ("VBOX_PROGRAM_PATH", "VBOX_INSTALL_PATH")}
    assert set(home.values()) == {"/opt/box"} and said["env"]["VBOX_SDK_PATH"] == "/opt/box/sdk"


def test_a_python_that_is_not_there(tmp_path):
    missing = WorkerClient(str(tmp_path / "none"), tmp_path, [])
    with pytest.raises(BlockedError, match="cannot be started") as caught:
        missing.call("echo")
    assert "virtualbox.python" in caught.value.hint


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_no_worker_outlives_its_client(script, how):
    made = WorkerClient(str(script), Path("/opt/box"), [])
    pid = made.call("pid")[0]
    started = time.monotonic()
    if how == "closed":
        made.close()
        made.close()
    else:
        del made
        gc.collect()
    assert not alive(pid)
    assert time.monotonic() - started < 4, "it ended at its input's end, and was not killed"


def test_all_who_ask_share_one_client(tmp_path):
    made = client_module.client("", tmp_path, (tmp_path,))
    assert made is client_module.client("", tmp_path, (tmp_path,))
    assert made is not client_module.client("other", tmp_path, (tmp_path,))


def main(code, requests):
    """Run the worker's own main, with `code` before it; what it wrote to standard output and error."""
    text = textwrap.dedent(
        """
        import os, sys
        from lab.engines.virtualbox.worker import __main__ as worker
        worker.serve.__defaults__ = (lambda: None,)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", text + textwrap.dedent(code) + "worker.main()\n"],
        input="".join(json.dumps(item) + "\n" for item in requests),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_what_the_libraries_print_does_not_get_between_the_lines():
    code = """
        def noisy(api, uuid):
            print("from Python", flush=True)
            os.write(1, b"from C\\n")
            return {"state": uuid}
        worker.OPERATIONS["look"] = noisy
    """
    requests = [{"id": number, "op": "look", "args": {"uuid": "x"}} for number in (1, 2)]
    answers, noise = main(code, requests)
    assert answers == [{"id": 1, "result": {"state": "x"}}, {"id": 2, "result": {"state": "x"}}]
    assert noise.count("from Python") == noise.count("from C") == 2


def test_the_worker_goes_on_after_a_fault_and_ends_with_its_input():
    code = """
        def fails(api):
            raise ValueError("of the binding")
        worker.OPERATIONS["describe"] = fails
        worker.OPERATIONS["look"] = lambda api, uuid: uuid
    """
    requests = [
        {"id": 1, "op": "describe", "args": {}},
        {"id": 2, "op": "nothing", "args": {}},
        {"id": 3, "op": "look", "args": {"uuid": "x"}},
    ]
    answers, _ = main(code, requests)
    assert (
        answers[0]["fault"]["kind"] == "failed"
        and "ValueError: of the binding" in answers[0]["fault"]["tail"]
    )
    assert answers[1]["fault"]["kind"] == "failed"
    assert answers[2] == {"id": 3, "result": "x"}
