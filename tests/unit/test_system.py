"""What the system refuses is told with the file, its owner and what mends it; never as a bug of lab's."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cli import refusal
from lab.core import files, system
from lab.core.errors import BlockedError, ExitCode, LabError
from lab.records.labs import Store

NOBODY = 65534


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder that any user reaches, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="lab-state-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@contextlib.contextmanager
def _another_user() -> Iterator[None]:
    """Root, who may do everything, becomes somebody else; what root made is then as after `sudo`."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _refused(act: Callable[[], object], *ours: Path) -> LabError:
    """What a command says that ends so."""
    try:
        act()
    except OSError as error:
        return refusal.known(error, folders=ours)
    raise AssertionError("nothing was refused")


def test_what_sudo_left_behind_names_its_owner_and_what_mends_it(state: Path) -> None:
    file = state / "labs" / "default" / "lab.json"
    files.write_json(file, {}, mode=0o600)
    for folder in (file.parent, file.parent.parent):
        folder.chmod(0o755)  # as an earlier lab made them
    with _another_user():
        found = _refused(file.read_text, state)
    assert found.exit_code == ExitCode.BLOCKED
    assert str(file) in found.what and "belongs to root" in found.what and "0600" in found.what
    assert f"sudo chown -R {NOBODY}:0 {state}" in found.hint
    assert found.tail == ""


@pytest.mark.parametrize("file", ["labs/default/lab.json", "labs/default/vm/new"])
def test_the_folder_that_lets_nobody_through_is_named_and_not_what_is_in_it(state: Path, file: str) -> None:
    files.write_json(state / "labs" / "default" / "lab.json", {})
    (state / "labs").chmod(0o755)
    (state / "labs" / "default").chmod(0o700)
    with _another_user():
        found = _refused((state / file).read_text, state)
    assert f"{state / 'labs' / 'default'} belongs to root" in found.what


def test_a_folder_that_nothing_can_be_put_into(state: Path) -> None:
    (state / "labs").mkdir(mode=0o755)
    with _another_user():
        found = _refused((state / "labs" / "new").mkdir, state)
    assert f"{state / 'labs'} belongs to root" in found.what


def test_ones_own_file_of_a_wrong_mode_needs_no_sudo(state: Path) -> None:
    state.chmod(0o777)
    with _another_user():
        file = state / "mine"
        file.write_text("")
        file.chmod(0)
        found = _refused(file.read_text, state)
    assert "sudo" not in found.hint and f"chmod -R u+rwX {file}" in found.hint


def test_what_is_not_labs_is_not_to_be_given_away(state: Path) -> None:
    (state / "secret").write_text("")
    (state / "secret").chmod(0o600)
    with _another_user():
        found = _refused((state / "secret").read_text, state / "labs")
    assert "chown" not in found.hint and "belongs to root" in found.what


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "labs").write_text("")
    found = _refused(lambda: (tmp_path / "labs" / "x" / "y").write_text(""), tmp_path)
    assert f"{tmp_path / 'labs'} is no folder" in found.what
    assert f"mv {tmp_path / 'labs'} {tmp_path / 'labs'}.aside" in found.hint
    placed = _refused(lambda: Store(tmp_path).place("x"), tmp_path)
    listed = _refused(lambda: Store(tmp_path).labs(), tmp_path)
    assert {type(each) for each in (found, placed, listed)} == {BlockedError}


def test_a_link_to_itself_and_a_name_too_long(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "leads back to itself" in _refused((tmp_path / "loop").read_text).what
    assert "too long a name" in _refused((tmp_path / ("x" * 300)).read_text).what
    assert "is a folder" in _refused(tmp_path.read_text).what


def test_what_is_gone_from_labs_own_folders_was_removed_by_somebody(tmp_path: Path) -> None:
    missing = tmp_path / "labs" / "x" / "keys"
    assert "another command" in _refused(missing.mkdir, tmp_path).what
    assert "this is a bug in lab" in _refused(missing.mkdir).hint


def test_another_users_process() -> None:
    found = refusal.known(psutil.AccessDenied(4711))
    assert found.exit_code == ExitCode.BLOCKED and "4711" in found.what and "sudo kill 4711" in found.hint


@pytest.mark.parametrize(
    "code", [errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EPERM]
)
def test_each_of_them_names_the_file_and_what_to_do(tmp_path: Path, code: int) -> None:
    found = refusal.known(OSError(code, os.strerror(code), str(tmp_path / "a b")), folders=[tmp_path])
    assert found.exit_code == ExitCode.BLOCKED
    assert "a b" in found.what and found.hint and "bug" not in found.hint


@given(st.sampled_from(sorted(errno.errorcode)), st.none() | st.text(max_size=20) | st.integers(0, 9))
def test_explaining_never_fails(code: int, name: str | int | None) -> None:
    error = OSError(code, os.strerror(code), name)
    found = system.explain(error, [Path("/nowhere")])
    assert found is None or (found.what and found.hint and "{" not in found.hint)


def test_only_what_can_be_explained_becomes_another_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), system.explained(tmp_path / "ours"):
        (tmp_path / "missing").read_text()
    with pytest.raises(BlockedError), system.explained():
        tmp_path.read_text()


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"nan,"])
def test_torn_json_names_its_file_whoever_reads_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "agreed.json"
    file.write_bytes(content)
    with pytest.raises(files.DamagedFileError) as damaged:
        files.read_json(file)
    assert isinstance(damaged.value, ValueError) and isinstance(damaged.value, LabError)
    assert str(file) in damaged.value.what and damaged.value.exit_code == ExitCode.INCONCLUSIVE


@pytest.mark.parametrize("content", ["null", "[]", "5", '"x"'])
def test_an_object_is_one_or_its_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "agreed.json"
    assert files.read_object(file) == {}
    file.write_text(content)
    with pytest.raises(files.DamagedFileError, match=r"agreed\.json"):
        files.read_object(file)


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(_user: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path))
    assert f"user {os.geteuid()}" in refusal.known(error).what
