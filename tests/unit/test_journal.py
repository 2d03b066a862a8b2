"""The journal: nothing written before a crash is lost, wherever the crash tore the file."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import BlockedError
from lab.core.journal import Journal

_KEYS = st.sampled_from(["a", "b", "c"])
_OPERATIONS = st.lists(st.tuples(st.sampled_from(["intend", "done", "gone"]), _KEYS), max_size=12)


def _written(path: Path, operations: list[tuple[str, str]]) -> tuple[Journal, list[int]]:
    """The journal after these operations, and the file's size after each."""
    journal = Journal(path)
    sizes = []
    for verb, key in operations:
        getattr(journal, verb)("thing", key)
        sizes.append(path.stat().st_size)
    return journal, sizes


def _model(operations: list[tuple[str, str]]) -> dict[str, bool]:
    alive: dict[str, bool] = {}
    for verb, key in operations:
        if verb == "gone":
            alive.pop(key, None)
        else:
            alive[key] = verb == "done"
    return alive


@given(_OPERATIONS)
def test_entries_are_what_was_intended_and_not_removed(operations: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal, _ = _written(Path(folder) / "journal", operations)
        assert {entry.key: entry.done for entry in journal.entries()} == _model(operations)


@given(_OPERATIONS.filter(bool), st.data())
def test_a_torn_line_costs_only_itself(operations: list[tuple[str, str]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal, sizes = _written(path, operations)
        cut = data.draw(st.integers(0, sizes[-1]))
        path.write_bytes(path.read_bytes()[:cut])
        # A line whose last byte alone, the newline, is missing is still whole.
        whole = sum(size - 1 <= cut for size in sizes)
        assert {entry.key: entry.done for entry in journal.entries()} == _model(operations[:whole])
        journal.intend("thing", "after")
        assert "after" in {entry.key for entry in journal.entries()}


def test_facts_gather_over_the_lines_of_one_entry(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.intend("process", "x", port=5)
    journal.done("process", "x", pid=7)
    (entry,) = journal.entries("process")
    assert entry.facts == {"port": 5, "pid": 7}
    assert journal.entries("file") == []


@pytest.mark.parametrize("written", [0, 7])
def test_on_a_full_disk_nothing_is_begun_unrecorded_and_removing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.intend("vm", "a")
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        if not written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[:written])  # as write(2) does: what fits, and no error

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for say in (journal.intend, journal.done):
            with pytest.raises(OSError, match="No space left"):
                say("file", "b")
        journal.gone("vm", "a")
    assert [(entry.key, entry.done) for entry in journal.entries()] == [("a", False)]
    journal.done("vm", "a")
    assert [(entry.key, entry.done) for entry in journal.entries()] == [("a", True)]


@given(
    st.lists(
        st.sampled_from(
            ["[]", "5", "null", '"x"', "{}", '{"verb": 1}', '{"verb": [], "kind": {}, "key": []}']
        )
    )
)
def test_a_line_that_is_none_of_a_journals_costs_no_other(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal")
        journal.path.write_text("".join(f"{line}\n" for line in lines))
        journal.intend("thing", "a")
        assert [entry.key for entry in journal.entries("thing")] == ["a"]


def test_a_journal_that_may_not_be_read_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(BlockedError, match="is a folder"):
        Journal(tmp_path / "journal").entries()
