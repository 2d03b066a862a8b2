"""The Darwin mask: it shows what was recorded, hides what is Linux's, and its stand-ins are like the real."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.host import facts
from tests.integration.darwin import HOME, MACS, Mac, Masked, disguise

_ASK = """\
import json, os, platform, select, shutil, socket, sys, urllib.request
import platformdirs, psutil
from pathlib import Path
print(json.dumps({
    "platform": [sys.platform, *platform.uname()[:5], platform.mac_ver()[0], platform.mac_ver()[2]],
    "cpus": os.cpu_count(),
    "memory": list(psutil.virtual_memory()),
    "linux": [name for name in ("sched_getaffinity", "pidfd_open", "memfd_create") if hasattr(os, name)]
        + [name for name in ("epoll",) if hasattr(select, name)]
        + [path for path in ("/proc", "/sys", "/dev/kvm", "/etc/apt", "/var/lib") if Path(path).exists()],
    "programs": [name for name in sys.argv[1:] if shutil.which(name)],
    "home": str(Path.home()), "state": str(platformdirs.user_state_path("lab", appauthor=False)),
    "me": psutil.Process().name(), "proxies": urllib.request.getproxies(),
}))
"""
_LINUX = (
    *(
        "apt-get",
        "dpkg",
        "mmdebstrap",
        "qemu-img",
        "qemu-system-x86_64",
        "gpgv",
        "gpg",
        "slirp4netns",
        "unshare",
    ),
    *("systemctl", "mke2fs", "lscpu", "ip", "modprobe", "sudo", "timeout", "flock"),
)


@pytest.fixture(scope="module", params=MACS)
def masked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Masked:
    return _masked(MACS[request.param], tmp_path_factory.mktemp("mac"))


def _masked(mac: Mac, folder: Path) -> Masked:
    if os.geteuid() != 0:
        pytest.skip("only root can change what a process sees")
    (folder / "home/src/lab").mkdir(parents=True)
    return disguise(mac, folder / "root", folder / "home")


def test_python_tells_of_the_mac_and_of_nothing_else(masked: Masked) -> None:
    done = masked.run(masked.python, "-c", _ASK, *_LINUX)
    assert done.status == 0, done.err
    told, mac = done.document, masked.mac
    total, available = int(mac.sysctl["hw.memsize"]), mac.free + mac.inactive
    assert told["platform"] == ["darwin", *mac.uname, mac.product[1], mac.uname[4]]
    assert told["cpus"] == int(mac.sysctl["hw.logicalcpu"])
    assert told["memory"][:2] == [total, available]
    assert (told["linux"], told["programs"], told["proxies"]) == ([], [], {})
    assert told["home"] == str(HOME)
    assert told["state"] == f"{HOME}/Library/Application Support/lab"
    assert told["me"].startswith("python"), "processes are still there to be asked about"


def test_lab_reads_the_recorded_mac(masked: Masked) -> None:
    script = "import json; from lab.host import facts; print(json.dumps(facts.read().as_dict()))"
    done = masked.run(masked.python, "-c", script)
    assert done.status == 0, done.err
    host, mac = facts.HostFacts.from_dict(done.document), masked.mac
    assert (host.os, host.os_version, host.kernel) == ("macOS", mac.product[1], mac.uname[2])
    assert host.cpu.model == mac.sysctl["machdep.cpu.brand_string"]
    assert host.cpu.extensions == (("vmx", "hv_support") if mac.intel else ("hv_support",))
    assert host.mac is not None and host.mac.silicon is not mac.intel
    assert (host.cpu.hypervisor, host.cpu.emulated, host.kvm) == (False, False, None)


def test_without_its_mask_nothing_runs(tmp_path: Path) -> None:
    """Python by itself would print a traceback and go on, as Linux."""
    masked = _masked(MACS["m1"], tmp_path)
    (masked.root / ".mask/mac.json").unlink()
    done = masked.run(masked.python, "-c", "print('ran')")
    assert (done.status, done.out) == (70, "")


@pytest.mark.parametrize("words", [[], ["-s"], ["-r"], ["-m"], ["-n"], ["-v"], ["-sr"], ["-rsm"], ["-snrvm"]])
def test_uname_is_like_the_real(words: list[str], tmp_path: Path) -> None:
    masked = _masked(replace(MACS["m1"], uname=tuple(os.uname())), tmp_path)
    real = subprocess.run(["uname", *words], capture_output=True, text=True, check=True)
    assert masked.run("uname", *words).out == real.stdout


def test_sysctl_is_like_the_real(tmp_path: Path) -> None:
    """macOS's prints `name: value` where Linux's prints `name = value`; values alone are alike."""
    names = ("kernel.ostype", "kernel.osrelease")
    recorded = {name: Path("/proc/sys", *name.split(".")).read_text().strip() for name in names}
    masked = _masked(replace(MACS["m1"], sysctl={**MACS["m1"].sysctl, **recorded}), tmp_path)
    if real := shutil.which("sysctl", path="/usr/sbin:/sbin"):
        done = subprocess.run([real, "-n", *names], capture_output=True, text=True, check=True)
        assert masked.run("sysctl", "-n", *names).out == done.stdout
    # As a Mac of M1's kind printed them: super-l/machine-code#1.
    done = masked.run("sysctl", "machdep.cpu.signature", "machdep.cpu.brand_string")
    assert (done.status, done.out) == (1, "machdep.cpu.brand_string: Apple M1\n")
    assert done.err == "sysctl: unknown oid 'machdep.cpu.signature'\n"
    assert masked.run("sysctl", "-in", "sysctl.nothing").status == 0


def test_sw_vers_is_as_reported(tmp_path: Path) -> None:
    masked = _masked(MACS["m4"], tmp_path)
    assert masked.run("sw_vers", "-productVersion").out == "26.5.2\n"
    assert (
        masked.run("sw_vers").out
        == "ProductName:\t\tmacOS\nProductVersion:\t\t26.5.2\nBuildVersion:\t\t25F84\n"
    )


def test_psutil_answers_in_its_own_shape_on_macos() -> None:
    """By psutil's own code for macOS, which its Linux wheel holds, too."""
    folder = Path(psutil.__file__).parent
    mask = _assigned(Path(__file__).parent / "darwin/mask/sitecustomize.py")
    process = next(
        node
        for node in ast.parse((folder / "_psosx.py").read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Process"
    )
    methods = {node.name for node in process.body if isinstance(node, ast.FunctionDef)}
    assert not methods & set(mask["PROCESS_LINUX_ONLY"])
    assert set(mask["PROCESS_LINUX_ONLY"]) <= set(dir(psutil.Process))
    shapes = ast.unparse(ast.parse((folder / "_ntuples.py").read_text())).partition("elif MACOS:")[2]
    fields = shapes.partition("svmem = nt('svmem', ")[2].partition("\n")[0].removesuffix(")")
    assert ast.literal_eval(fields) == mask["Memory"]


def _assigned(path: Path) -> dict[str, Any]:
    """A module's tuples of names, and the fields of its classes, without running it."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            fields = [item.target for item in node.body if isinstance(item, ast.AnnAssign)]
            found[node.name] = tuple(field.id for field in fields if isinstance(field, ast.Name))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found
