"""The control connection, against a small server that plays QEMU."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.core import deadline as deadlines
from lab.core.deadline import Deadline
from lab.core.errors import DeadlineError, InterruptedByUser
from lab.engines.protocol import Forward
from lab.engines.qemu import qmp
from lab.engines.qemu.forwarding import listed

GREETING = {
    "QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}
}
USERNET = """Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   31  127.0.0.1  2222       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  13       127.0.0.1  5556       10.0.2.15  5555     0     0\r
  TCP[HOST_FORWARD]  12       127.0.0.1  2222       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]  14         0.0.0.0  8080       10.0.2.15    80     0     0\r
"""


class Server:
    """Answers from a script: command to `{"return": …}`, `{"error": …}`, a list of them, or None
    for silence."""

    def __init__(self, path: Path, answers: dict[str, Any]) -> None:
        self.asked: list[dict[str, Any]] = []
        self._answers = {"qmp_capabilities": {"return": {}}, "job-dismiss": {"return": {}}} | answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        peer, _ = self._listener.accept()
        self._listener.close()
        with peer, peer.makefile("w") as stream:
            stream.write(json.dumps(GREETING) + "\n")
            stream.flush()
            text = ""
            while received := peer.recv(4096).decode():
                text += received
                while text:  # messages come without a separator
                    asked, end = json.JSONDecoder().raw_decode(text)
                    text = text[end:].lstrip()
                    self._answer(asked, stream)

    def _answer(self, asked: dict[str, Any], stream: Any) -> None:
        self.asked.append(asked)
        answer = self._answers[asked["execute"]]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if answer is not None:
            if asked["execute"] == "query-jobs":
                answer["return"][0]["id"] = self.asked[1]["arguments"]["job-id"]
            marker = {"id": asked["id"]} if "id" in asked else {}
            stream.write(json.dumps(answer | marker) + "\n")
            stream.flush()


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "q.sock"


@pytest.fixture(autouse=True)
def uncancelled() -> Iterator[None]:
    yield
    deadlines.cancelled.clear()


def test_an_answer_and_a_refusal(control: Path) -> None:
    refusal = {"error": {"class": "GenericError", "desc": "no such thing"}}
    server = Server(control, {"query-status": {"return": {"status": "running"}}, "stop": refusal})
    with qmp.connect(control) as monitor:
        assert monitor.execute("query-status", some_key=1) == {"status": "running"}
        assert server.asked[1]["arguments"] == {"some-key": 1}
        with pytest.raises(qmp.QmpRefusedError) as caught:
            monitor.execute("stop")
    assert "no such thing" in caught.value.tail


def test_silence_ends_at_the_deadline(control: Path) -> None:
    Server(control, {"stop": None})
    with qmp.connect(control) as monitor, pytest.raises(DeadlineError):
        monitor.execute("stop", Deadline.after(0.05))


def test_silence_ends_when_cancelled(control: Path) -> None:
    Server(control, {"stop": None})
    with qmp.connect(control) as monitor:
        deadlines.cancelled.set()
        with pytest.raises(InterruptedByUser):
            monitor.execute("stop")


def test_no_socket(control: Path) -> None:
    with pytest.raises(qmp.MonitorLostError), qmp.connect(control, alive=lambda: False):
        pass
    with pytest.raises(DeadlineError), qmp.connect(control, Deadline.after(0.05)):
        pass


def test_jobs_end_well_or_not(control: Path) -> None:
    running = {"return": [{"status": "running"}]}
    done = {"return": [{"status": "concluded", "error": "disk full"}]}
    Server(control, {"snapshot-save": {"return": {}}, "query-jobs": [running, done]})
    with qmp.connect(control) as monitor, pytest.raises(qmp.QmpRefusedError) as caught:
        monitor.job("snapshot-save", Deadline.after(5), tag="t")
    assert caught.value.tail == "disk full"


def test_forwards_are_told_as_qemu_has_them() -> None:
    asked = [Forward("ssh", 2222, 22), Forward("web", 8080, 80)]
    assert listed(USERNET, asked) == [Forward("ssh", 2222, 22), Forward("port-5556", 5556, 5555)]
    assert listed("", asked) == []
