"""The canary's container: how it is started, followed and removed, by lab's scripts in a real sh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from lab.core import redact
from lab.core.deadline import Deadline
from lab.core.errors import BlockedError, InconclusiveError, LabError
from lab.emulators.canary import console
from lab.emulators.canary.container import launch, parse, until_told
from lab.emulators.container import Container
from lab.emulators.protocol import NestedLostError
from lab.guest.ssh import Guest
from tests.unit.canaries import CONTAINER_JSON, LOG, Shell, built, canary, ended, guest

CONTAINER = "lab-canary"


def test_container_gets_only_what_l2_needs() -> None:
    at, asked = guest({"printenv": (0, "10.0.2.2 4711 10.0.2.15 22\n", "")})
    launch(Container(CONTAINER, "u-1"), at, "lab/canary:1", nonce="abc", publish=5655)
    words = asked[-1].split()
    assert "--privileged" not in words
    for pair in ("run lab-canary kvm --label", "--publish 10.0.2.15:5655:5555", "--cap-drop ALL"):
        assert pair in asked[-1]
    assert "CANARY_NONCE=abc" in words and "io.lab.uuid=u-1" in asked[-1] and words[-1] == "lab/canary:1"


def test_comparison_has_no_kvm_at_all() -> None:
    at, asked = guest({})
    launch(Container("other", "u-1"), at, "lab/canary:1", nonce="x", accel="tcg")
    assert "run other  --label" in asked[-1]
    assert "--publish" not in asked[-1] and "CANARY_ACCEL=tcg" in asked[-1]


NOBODY_THERE = "true"


def test_device_is_given_through_the_group_that_owns_it(tmp_path: Path) -> None:
    shell = Shell(tmp_path, NOBODY_THERE)
    launch(Container(CONTAINER, "u-1"), cast(Guest, shell), "lab/canary:1", nonce="abc", publish=5555)
    words = "run --pull never --detach --name lab-canary --device /dev/kvm --group-add 106 "
    assert shell.did()[-1].startswith(words)
    launch(Container(CONTAINER, "u-1"), cast(Guest, shell), "lab/canary:1", nonce="abc", accel="tcg")
    assert shell.did()[-1].startswith("run --pull never --detach --name lab-canary --label ")


def test_no_kvm_blocks_the_start(tmp_path: Path) -> None:
    shell = Shell(tmp_path, NOBODY_THERE)
    shell.no_kvm = "1"
    with pytest.raises(BlockedError, match="/dev/kvm"):
        launch(Container(CONTAINER, "u-1"), cast(Guest, shell), "lab/canary:1", nonce="abc")
    assert not any(line.startswith("run") for line in shell.did())


WARNING = "WARNING: Error loading config file: /root/.docker/config.json: EOF"
"""What the client prints on standard error before a right answer."""
ID = "f" * 64


@pytest.mark.parametrize("answer", [f"{ID} ", f"{ID} <no value>", ID])
def test_a_strangers_container_is_left_alone(tmp_path: Path, answer: str) -> None:
    shell = Shell(tmp_path, f'echo "{WARNING}" >&2; case $1$2 in containerls) echo "{answer}" ;; esac')
    with pytest.raises(LabError, match="lab did not start"):
        launch(Container(CONTAINER, "u-1"), cast(Guest, shell), "lab/canary:1", nonce="abc")
    assert not any(line.startswith(("rm", "run")) for line in shell.did())
    stranger = CONTAINER_JSON | {"Config": {"Labels": None}}
    at, asked = guest({"docker container inspect": (0, json.dumps([stranger]), WARNING)})
    with pytest.raises(LabError, match="lab did not start"):
        Container(CONTAINER, "u-1").remove(at)
    assert not any(line.startswith("docker rm") for line in asked)


def test_an_old_container_of_labs_is_replaced_by_its_id(tmp_path: Path) -> None:
    shell = Shell(tmp_path, f'echo "{WARNING}" >&2; case $1$2 in containerls) echo "{ID} u-1" ;; esac')
    launch(Container(CONTAINER, "u-1"), cast(Guest, shell), "lab/canary:1", nonce="abc")
    listed, removed, run = shell.did()
    assert listed.startswith(f"container ls --all --no-trunc --filter name=^/?{CONTAINER}$ ")
    assert removed == f"rm --force --volumes {ID}" and run.startswith("run ")


def test_a_warning_of_docker_is_never_part_of_an_answer(tmp_path: Path) -> None:
    ours = CONTAINER_JSON | {"Id": ID}
    at, asked = guest({"docker container inspect": (0, json.dumps([ours]), WARNING)})
    assert parse(Container(CONTAINER, "u-1").inspect(at)).running
    Container(CONTAINER, "u-1").remove(at)
    assert asked[-1] == f"docker rm --force --volumes {ID}"
    absent = (1, "[]\n", f"{WARNING}\nError response from daemon: No such container: {CONTAINER}\n")
    at, asked = guest({"docker container inspect": absent})
    assert not parse(Container(CONTAINER, "u-1").inspect(at)).exists
    Container(CONTAINER, "u-1").remove(at)
    assert len(asked) == 2
    shell = Shell(tmp_path, f'echo "{WARNING}" >&2; echo 12.5')
    assert Container(CONTAINER, "u-1").exec(cast(Guest, shell), ["date"]) == "12.5\n"


def test_the_secrets_of_a_described_container_are_masked_though_docker_warns(tmp_path: Path) -> None:
    secret = "hunter2-of-the-warned"
    described = CONTAINER_JSON | {"Config": {"Env": [f"VNC_PASSWORD={secret}"], "Labels": {}}}
    shell = Shell(tmp_path, f"echo '{WARNING}' >&2; [ $1 = logs ] || echo '{json.dumps([described])}'")
    files = Container(CONTAINER, "u-1").evidence(cast(Guest, shell))
    assert json.loads(files["container-inspect.json"]) == [described]
    assert WARNING in files["container-inspect.json.stderr"] and WARNING in files["container.log"]
    assert secret not in redact.clean(f"its password is {secret}")


def test_docker_that_does_not_answer_says_nothing_of_kvm(tmp_path: Path) -> None:
    shell = Shell(tmp_path, 'echo "Cannot connect to the Docker daemon" >&2; exit 1')
    with pytest.raises(InconclusiveError, match="does not answer"):
        launch(Container(CONTAINER, "u-1"), cast(Guest, shell), "lab/canary:1", nonce="abc")


def test_log_is_followed_to_the_line_that_ends_it(tmp_path: Path) -> None:
    lines = "".join(f"echo '{line.strip()}'; " for line in LOG.splitlines())
    described = json.dumps([CONTAINER_JSON])
    docker = (
        f"echo '{WARNING}' >&2; case $1 in logs) {lines} sleep 30 ;; container) echo '{described}' ;; esac"
    )
    log, state = until_told(
        Container(CONTAINER, "u-1"), cast(Guest, Shell(tmp_path, docker)), Deadline.after(10)
    )
    assert console.proof(log).nonce == "abc" and state.running and state.facts["nonce"] == "abc"


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
        launch(Container(CONTAINER, "u-1"), cast(Guest, shell), "lab/canary:1", nonce="abc", publish=5555)
    assert said in caught.value.tail
