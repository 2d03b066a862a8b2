"""Whose last words are whose: KVM's, and everybody else's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.emulators import lastwords

KVMS_OWN = [
    "KVM: entry failed, hardware error 0xffffffffffffffff",
    "KVM: entry failed, hardware error 0x80000021",
    "KVM internal error. Suberror: 1",
    "KVM: unknown exit, hardware reason 31",
    "qemu-system-x86_64: KVM: entry failed, hardware error 0x0",
    "ERROR   | KVM internal error. Suberror: 3",
]
OTHERS = {
    "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory": lastwords.MEMORY,
    "qemu-system-x86_64: failed to initialize kvm: Cannot allocate memory": lastwords.MEMORY,
    "error: kvm run failed Cannot allocate memory": lastwords.MEMORY,
    "terminate called after throwing an instance of 'std::bad_alloc'": lastwords.MEMORY,
    "qemu-system-x86_64: -netdev user,id=net: Could not set up host forwarding rule 'tcp::5555-:5555'": (
        lastwords.PORT
    ),
    "listen tcp4 10.0.2.15:5555: bind: address already in use.": lastwords.PORT,
    "Bind for 10.0.2.15:5555 failed: port is already allocated.": lastwords.PORT,
    "Could not access KVM kernel module: Permission denied": lastwords.PERMISSION,
    "qemu-system-x86_64: failed to initialize kvm: Permission denied": lastwords.PERMISSION,
    "/dev/kvm cannot be opened: Operation not permitted": lastwords.PERMISSION,
    "/dev/kvm cannot be opened: Too many open files": "too many open files",
    "qemu-system-x86_64: error while loading shared libraries: libpulse.so.0: cannot open shared object "
    "file: No such file or directory": "a library is missing",
    "/opt/canary/entrypoint: line 92: qemu-system-x86_64: not found": "a program or file is missing",
    "sh: 1: emulator: Exec format error": "a program or file is missing",
    "error: kvm run failed Bad address": "",
    "qemu-system-x86_64: failed to initialize kvm: Input/output error": "",
    "error: failed to set MSR 0x10a to 0x0": "",
    "kvm_buf_set_msrs: Assertion `ret == cpu->kvm_msr_buf->nmsrs' failed.": "",
    "Segmentation fault (core dumped)": "",
    "qemu-system-x86_64: terminating on signal 15 from pid 1 (sh)": "",
}


@pytest.mark.parametrize("line", KVMS_OWN)
def test_kvms_own_words(line: str) -> None:
    assert lastwords.KVM.search(f"something before\n{line}\nsomething after")


@pytest.mark.parametrize("line", OTHERS)
def test_words_of_others_name_their_trouble_and_are_not_kvms(line: str) -> None:
    assert lastwords.trouble(line) == OTHERS[line]
    assert not lastwords.KVM.search(line)


def test_whoever_speaks_of_kvms_words_does_not_speak_them() -> None:
    assert not lastwords.KVM.search("a log without `KVM: entry failed` in it")
    assert not lastwords.KVM.search("canary: qemu ended before KVM internal error could be said")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit code 0"),
        (1, "exit code 1"),
        (126, "exit code 126"),
        (134, "exit code 134, SIGABRT"),
        (137, "exit code 137, SIGKILL"),
        (139, "exit code 139, SIGSEGV"),
        (143, "exit code 143, SIGTERM"),
        (255, "exit code 255"),
        (None, "exit code unknown"),
    ],
)
def test_exit_code_names_its_signal(status: int | None, words: str) -> None:
    assert lastwords.exit_code(status) == words


@given(st.integers(-300, 300))
def test_every_exit_code_has_words(status: int) -> None:
    assert lastwords.exit_code(status).startswith(f"exit code {status}")
