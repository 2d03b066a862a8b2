"""The canary as lab sees it: its log, Docker's words about it, what answers over ADB."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import emulators
from lab.core import redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError, LabError, UsageError
from lab.core.journal import Journal
from lab.core.steps import Steps
from lab.emulators import Place
from lab.emulators.canary import Canary, console
from lab.emulators.canary.container import ENTRYPOINT, CanaryContainer, parse
from lab.emulators.protocol import ContainerState, Emulator, NestedFailedError, NestedLostError
from lab.emulators.transfer import ImageArchive, is_same
from lab.guest.ssh import Guest, Result
from lab.images import cache as images
from lab.images import canary as recipe

LOG = """canary: this is the lab canary, not Android
canary: qemu starts (kvm)
canary: l2 init at 3.12\r
canary: l2 ready at 3.90 nonce=abc hypervisor=KVMKVMKVM clocksource=kvm-clock boot_id=1-2 kernel=6.12\r
canary: l2 ready after 6.05 s (kvm)
"""
CONTAINER_JSON: dict[str, Any] = {
    "Image": "sha256:1",
    "Path": "/opt/canary/entrypoint",
    "Args": [],
    "HostConfig": {"Devices": [{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm"}]},
    "State": {"Running": True, "ExitCode": 0, "Health": {"Status": "healthy"}, "StartedAt": "T"},
    "Config": {
        "Image": "lab/canary:1",
        "Env": ["PATH=/bin", "CANARY_NONCE=abc", "CANARY_ACCEL=kvm"],
        "Labels": {"io.lab.uuid": "u-1"},
    },
}


_ENDS = (("KILL", 137), ("SEGV", 139), ("ABRT", 134), ("TERM", 143))


class FakeGuest:
    """Answers by the command's first words, and remembers all commands."""

    def __init__(self, answers: dict[str, tuple[int, str, str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def run(self, argv: Sequence[str], *, check: bool = True, **_: Any) -> Result:
        line = " ".join(argv)
        self.asked.append(line)
        status, out, err = next(
            (answer for start, answer in self.answers.items() if line.startswith(start)), (0, "", "")
        )
        assert status == 0 or not check, line
        return Result(list(argv), out, err, status, 0.0)


def guest(answers: dict[str, tuple[int, str, str]]) -> tuple[Guest, list[str]]:
    fake = FakeGuest(answers)
    return cast(Guest, fake), fake.asked


CONTAINER = "lab-canary"


def place(tmp_path: Path, **more: Any) -> Place:
    return Place(
        lab_uuid="u-1",
        cache=tmp_path,
        secrets=tmp_path,
        state=tmp_path,
        journal=Journal(tmp_path / "j"),
        **more,
    )


def canary(tmp_path: Path) -> Emulator:
    return emulators.emulator("canary", place(tmp_path))


def test_log_of_l2_under_kvm_is_a_proof() -> None:
    proof = console.proof(LOG)
    assert (proof.nonce, proof.hypervisor, proof.clocksource) == ("abc", "KVMKVMKVM", "kvm-clock")
    assert (proof.boot_id, proof.kernel, proof.seconds) == ("1-2", "6.12", 6.05)


def test_log_of_an_emulated_l2_is_none() -> None:
    emulated = LOG.replace("(kvm)", "(tcg)")
    with pytest.raises(InconclusiveError):
        console.proof(emulated)
    assert console.seconds(emulated, "tcg") == 6.05


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
        "[sys.boot_completed]: [1]",
        "3.0 1.0",
    ]
    proof = console.properties("\r\n".join(told))
    assert proof.boot_completed and proof.nonce == "abc"


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


def built(tmp_path: Path) -> Emulator:
    """A canary whose image, of today's recipe, is in the cache."""
    work = tmp_path / "canary-1"
    work.mkdir()
    (work / "image.tar").write_bytes(b"image")
    manifest = images.Manifest.model_validate(
        {
            "id": "canary-1",
            "kind": "canary",
            "name": "canary",
            "recipe": recipe.recipe_hash(),
            "file": "image.tar",
            "format": "docker-archive",
            "bytes": 5,
            "sha256": "0" * 64,
            "created": "2026-01-01T00:00:00Z",
            "image_id": "sha256:1",
            "layer": "sha256:2",
            "reference": "lab/canary:1",
        }
    )
    images.seal(work, manifest)
    return canary(tmp_path)


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
    assert recipe._config()["Entrypoint"] == [ENTRYPOINT]
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


def test_container_gets_only_what_l2_needs() -> None:
    at, asked = guest({"printenv": (0, "10.0.2.2 4711 10.0.2.15 22\n", "")})
    CanaryContainer(CONTAINER, "u-1").launch(at, "lab/canary:1", nonce="abc", publish=5655)
    words = asked[-1].split()
    assert "--privileged" not in words
    for pair in ("run lab-canary kvm --label", "--publish 10.0.2.15:5655:5555", "--cap-drop ALL"):
        assert pair in asked[-1]
    assert "CANARY_NONCE=abc" in words and "io.lab.uuid=u-1" in asked[-1] and words[-1] == "lab/canary:1"


def test_comparison_has_no_kvm_at_all() -> None:
    at, asked = guest({})
    CanaryContainer("other", "u-1").launch(at, "lab/canary:1", nonce="x", accel="tcg")
    assert "run other  --label" in asked[-1]
    assert "--publish" not in asked[-1] and "CANARY_ACCEL=tcg" in asked[-1]


class Shell:
    """Runs lab's scripts with a real sh, and a docker of the test's own."""

    def __init__(self, folder: Path, docker: str) -> None:
        self.calls = folder / "calls"
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\necho "$*" >>{self.calls}\n{docker}\n')
        program.chmod(0o755)
        stat = folder / "stat"
        stat.write_text('#!/bin/sh\n[ -z "$NO_KVM" ] && echo 106\n')
        stat.chmod(0o755)
        self.path = f"{folder}:/usr/bin:/bin"
        self.no_kvm = ""

    def run(self, argv: Sequence[str], *, check: bool = True, **_: Any) -> Result:
        if argv[0] == "printenv":
            return Result(list(argv), "10.0.2.2 4711 10.0.2.15 22\n", "", 0, 0.0)
        done = subprocess.run(
            list(argv),
            capture_output=True,
            text=True,
            env={"PATH": self.path, "NO_KVM": self.no_kvm},
            check=False,
            timeout=20,
        )
        assert done.returncode == 0 or not check, done.stderr
        return Result(list(argv), done.stdout, done.stderr, done.returncode, 0.0)

    def did(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


NOBODY_THERE = "true"


def test_device_is_given_through_the_group_that_owns_it(tmp_path: Path) -> None:
    shell = Shell(tmp_path, NOBODY_THERE)
    CanaryContainer(CONTAINER, "u-1").launch(cast(Guest, shell), "lab/canary:1", nonce="abc", publish=5555)
    words = "run --pull never --detach --name lab-canary --device /dev/kvm --group-add 106 "
    assert shell.did()[-1].startswith(words)
    CanaryContainer(CONTAINER, "u-1").launch(cast(Guest, shell), "lab/canary:1", nonce="abc", accel="tcg")
    assert shell.did()[-1].startswith("run --pull never --detach --name lab-canary --label ")


def test_no_kvm_blocks_the_start(tmp_path: Path) -> None:
    shell = Shell(tmp_path, NOBODY_THERE)
    shell.no_kvm = "1"
    with pytest.raises(BlockedError, match="/dev/kvm"):
        CanaryContainer(CONTAINER, "u-1").launch(cast(Guest, shell), "lab/canary:1", nonce="abc")
    assert not any(line.startswith("run") for line in shell.did())


WARNING = "WARNING: Error loading config file: /root/.docker/config.json: EOF"
"""What the client prints on standard error before a right answer."""
ID = "f" * 64


@pytest.mark.parametrize("answer", [f"{ID} ", f"{ID} <no value>", ID])
def test_a_strangers_container_is_left_alone(tmp_path: Path, answer: str) -> None:
    shell = Shell(tmp_path, f'echo "{WARNING}" >&2; case $1$2 in containerls) echo "{answer}" ;; esac')
    with pytest.raises(LabError, match="lab did not start"):
        CanaryContainer(CONTAINER, "u-1").launch(cast(Guest, shell), "lab/canary:1", nonce="abc")
    assert not any(line.startswith(("rm", "run")) for line in shell.did())
    stranger = CONTAINER_JSON | {"Config": {"Labels": None}}
    at, asked = guest({"docker container inspect": (0, json.dumps([stranger]), WARNING)})
    with pytest.raises(LabError, match="lab did not start"):
        CanaryContainer(CONTAINER, "u-1").remove(at)
    assert not any(line.startswith("docker rm") for line in asked)


def test_an_old_container_of_labs_is_replaced_by_its_id(tmp_path: Path) -> None:
    shell = Shell(tmp_path, f'echo "{WARNING}" >&2; case $1$2 in containerls) echo "{ID} u-1" ;; esac')
    CanaryContainer(CONTAINER, "u-1").launch(cast(Guest, shell), "lab/canary:1", nonce="abc")
    listed, removed, run = shell.did()
    assert listed.startswith(f"container ls --all --no-trunc --filter name=^/?{CONTAINER}$ ")
    assert removed == f"rm --force --volumes {ID}" and run.startswith("run ")


def test_a_warning_of_docker_is_never_part_of_an_answer(tmp_path: Path) -> None:
    ours = CONTAINER_JSON | {"Id": ID}
    at, asked = guest({"docker container inspect": (0, json.dumps([ours]), WARNING)})
    assert CanaryContainer(CONTAINER, "u-1").state(at).running
    CanaryContainer(CONTAINER, "u-1").remove(at)
    assert asked[-1] == f"docker rm --force --volumes {ID}"
    absent = (1, "[]\n", f"{WARNING}\nError response from daemon: No such container: {CONTAINER}\n")
    at, asked = guest({"docker container inspect": absent})
    assert not CanaryContainer(CONTAINER, "u-1").state(at).exists
    CanaryContainer(CONTAINER, "u-1").remove(at)
    assert len(asked) == 2
    shell = Shell(tmp_path, f'echo "{WARNING}" >&2; echo 12.5')
    assert CanaryContainer(CONTAINER, "u-1").exec(cast(Guest, shell), ["date"]) == "12.5\n"


def test_the_secrets_of_a_described_container_are_masked_though_docker_warns(tmp_path: Path) -> None:
    secret = "hunter2-of-the-warned"
    described = CONTAINER_JSON | {"Config": {"Env": [f"VNC_PASSWORD={secret}"], "Labels": {}}}
    shell = Shell(tmp_path, f"echo '{WARNING}' >&2; [ $1 = logs ] || echo '{json.dumps([described])}'")
    files = CanaryContainer(CONTAINER, "u-1").evidence(cast(Guest, shell))
    assert json.loads(files["container-inspect.json"]) == [described]
    assert WARNING in files["container-inspect.json.stderr"] and WARNING in files["container.log"]
    assert secret not in redact.clean(f"its password is {secret}")


def test_docker_that_does_not_answer_says_nothing_of_kvm(tmp_path: Path) -> None:
    shell = Shell(tmp_path, 'echo "Cannot connect to the Docker daemon" >&2; exit 1')
    with pytest.raises(InconclusiveError, match="does not answer"):
        CanaryContainer(CONTAINER, "u-1").launch(cast(Guest, shell), "lab/canary:1", nonce="abc")


def test_log_is_followed_to_the_line_that_ends_it(tmp_path: Path) -> None:
    lines = "".join(f"echo '{line.strip()}'; " for line in LOG.splitlines())
    described = json.dumps([CONTAINER_JSON])
    docker = (
        f"echo '{WARNING}' >&2; case $1 in logs) {lines} sleep 30 ;; container) echo '{described}' ;; esac"
    )
    log, state = CanaryContainer(CONTAINER, "u-1").told(
        cast(Guest, Shell(tmp_path, docker)), Deadline.after(10)
    )
    assert console.proof(log).nonce == "abc" and state.running and state.facts["nonce"] == "abc"


def ended(tmp_path: Path, log: str, **state: Any) -> Shell:
    described = json.dumps(
        [CONTAINER_JSON | {"State": {"Running": False, "FinishedAt": "2026-12-01T03:08:41Z", **state}}]
    )
    (tmp_path / "log").write_text(log)
    return Shell(tmp_path, f"case $1 in logs) cat {tmp_path}/log ;; container) echo '{described}' ;; esac")


def test_container_that_ended_after_l2_was_ready_says_how(tmp_path: Path) -> None:
    why = "QEMU was ended by SIGKILL (status 137) after L2 had begun: canary: l2 ready at 3.90"
    shell = ended(tmp_path, f"{LOG}canary: failed (74): {why}\n", ExitCode=74)
    with pytest.raises(NestedLostError, match="SIGKILL"):
        built(tmp_path).booted(cast(Guest, shell), Deadline.after(10))


@pytest.mark.parametrize("log", [LOG, LOG.partition("canary: l2 init")[0]])
@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({"ExitCode": 137}, InconclusiveError, "exit code 137, SIGKILL"),
        ({"ExitCode": 139}, InconclusiveError, "exit code 139, SIGSEGV"),
    ],
)
def test_container_that_ended_without_a_word_names_the_signal(
    tmp_path: Path, log: str, state: dict[str, Any], error: type[LabError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        built(tmp_path).booted(cast(Guest, ended(tmp_path, log, **state)), Deadline.after(10))
    assert type(caught.value) is error


def test_container_that_the_kernel_ended_for_want_of_memory_is_blocked(tmp_path: Path) -> None:
    silent = ended(tmp_path, LOG.partition("canary: l2 init")[0], ExitCode=137, OOMKilled=True)
    with pytest.raises(BlockedError, match=r"out of memory.*SIGKILL"):
        built(tmp_path).booted(cast(Guest, silent), Deadline.after(10))
    said = "canary: failed (75): QEMU was ended by SIGKILL (status 137) before L2's user space: \n"
    shell = ended(tmp_path, said, ExitCode=75, OOMKilled=True)
    with pytest.raises(BlockedError, match=r"out of memory.*SIGKILL") as caught:
        canary(tmp_path).booted(cast(Guest, shell), Deadline.after(10))
    assert "vm.memory_mib" in caught.value.hint


@pytest.mark.parametrize(
    "said",
    [
        "docker: Error response from daemon: driver failed programming external connectivity on endpoint t8: "
        "Bind for 10.0.2.15:5555 failed: port is already allocated.",
        "docker: Error response from daemon: Error starting userland proxy: listen tcp4 10.0.2.15:5999: "
        "bind: address already in use.",
    ],
)
def test_port_that_docker_cannot_publish_is_named(tmp_path: Path, said: str) -> None:
    """As Docker 26 says it."""
    shell = Shell(tmp_path, f'{NOBODY_THERE}; case $1 in run) echo "{said}" >&2; exit 125 ;; esac')
    with pytest.raises(InconclusiveError, match="a port is in use") as caught:
        CanaryContainer(CONTAINER, "u-1").launch(
            cast(Guest, shell), "lab/canary:1", nonce="abc", publish=5555
        )
    assert said in caught.value.tail


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
