"""The canary as lab sees it: its log, Docker's words about it, what answers over ADB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import emulators
from lab.core import redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError, LabError, UsageError
from lab.core.steps import Steps
from lab.emulators.canary import Canary, console
from lab.emulators.canary.container import ENTRYPOINT, parse
from lab.emulators.protocol import ContainerState, NestedFailedError, NestedLostError
from lab.emulators.transfer import ImageArchive, is_same
from lab.guest.ssh import Guest
from lab.images import canary as recipe
from lab.images.canary_recipe import EMULATED_ARM, X86
from tests.unit.canaries import CONTAINER_JSON, LOG, Shell, built, canary, guest, place

_ENDS = (("KILL", 137), ("SEGV", 139), ("ABRT", 134), ("TERM", 143))


def test_log_of_l2_under_kvm_is_a_proof() -> None:
    proof = console.proof(LOG)
    assert proof.machine == "x86_64"
    assert (proof.nonce, proof.hypervisor, proof.clocksource) == ("abc", "KVMKVMKVM", "kvm-clock")
    assert (proof.boot_id, proof.kernel, proof.seconds) == ("1-2", "6.12", 6.05)


def test_log_of_an_emulated_l2_is_none() -> None:
    emulated = LOG.replace("(kvm)", "(tcg)")
    with pytest.raises(InconclusiveError):
        console.proof(emulated)
    assert console.seconds(emulated, "tcg") == 6.05


@pytest.mark.parametrize("told", ["", "machine=", "machine=x86_64", "xmachine=aarch64"])
def test_an_l2_that_does_not_say_it_is_of_arm_is_not_timed_as_one(told: str) -> None:
    emulated = LOG.replace("(kvm)", "(tcg)")
    arm = emulated.replace("machine=x86_64", "machine=aarch64")
    assert console.seconds(arm, "tcg", machine="aarch64") == 6.05
    with pytest.raises(InconclusiveError, match="a machine of aarch64"):
        console.seconds(emulated.replace("machine=x86_64", told), "tcg", machine="aarch64")


def test_arm_canary_is_named_by_its_own_image(tmp_path: Path) -> None:
    assert Canary(place(tmp_path), EMULATED_ARM).image_id() == "canary-arm64-emulated (not built)"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (70, InconclusiveError),
        (72, NestedFailedError),
        (73, InconclusiveError),
        (74, NestedLostError),
        (64, LabError),
    ],
)
def test_failure_in_the_log_is_told_apart(code: int, error: type[LabError]) -> None:
    with pytest.raises(error, match="KVM: entry failed") as caught:
        console.proof(f"canary: qemu starts (kvm)\ncanary: failed ({code}): KVM: entry failed\n")
    assert type(caught.value) is error


_KVMS = ["KVM: entry failed, hardware error 0x0", "KVM internal error. Suberror: 1", "KVM: unknown exit 31"]
_WORDS = st.sampled_from(
    [
        "",
        *_KVMS,
        *(f"KVM does not run L2: {line}" for line in _KVMS),
        *(f"QEMU ended with status {status} before L2's user space: " for status in (0, 1, 126, 127)),
        *(f"QEMU was ended by SIG{name} (status {n}) before L2's user space: " for name, n in _ENDS),
        "QEMU ended with status 137 before L2's user space: a line of L2's",
        "QEMU ended with status 1 before L2's user space: failed to initialize kvm: Permission denied",
        "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory",
        "Could not set up host forwarding rule 'tcp::5555-:5555'",
        "failed to set MSR 0x10a",
        "error: kvm run failed Bad address",
        "/dev/kvm cannot be opened: Too many open files",
    ]
)


@given(st.integers(0, 255), _WORDS, st.lists(_WORDS, max_size=3), st.booleans())
def test_only_kvms_own_words_refute_whatever_code_status_and_log_there_are(
    code: int, why: str, lines: list[str], out_of_memory: bool
) -> None:
    log = "\n".join(("canary: qemu starts (kvm)", *lines, f"canary: failed ({code}): {why}", ""))
    with pytest.raises(LabError) as caught:
        console.proof(log, out_of_memory=out_of_memory)
    if isinstance(caught.value, NestedFailedError):
        assert code == 72 and any(words in why for words in _KVMS)
    assert why in caught.value.what


@pytest.mark.parametrize("status", [0, 1, 127, 134, 137, 139])
def test_word_of_an_entrypoint_of_before_is_read_as_what_it_says(status: int) -> None:
    """It ended with 72 for all that ended QEMU early: killed, out of memory, its port taken."""
    said = f"QEMU ended with status {status} before L2's user space: SeaBIOS (version 1.16)"
    with pytest.raises(NestedLostError, match=f"status {status}"):
        console.proof(f"canary: qemu starts (kvm)\ncanary: failed (72): {said}\n")


def test_start_before_says_nothing_of_this_one() -> None:
    """Docker's log of a container that was started again has both."""
    gave_up = LOG.partition("canary: l2 init")[0] + "canary: failed (72): KVM: entry failed\n"
    with pytest.raises(InconclusiveError, match="no report"):
        console.proof(gave_up + LOG.partition("canary: l2 init")[0])
    assert console.proof(gave_up + LOG).nonce == "abc"
    with pytest.raises(NestedFailedError):
        console.proof(LOG + gave_up)


def test_properties_of_another_adbd_prove_nothing() -> None:
    proof = console.properties("/bin/sh: getprop: not found\n12.34 5.00\n")
    assert not proof.boot_completed and proof.nonce == ""
    told = [
        "[ro.lab.canary]: [1 not Android]",
        "[ro.lab.nonce]: [abc]",
        "[ro.lab.machine]: [aarch64]",
        "[sys.boot_completed]: [1]",
        "3.0 1.0",
    ]
    proof = console.properties("\r\n".join(told))
    assert proof.boot_completed and (proof.nonce, proof.machine) == ("abc", "aarch64")


def test_console_of_l2_is_what_l2_wrote() -> None:
    stamped = "".join(f"2026-01-01T00:00:00Z {line}\n" for line in LOG.splitlines())
    kept = console.of_l2(stamped + "2026-01-01T00:00:01Z Kernel panic\n")
    assert "l2 init" in kept and "Kernel panic" in kept
    assert "qemu starts" not in kept and "ready after" not in kept


def test_state_is_what_docker_says(tmp_path: Path) -> None:
    state = parse(CONTAINER_JSON)
    assert (state.exists, state.running, state.health, state.exit_code) == (True, True, "healthy", None)
    assert state.facts["nonce"] == "abc"
    absent, _ = guest({"docker container inspect": (1, "[]", "Error: No such container: lab-canary")})
    assert canary(tmp_path).state(absent) == ContainerState(exists=False, running=False)
    broken, _ = guest({"docker container inspect": (1, "", "Cannot connect to the Docker daemon")})
    with pytest.raises(InconclusiveError, match="does not answer"):
        canary(tmp_path).state(broken)


def test_the_secrets_of_a_container_that_is_looked_at_are_masked(tmp_path: Path) -> None:
    """Also of one that an earlier command started, by settings that this one does not know."""
    env = ["PATH=/bin", "API_TOKEN=an-earlier-commands"]
    described = json.dumps([CONTAINER_JSON | {"Config": CONTAINER_JSON["Config"] | {"Env": env}}])
    asked, _ = guest({"docker container inspect": (0, described, "")})
    canary(tmp_path).state(asked)
    assert redact.clean(described) == described.replace("an-earlier-commands", "[redacted]")


REPLACED = {"Image": "sha256:another"}
OTHERWISE = {"Path": "/bin/sh", "Args": ["-c", "echo canary: l2 ready"]}
DEVICELESS = {"HostConfig": {"Devices": None}}
RESTARTED = {"State": CONTAINER_JSON["State"] | {"FinishedAt": "2026-12-01T03:08:41.385917929Z"}}
"""As Docker tells it of one that runs, and has ended before."""
_STRANGERS = [
    (REPLACED, "not lab's canary"),
    (OTHERWISE, "it runs `/bin/sh"),
    (DEVICELESS, "not given /dev/kvm"),
    (RESTARTED, "somebody started it again"),
]


def test_what_lab_starts_is_known_by_these_words(tmp_path: Path) -> None:
    assert recipe._config(X86)["Entrypoint"] == [ENTRYPOINT]
    # No image in the cache: nothing that runs can be today's.
    assert not canary(tmp_path).runs_with(parse(CONTAINER_JSON), "abc")
    ours = built(tmp_path)
    assert ours.runs_with(parse(CONTAINER_JSON), "abc")
    assert not ours.runs_with(parse(CONTAINER_JSON), "other")
    for changes, _ in _STRANGERS:  # all of the same name, nonce and label
        assert not ours.runs_with(parse(CONTAINER_JSON | changes), "abc")


@pytest.mark.parametrize(("changes", "why"), _STRANGERS)
@pytest.mark.parametrize("log", [LOG, "canary: failed (70): there is no /dev/kvm in this container\n"])
def test_another_container_says_nothing_for_nor_against(
    changes: dict[str, Any], why: str, log: str, tmp_path: Path
) -> None:
    described = json.dumps([CONTAINER_JSON | changes])
    layers = json.dumps([{"Id": "sha256:another", "RootFS": {"Layers": ["sha256:not-lab's"]}}])
    at, asked = guest(
        {"docker container": (0, described, ""), "docker image": (0, layers, ""), "sh -c": (0, log, "")}
    )
    with pytest.raises(InconclusiveError, match=f"not what lab starts: .*{why}"):
        built(tmp_path).booted(at, Deadline.after(5))
    assert not any(line.startswith("sh -c") for line in asked), "its log is not even read"


def test_an_image_that_docker_calls_otherwise_is_known_by_its_layers(tmp_path: Path) -> None:
    """Docker's containerd store names it by its manifest."""
    running = CONTAINER_JSON | {"Image": "sha256:of-the-manifest"}
    shown = json.dumps([{"Id": "sha256:of-the-manifest", "RootFS": {"Layers": ["sha256:2"]}}])
    lines = "".join(f"echo '{line.strip()}'; " for line in LOG.splitlines())
    answers = f"image) echo '{shown}' ;; container) echo '{json.dumps([running])}' ;;"
    shell = Shell(tmp_path, f"case $1 in logs) {lines} ;; {answers} esac")
    ours = built(tmp_path)
    assert not ours.runs_with(parse(running), "abc")
    for _ in range(2):
        assert ours.booted(cast(Guest, shell), Deadline.after(10)).nonce == "abc"
    assert ours.runs_with(parse(running), "abc")
    assert [line for line in shell.did() if "image" in line] == ["image inspect sha256:of-the-manifest"]


@pytest.mark.parametrize(
    ("shown", "same"),
    [
        ({"Id": "sha256:i"}, True),
        ({"Id": "sha256:m", "RootFS": {"Layers": ["sha256:l"]}}, True),
        ({"Id": "sha256:m", "RootFS": {"Layers": ["sha256:x"]}}, False),
        ({"Id": "sha256:m", "RootFS": {"Layers": ["sha256:l", "sha256:x"]}}, False),
        ({"Id": "sha256:m"}, False),
    ],
)
def test_image_is_known_by_content(shown: dict[str, Any], same: bool, tmp_path: Path) -> None:
    assert is_same(shown, ImageArchive(tmp_path, "0", "a:b", "sha256:i", ("sha256:l",))) is same


def test_unbuilt_image_and_unknown_name(tmp_path: Path) -> None:
    assert "not built" in canary(tmp_path).image_id()
    with Steps().step("load") as step, pytest.raises(BlockedError, match="not built"):
        canary(tmp_path).load(guest({})[0], step)
    with pytest.raises(UsageError, match="canari"):
        emulators.emulator("canari", place(tmp_path))
    assert isinstance(canary(tmp_path), Canary)
