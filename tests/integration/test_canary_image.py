"""The built container image: its content, and its real entrypoint and health check, without Docker."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.core.errors import BlockedError, InconclusiveError, LabError
from lab.emulators.canary import console
from lab.emulators.protocol import NestedLostError
from lab.images import cache, canary
from tests.integration import l2

pytestmark = pytest.mark.slow

_LARGEST = 60 << 20
# A container in little: own root, processes, mounts and network; no devices but what is put there.
_CONTAINER = ["unshare", "--map-root-user", "--mount", "--pid", "--net", "--fork", "--kill-child"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = l2.unpack(l2.image(), tmp_path / "root")
    for folder in ("dev", "proc"):
        (made / folder).mkdir()
    (made / "dev" / "null").touch()
    if subprocess.run([*_CONTAINER, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make namespaces here")
    return made


def inside(root: Path, script: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a script with the container's own shell."""
    words = [*_CONTAINER, "--mount-proc", f"--root={root}", "--wd=/"]
    words += ["/bin/busybox", "sh", "-c", f"export PATH=/bin:/usr/bin; busybox ip link set lo up; {script}"]
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds)


def test_image_is_small_and_named_by_its_content() -> None:
    image = l2.image()
    cache.verify(image)
    assert image.manifest.bytes < _LARGEST
    assert {"adbd", "qemu-system-x86"} <= set(image.manifest.packages)
    assert canary.facts(image)["image_id"].startswith("sha256:")
    assert canary.facts(image)["reference"].endswith(image.id.removeprefix("canary-"))


def test_without_kvm_it_ends_at_once_and_says_so(root: Path) -> None:
    done = inside(root, "CANARY_NONCE=n /opt/canary/entrypoint")
    assert done.returncode == 70
    assert "not Android" in done.stdout and "there is no /dev/kvm" in done.stdout
    assert "qemu" not in done.stdout
    with pytest.raises(InconclusiveError, match="/dev/kvm"):
        console.proof(done.stdout)


def test_a_wrong_environment_is_refused(root: Path) -> None:
    assert inside(root, "/opt/canary/entrypoint").returncode == 64
    assert inside(root, "CANARY_NONCE='a b=1' /opt/canary/entrypoint").returncode == 64
    assert inside(root, "CANARY_NONCE=n CANARY_ACCEL=auto /opt/canary/entrypoint").returncode == 64


def test_kvm_that_does_not_work_is_no_reason_to_emulate(root: Path) -> None:
    """A character device of that name that is no KVM: QEMU refuses it, and the container ends."""
    script = "busybox mknod /dev/kvm c 1 3 2>/dev/null || exit 99; CANARY_NONCE=n /opt/canary/entrypoint"
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", f"--root={root}", "--wd=/"]
    done = subprocess.run(
        [*words, "/bin/busybox", "sh", "-c", f"export PATH=/bin:/usr/bin; {script}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode in (1, 99):
        pytest.skip("only root may make a device")
    assert done.returncode == 75, done.stdout
    assert "failed to initialize kvm" in done.stdout and "tcg" not in done.stdout
    # An errno of that device, and no word of KVM's.
    with pytest.raises(NestedLostError, match="failed to initialize kvm"):
        console.proof(done.stdout)


@pytest.mark.parametrize(
    ("before", "after", "error", "words"),
    [
        (
            "",
            "sleep 2; kill -9 $(pidof qemu-system-x86_64)",
            NestedLostError,
            r"SIGKILL \(status 137\) before",
        ),
        ("", "sleep 2; kill -11 $(pidof qemu-system-x86_64)", NestedLostError, "SIGSEGV"),
        ("export CANARY_LISTEN=10.99.99.99;", "", InconclusiveError, "cannot be bound"),
        ("export CANARY_MEMORY=900000000;", "", BlockedError, "out of memory"),
        ("rm -f /bin/qemu-system-x86_64 /usr/bin/qemu-system-x86_64;", "", InconclusiveError, "is missing"),
        ("rm -f /lib/*/libpixman* /usr/lib/*/libpixman*;", "", InconclusiveError, "a library is missing"),
    ],
)
def test_monitor_that_ends_for_another_reason_than_kvm_names_it(
    root: Path, before: str, after: str, error: type[LabError], words: str
) -> None:
    script = f"""
        export CANARY_LISTEN=127.0.0.1 CANARY_NONCE=n CANARY_ACCEL=tcg
        {before}
        /opt/canary/entrypoint & entry=$!
        {after.replace("pidof", "busybox pidof")}
        wait $entry; exit $?
    """
    done = inside(root, script)
    assert done.returncode == 75, done.stdout
    with pytest.raises(error, match=words) as caught:
        console.proof(done.stdout)
    assert type(caught.value) is error


def test_the_comparison_says_that_it_is_emulated_and_the_health_check_asks_over_adb(root: Path) -> None:
    script = """
        export CANARY_LISTEN=127.0.0.1
        /opt/canary/healthcheck; echo "before: $?"
        CANARY_NONCE=n0nce CANARY_ACCEL=tcg /opt/canary/entrypoint &
        until grep -q . /tmp/started 2>/dev/null; do
            if /opt/canary/healthcheck >/tmp/health; then cat /tmp/health >/tmp/started; fi
            sleep 1
        done
        cat /tmp/started
        kill $!; wait $!; echo "after: $?"
    """
    done = inside(root, script, seconds=300)
    assert "before: 1" in done.stdout and "L2 has booted" in done.stdout and "after: 143" in done.stdout
    assert "proves nothing about KVM" in done.stdout
    assert "nonce=n0nce hypervisor=TCGTCGTCGTCG" in done.stdout
    assert console.seconds(done.stdout, "tcg") > 0
    with pytest.raises(InconclusiveError):
        console.proof(done.stdout)


def test_an_l2_that_does_not_come_is_given_up(root: Path) -> None:
    kernel = root / "opt/canary/vmlinuz"
    data = kernel.read_bytes()
    head = (data[0x1F1] + 1) * 512  # the boot sector and the set-up sectors it counts
    kernel.write_bytes(data[:head] + b"\xeb\xfe" * ((len(data) - head) // 2))  # the rest: jump to itself
    done = inside(root, "CANARY_NONCE=n CANARY_PATIENCE=2 CANARY_ACCEL=tcg /opt/canary/entrypoint", 120)
    assert done.returncode == 73
    assert "did not reach user space in 2 s" in done.stdout
    with pytest.raises(InconclusiveError, match="user space"):
        console.proof(done.stdout)
