"""The choice of acceleration, what is said of it, and the registry of engines."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.core.errors import UsageError
from lab.engines import engine, names
from lab.engines.options import Acceleration, Options, QemuOptions
from lab.engines.protocol import Forward
from lab.engines.qemu import network
from lab.engines.qemu.engine import QemuEngine
from lab.engines.qemu.host import Capabilities, HostQemu, newest_q35, parse_version
from lab.engines.qemu.launching import port_error


@dataclass
class Answer:
    usable: bool
    why: str = "a kernel booted in 0.4 s"
    nested: bool = True


def _engine(kvm: Callable[[], Answer], acceleration: Acceleration = "auto", **known: Any) -> QemuEngine:
    """On a host with QEMU 9.0.1, whose VMs do not reach its loopback, unless `known` says otherwise."""
    has: dict[str, Any] = {
        "find": lambda name: f"/bin/{name}",
        "version": lambda _: (9, 0, 1),
        "capabilities": lambda _: Capabilities("pc-q35-9.0", True),
        "why_open": lambda: "",
    }
    return QemuEngine(HostQemu(kvm, acceleration, **has | known))


@pytest.mark.parametrize(
    ("acceleration", "answer", "expected"),
    [
        ("auto", Answer(True), ("kvm", "hardware")),
        ("auto", Answer(True, nested=False), ("kvm", "none")),
        ("auto", Answer(False, "it hung"), ("tcg", "emulated")),
        ("kvm", Answer(False, "it hung"), ("kvm", "hardware")),
        ("tcg", Answer(True), ("tcg", "emulated")),
    ],
)
def test_acceleration(acceleration: Acceleration, answer: Answer, expected: tuple[str, str]) -> None:
    asked = []

    def kvm() -> Answer:
        asked.append(1)
        return answer

    facts = _engine(kvm, acceleration).facts()
    assert (facts.acceleration, facts.nesting) == expected
    assert facts.version == "9.0.1"
    if acceleration == "auto":
        assert answer.why in facts.how
    assert len(asked) == (acceleration != "tcg")


def test_an_old_qemu_is_refused() -> None:
    answer = _engine(lambda: Answer(True), version=lambda _: (6, 2, 0)).availability()
    assert not answer.usable and "6.2.0" in answer.why and "7.2" in answer.why


def test_forced_kvm_needs_the_device(tmp_path: Path) -> None:
    answer = _engine(lambda: Answer(True), "kvm", device=tmp_path / "kvm").availability()
    assert not answer.usable and answer.hint


def test_versions() -> None:
    assert parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nC") == (7, 2, 22)
    assert parse_version("QEMU emulator version 11.0.50 (v11)") == (11, 0, 50)
    assert parse_version("something else") is None


def test_the_newest_machine() -> None:
    answers = '{"QMP": {}}\n{"return": {}}\ntorn{\n{"return": [{"name": "pc-i440fx-9.0", "alias": "pc"},'
    answers += '{"name": "pc-q35-8.2"}, {"name": "pc-q35-9.0", "alias": "q35"}]}\n'
    assert newest_q35(answers) == "pc-q35-9.0"
    assert newest_q35('{"return": [{"name": "virt"}]}') == ""


def test_all_taken_ports_are_found(tmp_path: Path) -> None:
    with socket.socket() as holder, socket.socket() as other:
        for item in (holder, other):
            item.bind(("127.0.0.1", 0))
        holder.listen()
        held, free = holder.getsockname()[1], other.getsockname()[1]
        other.close()
        forwards = [Forward("a", 1, 1), Forward("b", held, 2), Forward("c", free, 3)]
        error = port_error(1, forwards, "QEMU's words", tmp_path)
    assert error.ports == [1, held]
    assert str(held) in error.what and error.tail == "QEMU's words"


def test_the_registry(tmp_path: Path) -> None:
    options = Options(tmp_path, QemuOptions("tcg"))
    assert [engine(name, options).name for name in names()] == ["virtualbox", "qemu"]
    with pytest.raises(UsageError) as caught:
        engine("qmeu", options)
    assert "qemu" in caught.value.hint


def test_a_reachable_loopback_is_told_with_the_reason() -> None:
    made = _engine(lambda: Answer(True), "tcg")
    (closed,) = made.findings([])
    assert closed.good and made.facts().details["host_loopback"] == "out of reach"
    made = _engine(lambda: Answer(True), "tcg", why_open=lambda: "slirp4netns not found")
    (reachable,) = made.findings([])
    assert not reachable.good and "slirp4netns not found" in reachable.observed and reachable.hint
    assert made.facts().details["host_loopback"] == "within reach: slirp4netns not found"


def test_only_linux_has_network_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert "Linux" in network.why_open()


def test_what_was_just_installed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    there: list[str] = ["unshare"]

    def why_open() -> str:
        return network.why_open(
            lambda name: Path(name) if name in there else None, Path("/dev/null"), lambda: ""
        )

    assert why_open() == "slirp4netns not found"
    there.append("slirp4netns")
    assert why_open() == ""


def test_kvm_is_probed_with_the_configured_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "lab.host.kvm.functional_probe", lambda *_, qemu="", **__: asked.append(qemu) or Answer(True)
    )
    made = engine("qemu", Options(tmp_path, QemuOptions("auto", binary="/usr/libexec/qemu-kvm")))
    assert isinstance(made, QemuEngine) and made._host.accelerator() == "kvm"
    assert asked == ["/usr/libexec/qemu-kvm"]
