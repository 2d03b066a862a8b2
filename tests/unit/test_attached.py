"""Attached machines: the way to them, what a machine is said to be, and what lab refuses there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.core.deadline import Deadline
from lab.core.errors import LabError, UsageError
from lab.core.journal import Journal
from lab.engines import attached, engine, kinds
from lab.engines.attached import link as links
from lab.engines.attached import way, words
from lab.engines.attached.engine import AttachedEngine
from lab.engines.attached.link import AttachedLink, Docker, MachineFacts
from lab.engines.attached.machine import AttachedMachine
from lab.engines.attached.way import Hop, SshWay
from lab.engines.options import Options
from lab.engines.protocol import MachineSpec, State
from lab.guest.terms import OWN, Terms
from lab.host.cpu import Cpu
from lab.host.facts import HostFacts
from lab.ladder import report
from lab.ladder.rung import Layer
from lab.ladder.rungs import LADDER
from lab.ladder.verdict import judge
from lab.model.domain import BARE_METAL, Cell, Claim, Host, Nesting, Outcome, Status, Verdict
from lab.reports import layers

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")


def found(
    signature: str | None = "", word: str = "", kernel: str = "6.12.1", extensions: bool = True
) -> MachineFacts:
    cpu = Cpu(model="A CPU", extensions=("svm",) if extensions else (), signature=signature)
    host = HostFacts("Debian GNU/Linux", "13", kernel, "x86_64", cpu, 4, 8 << 30, 4 << 30, "boot")
    return MachineFacts(
        host=host.as_dict(),
        virtualization=word,
        under=words.under(signature, word, host),
        wsl="microsoft" in kernel,
    )


# --- destinations --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        ("box", ["box"]),
        ("me@box", ["-l", "me", "box"]),
        ("me@box:2222", ["-p", "2222", "-l", "me", "box"]),
        ("me@[fe80::1]:22", ["-p", "22", "-l", "me", "fe80::1"]),
        ("lima-default.internal", ["lima-default.internal"]),
    ],
)
def test_a_destination_is_given_to_ssh_as_its_words(destination: str, expected: list[str]) -> None:
    assert way.split(destination) == expected


@pytest.mark.parametrize("destination", ["", "-oProxyCommand=x", "me@", "a b", "box:99999", "box:0", "box:"])
def test_what_is_no_destination_is_refused(destination: str) -> None:
    with pytest.raises(UsageError, match="no destination of SSH's"):
        way.split(destination)


# --- the way -------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "config"
        path.write_text(text)
        return path

    return write


@needs_ssh
def test_jumps_are_hops_in_their_order(config: Callable[[str], Path]) -> None:
    path = config(
        "Host first\n  HostName 192.0.2.1\n  User one\n"
        "Host second\n  HostName 192.0.2.2\n  Port 2200\n  ProxyJump first\n"
        "Host box\n  HostName 192.0.2.3\n  User me\n  ProxyJump second,two@192.0.2.9:9\n"
        "  IdentityFile ~/.ssh/special\n  IdentitiesOnly yes\n  HostKeyAlias box-key\n  LocalForward 1 x:1\n"
    )
    found = way.resolve("box", path)
    assert [(hop.host, hop.port) for hop in found.hops] == [
        ("192.0.2.1", 22),
        ("192.0.2.2", 2200),
        ("192.0.2.9", 9),
        ("192.0.2.3", 22),
    ]
    assert (found.hops[0].user, found.hops[2].user, found.machine.user) == ("one", "two", "me")
    assert found.machine.keys == (Path("~/.ssh/special").expanduser(),)
    assert found.machine.only_these_keys
    assert (found.machine.key_name, found.hops[1].key_name) == ("box-key", "[192.0.2.2]:2200")


@needs_ssh
def test_a_chain_without_an_end_is_refused(config: Callable[[str], Path]) -> None:
    path = config("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    with pytest.raises(UsageError, match="has no end"):
        way.resolve("a", path)


@needs_ssh
def test_what_ssh_does_not_take_is_told_in_its_words(config: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError) as caught:
        way.resolve("box", config("Host box\n  Nonsense yes\n"))
    assert "nonsense" in caught.value.tail.lower()


@needs_ssh
def test_labs_own_configuration_asks_nobody_and_opens_nothing_of_the_users(
    tmp_path: Path, config: Callable[[str], Path]
) -> None:
    """And ssh reads it as it was meant: spaces in names, and the hop before."""
    path = config(
        f'Host jump\n  HostName 192.0.2.1\nHost box\n  HostName 192.0.2.3\n  User "a b"\n  ProxyJump jump\n'
        f'  IdentityFile "{tmp_path}/Application Support/key"\n  LocalForward 8080 127.0.0.1:80\n'
        "  StrictHostKeyChecking no\n  ControlMaster auto\n  ControlPath ~/.ssh/%C\n  ForwardAgent yes\n"
    )
    own = tmp_path / "own folder" / "ssh_config"
    own.parent.mkdir()
    own.write_text(way.written(way.resolve("box", path), own.with_name("hosts")))
    said = way._asked(way.MACHINE, own)
    assert said["hostname"] == ["192.0.2.3"]
    assert said["user"] == ["a b"]
    assert said["proxyjump"] == ["lab-hop-0"]
    assert said["identityfile"] == [f"{tmp_path}/Application Support/key"]
    assert said["stricthostkeychecking"] == ["true"]
    assert said["batchmode"] == ["yes"]
    assert said["forwardagent"] == ["no"]
    assert said.get("controlmaster", ["false"]) == ["false"]
    assert "localforward" not in said
    assert said["userknownhostsfile"][0].endswith(str(own.with_name("hosts")))


def test_a_proxy_commands_tokens_are_replaced() -> None:
    hop = Hop(host="box", port=2222, user="me", command="connect %h:%p as %r 100%%")
    assert way._expanded(hop) == "connect box:2222 as me 100%"


def test_a_proxy_that_ends_is_told_in_its_own_words(tmp_path: Path) -> None:
    road = SshWay(hops=(Hop(host="box", port=22, user="me", command="sh -c 'echo no route >&2'"),))
    with pytest.raises(ConnectionError, match="no route"):
        way.dial(road, tmp_path / "none", Deadline.after(20))


def test_a_proxy_that_says_nothing_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    road = SshWay(hops=(Hop(host="box", port=22, user="me", command="sleep 60"),))
    with pytest.raises(TimeoutError, match="no answer"):
        way.dial(road, tmp_path / "none", Deadline.after(0.5))


# --- what a machine is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "said", "acceleration", "nesting"),
    [
        (found(""), "bare metal", BARE_METAL, "none"),
        (found("KVMKVMKVM", "kvm"), "a VM under KVM", "kvm", "hardware"),
        (found("KVMKVMKVM", "amazon"), "a VM under KVM", "kvm", "hardware"),
        (found("TCGTCGTCGTCG", "qemu"), "a VM under QEMU's emulation", "tcg", "emulated"),
        (found("VMwareVMware"), "a VM under VMware", "vmware", "hardware"),
        (found(" lrpepyh vr"), "a VM under Parallels", "parallels", "hardware"),
        (found("VBoxVBoxVBox", "oracle"), "a VM under VirtualBox", "virtualbox", "hardware"),
        (found("Microsoft Hv", "microsoft"), "a VM under Hyper-V", "hyper-v", "hardware"),
        (
            found("Microsoft Hv", "wsl", "6.6.87.2-microsoft-standard-WSL2"),
            "WSL2 under Hyper-V",
            "hyper-v",
            "hardware",
        ),
        (found(None, "apple"), "a VM under Apple", "apple", "hardware"),
        (found(None, "none"), "bare metal", BARE_METAL, "none"),
        (found(None), "a machine of an unknown kind", "unknown", "hardware"),
        (found("NewHypervisr"), "a VM under NewHypervisr", "newhypervisr", "hardware"),
        (found("KVMKVMKVM", extensions=False), "a VM under KVM", "kvm", "none"),
    ],
)
def test_what_a_machine_is_is_said(what: MachineFacts, said: str, acceleration: str, nesting: str) -> None:
    assert (words.described(what), words.acceleration(what), words.nesting(what)) == (
        said,
        acceleration,
        nesting,
    )


def _attach(folder: Path, what: MachineFacts, docker: Docker | None = None) -> AttachedMachine:
    links.write(folder, AttachedLink(destination="", about=what, docker=docker))
    return AttachedMachine(
        MachineSpec("u-u-i-d", "box", folder, folder, folder, 4, 8192, 0, paravirt="none", asked=False)
    )


def test_the_cell_names_the_machine_its_road_and_its_docker(tmp_path: Path) -> None:
    docker = Docker(kind="rootless Docker", version="27.1.1", host="unix:///run/user/1000/docker.sock")
    _attach(tmp_path, found("KVMKVMKVM"), docker)
    facts = AttachedEngine(tmp_path).facts()
    assert facts.version == "a VM under KVM, here, rootless Docker 27.1.1"
    assert (facts.engine, facts.acceleration, facts.nesting) == ("attached", "kvm", "hardware")


def test_settings_are_the_machines_own(tmp_path: Path) -> None:
    settings = _attach(tmp_path, found("")).settings()
    assert (settings["cpus"], settings["memory_mib"], settings["nested"]) == ("4", "8192", "on")
    assert settings["machine"] == "bare metal"


@pytest.mark.parametrize(
    "deed",
    [
        lambda machine: machine.stop(Deadline.after(1)),
        lambda machine: machine.suspend(),
        lambda machine: machine.resume([]),
        lambda machine: machine.snapshot("x"),
        lambda machine: machine.restore("x", []),
        lambda machine: machine.snapshots(),
        lambda machine: machine.destroy(),
        lambda machine: machine.console(),
        lambda machine: machine.screenshot(Path("x.png")),
    ],
)
def test_what_lab_does_not_do_to_somebodys_machine_it_says(
    tmp_path: Path, deed: Callable[[AttachedMachine], object]
) -> None:
    with pytest.raises(UsageError, match="lab box is somebody's machine, and lab never") as caught:
        deed(_attach(tmp_path, found("")))
    assert caught.value.hint


def test_the_engine_is_there_and_auto_never_takes_it(tmp_path: Path) -> None:
    assert attached.NAME in [kind.name for kind in kinds()]
    assert attached.KIND.preference == 0
    machine = engine("attached", Options(tmp_path, folder=tmp_path)).machine(
        MachineSpec("u", "box", tmp_path, tmp_path, tmp_path, 1, 1, 1), Journal(tmp_path / "journal")
    )
    assert machine.status() is State.ABSENT
    with pytest.raises(LabError, match="without its lab"):
        engine("attached", Options(tmp_path))


def test_a_damaged_link_is_told(tmp_path: Path) -> None:
    (tmp_path / links.FILE).write_text("{")
    with pytest.raises(LabError, match=r"attached\.json cannot be read"):
        links.read(tmp_path)
    assert [trace.engine for trace in attached.KIND.traces(tmp_path)] == ["attached"]


# --- terms ---------------------------------------------------------------------------------------------


def test_a_vm_of_labs_own_is_as_it_was() -> None:
    assert OWN.applied(["docker", "info"], False) == (["docker", "info"], False)
    assert OWN.applied(["date"], True) == (["date"], True)


def test_in_somebodys_machine_nothing_runs_as_root_that_need_not() -> None:
    terms = Terms(somebodys=True, sudo=False, folder="/lab-x", environment={"DOCKER_HOST": "unix:///s"})
    argv, by_root = terms.applied(["docker", "info"], True)
    assert not by_root
    assert argv == ["env", "DOCKER_HOST=unix:///s", "TMPDIR=/lab-x", "docker", "info"]
    assert terms.applied(["python3"], "always")[1], "what only root may do, such as KVM where that is so"
    sudo = Terms(somebodys=True, sudo=True, docker_by_sudo=True)
    assert sudo.applied(["docker", "info"], False)[1]
    assert not sudo.applied(["cat"], False)[1]


def test_a_python_that_lab_brought_stands_for_the_machines_own() -> None:
    terms = Terms(somebodys=True, sudo=False, folder="/lab-x", python=("/lab-x/python3", "-B"))
    assert terms.applied(["python3", "-"], False)[0] == ["env", "TMPDIR=/lab-x", "/lab-x/python3", "-B", "-"]
    assert terms.applied(["cat", "python3"], False)[0] == ["env", "TMPDIR=/lab-x", "cat", "python3"]


# --- the verdict ---------------------------------------------------------------------------------------


def _cell(acceleration: str, nesting: Nesting) -> Cell:
    host = Host("linux", "Debian GNU/Linux 13", "6.12", "A CPU")
    return Cell(host, "attached", "", acceleration, nesting, False, "none", "as found", "canary")


def test_where_nothing_is_nested_the_claim_has_its_right_name() -> None:
    outcomes = [Outcome(name, Status.PASSED, observed="seen") for name in LADDER.names]
    cell = _cell(BARE_METAL, Nesting.NONE)
    claims = judge(outcomes, cell, "canary")
    assert claims[Claim.NESTING].verdict is Verdict.CONFIRMED
    lines = report.summary(cell, claims, Claim.NESTING)
    assert lines[0].startswith("kvm in a container: confirmed, for attached")
    assert "nothing is nested" in lines[0]
    nested = report.summary(_cell("kvm", Nesting.HARDWARE), claims, Claim.NESTING)
    assert nested[0].startswith("nesting: confirmed")


def test_a_vm_that_was_given_no_virtualization_refutes_nothing() -> None:
    """Nobody knows whether its hypervisor was asked for it."""
    no = [
        Outcome(name, Status.FAILED if name == "guest.cpu" else Status.PASSED, observed="neither vmx nor svm")
        for name in LADDER.names
    ]
    verdict = judge(no, _cell("kvm", Nesting.NONE), "canary")[Claim.NESTING]
    assert verdict.verdict is Verdict.BLOCKED
    assert "its hypervisor may have a switch for it" in verdict.reason


def test_another_engine_without_nesting_still_contradicts_itself() -> None:
    outcomes = [Outcome(name, Status.PASSED, observed="seen") for name in LADDER.names]
    verdict = judge(outcomes, _cell("kvm", Nesting.NONE), "canary")[Claim.NESTING]
    assert verdict.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("acceleration", "nesting", "drawn"),
    [
        (BARE_METAL, Nesting.NONE, ["L0", "L0", "Container", "L1"]),
        ("kvm", Nesting.HARDWARE, ["L0", "L1", "Container", "L2"]),
    ],
)
def test_layers_are_drawn_as_the_machine_was_found(
    acceleration: str, nesting: Nesting, drawn: list[str]
) -> None:
    cell = _cell(acceleration, nesting)
    assert [layers._drawn(cell, layer)[0] for layer in Layer] == drawn
    assert "machine" in layers._drawn(cell, Layer.VM)[1]
