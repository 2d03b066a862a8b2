"""lab.guest.trial: what a container must say to prove Docker, and KVM in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, CommandError, DeadlineError, LabError
from lab.guest import trial
from lab.guest.ssh import Result
from lab.guest.terms import OWN, Terms
from tests.unit.probed import kvm_probe, word_in

Answer = tuple[int, str, str]
PROBE = json.dumps(kvm_probe())


class FakeGuest:
    """Docker in a VM: `says` is what the container whose image holds that word gives."""

    terms = OWN

    def __init__(self, says: Callable[[str], Answer], device: bool = True) -> None:
        self.says, self.device = says, device
        self.words: list[str] = []
        self.images: set[str] = set()
        self.asked: list[list[str]] = []

    def run(self, argv: list[str], *, check: bool = True, stdin: str | bytes = "", **_: Any) -> Result:
        self.asked.append(argv)
        status, out, err = self._answer(argv, stdin)
        if check and status:
            raise CommandError(argv, status, tail=out + err)
        return Result(argv, out, err, status, 0.0)

    def _answer(self, argv: list[str], stdin: str | bytes) -> Answer:
        if argv[0] == "stat":
            return (0, "104\n", "") if self.device else (1, "", "No such file")
        if argv[1] == "load":
            self.words.append(word_in(stdin))  # type: ignore[arg-type]
            self.images.add("loaded")
        if argv[1] == "image":
            self.images.clear()
        return self.says(self.words[-1]) if argv[1] == "run" else (0, "", "")


def _container(guest: FakeGuest) -> None:
    trial.container(guest, Deadline.after(5))  # type: ignore[arg-type]


def _kvm(guest: FakeGuest) -> Any:
    return trial.kvm(guest, Deadline.after(5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        ((0, "lab-container-of-another\n", ""), "something else"),
        ((0, "", ""), "something else"),
        ((0, PROBE, ""), "something else"),
        ((125, "", 'exec: "apparmor_parser": executable file not found in $PATH'), "lacks apparmor_parser"),
        ((127, "", "exec /proof: exec format error"), "docker run.*status 127"),
    ],
)
@pytest.mark.parametrize("prove", [_container, _kvm])
def test_only_the_word_of_this_container_proves_it(
    prove: Callable[[FakeGuest], Any], answer: Answer, match: str
) -> None:
    guest = FakeGuest(lambda _word: answer)
    with pytest.raises(LabError, match=match):
        prove(guest)
    assert not guest.images, "the image is removed all the same"


def test_a_python_that_lab_brought_serves_the_probe_in_the_container_too() -> None:
    guest = FakeGuest(lambda word: (0, f"{word}\n{PROBE}", ""))
    guest.terms = Terms(python=("/var/tmp/lab-1/python-2/python3", "-B"))  # noqa: S108
    assert _kvm(guest).ok
    (run,) = [argv for argv in guest.asked if argv[:2] == ["docker", "run"]]
    assert run[run.index("/var/tmp/lab-1/python-2:/python:ro") - 1] == "--volume"  # noqa: S108
    assert run[-1].startswith("/proof && exec /python/python3 -B - ")


def test_each_container_has_a_word_of_its_own() -> None:
    guest = FakeGuest(lambda word: (0, word + "\n", ""))
    for _ in range(2):
        _container(guest)
    assert len(set(guest.words)) == 2
    assert not any("--device" in argv for argv in guest.asked)


def test_the_probe_comes_after_the_word() -> None:
    guest = FakeGuest(lambda word: (0, f"{word}\n{PROBE}", ""))
    assert _kvm(guest).ok
    (run,) = [argv for argv in guest.asked if argv[1] == "run"]
    assert "--device" in run and "104" in run and "--read-only" in run


@pytest.mark.parametrize("rest", ["", "{}", "not JSON", json.dumps(kvm_probe() | {"schema": "another/1"})])
def test_a_word_without_a_probe_proves_no_kvm(rest: str) -> None:
    with pytest.raises(LabError):
        _kvm(FakeGuest(lambda word: (0, f"{word}\n{rest}", "")))


def test_a_vm_that_stands_still_is_not_waited_for_twice() -> None:
    class Still(FakeGuest):
        def run(self, argv: list[str], *, deadline: Deadline | None = None, **more: Any) -> Result:
            assert deadline is not None and deadline.left <= 60, argv
            if argv[1] in ("run", "image"):
                raise DeadlineError(f"`{argv[1]}` did not end")
            return super().run(argv, **more)

    with pytest.raises(DeadlineError, match="run"):
        _container(Still(lambda word: (0, word, "")))


def test_without_the_device_it_is_blocked() -> None:
    with pytest.raises(BlockedError, match="no /dev/kvm"):
        _kvm(FakeGuest(lambda word: (0, word, ""), device=False))
