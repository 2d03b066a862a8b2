"""Downloads from a server that misbehaves: a right file or a clear error, never a bad file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
from downloadbench import BODY, IMAGE, SHA, Bench
from imageserver import Manner, Served, image_server, make_certificate

from lab.core import lock, redact
from lab.core.deadline import Deadline, cancelled, poll
from lab.core.errors import BlockedError, BusyError, DeadlineError, InterruptedByUser
from lab.core.web import Patience


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "cache"
    folder.mkdir()
    with image_server() as server:
        yield Bench(server, folder)


def test_fetches_and_reports_progress(bench: Bench) -> None:
    assert bench.fetch() == bench.target
    bench.whole()
    last = [event for event in bench.events if event.kind == "progress"][-1]
    assert (last.done, last.total) == (len(BODY), len(BODY))
    assert "MiB/s" in last.text


def test_a_file_that_is_there_is_not_fetched_again(bench: Bench) -> None:
    bench.target.write_bytes(BODY)
    bench.fetch()
    assert bench.server.requests == []


def test_a_damaged_file_is_replaced(bench: Bench) -> None:
    bench.target.write_bytes(BODY[:-1])
    bench.fetch()
    bench.whole()


def test_goes_on_after_each_lost_connection(bench: Bench) -> None:
    """More losses than the tries allowed in a row: each brought something new."""
    bench.server.answers(IMAGE, *[Manner(cut=200_000)] * 5)
    bench.fetch()
    bench.whole()
    assert bench.server.ranges() == [""] + [f"bytes={n * 200_000}-" for n in range(1, 6)]
    assert {request.if_range for request in bench.server.requests[1:]} == {'"one"'}


def test_gives_up_on_a_server_that_brings_nothing_new(bench: Bench) -> None:
    bench.server.always[IMAGE] = Manner(cut=1000, ignore_range=True)
    with pytest.raises(BlockedError, match=r"closed the connection.*3 tries"):
        bench.fetch()
    assert not bench.target.exists()
    assert len(bench.server.requests) == 3


def test_notices_a_stalled_server(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(stall=300_000))
    bench.fetch()
    bench.whole()
    assert "stopped sending" in bench.said()
    assert bench.server.ranges() == ["", "bytes=300000-"]


def test_a_file_changed_midway_is_fetched_from_the_start(bench: Bench) -> None:
    """The new file has a new ETag: If-Range makes the server send all of it."""
    bench.server.files[IMAGE] = Served(bytes(len(BODY)), etag='"old"')
    change = lambda: bench.server.files.update({IMAGE: Served(BODY, etag='"new"')})  # noqa: E731
    bench.server.answers(IMAGE, Manner(cut=400_000, then=change))
    bench.fetch()
    bench.whole()
    assert [request.status for request in bench.server.requests] == [200, 200]
    assert bench.server.requests[1].if_range == '"old"'


@pytest.mark.parametrize("new_etag", ['"new"', '"old"'], ids=["etag tells", "only the hash tells"])
def test_a_server_that_glues_two_files_together_is_found_out(bench: Bench, new_etag: str) -> None:
    bench.server.files[IMAGE] = Served(bytes(len(BODY)), etag='"old"')
    change = lambda: bench.server.files.update({IMAGE: Served(BODY, etag=new_etag)})  # noqa: E731
    bench.server.answers(IMAGE, Manner(cut=400_000, then=change), Manner(ignore_if_range=True))
    bench.fetch()
    bench.whole()
    assert [request.status for request in bench.server.requests] == [200, 206, 200]


def test_a_server_that_ignores_ranges_starts_over(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(cut=400_000), Manner(ignore_range=True))
    bench.fetch()
    bench.whole()
    assert [request.status for request in bench.server.requests] == [200, 200]


def test_a_weak_etag_is_not_used_to_resume(bench: Bench) -> None:
    bench.server.files[IMAGE] = Served(BODY, etag='W/"weak"')
    bench.server.answers(IMAGE, Manner(cut=400_000))
    bench.fetch()
    bench.whole()
    assert bench.server.requests[1].if_range == bench.server.files[IMAGE].last_modified


def test_without_a_validator_it_starts_over(bench: Bench) -> None:
    bench.server.files[IMAGE] = Served(BODY, etag='W/"weak"', last_modified="")
    bench.server.answers(IMAGE, Manner(cut=400_000))
    bench.fetch()
    bench.whole()
    assert bench.server.ranges() == ["", ""]


def test_a_wrong_hash_is_an_error_and_leaves_nothing(bench: Bench) -> None:
    wrong = "0" * 64
    with pytest.raises(BlockedError, match=f"expected {wrong}, observed {SHA}"):
        bench.fetch(sha256=wrong)
    assert list(bench.target.parent.iterdir()) == []
    assert len(bench.server.requests) == 1


def test_a_wrong_hash_after_resuming_is_tried_once_from_the_start(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(cut=400_000))
    with pytest.raises(BlockedError, match="another hash"):
        bench.fetch(sha256="0" * 64)
    assert bench.server.ranges() == ["", "bytes=400000-", ""]
    assert list(bench.target.parent.iterdir()) == []


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_not_asked_again(bench: Bench, status: int) -> None:
    bench.server.always[IMAGE] = Manner(status=status)
    with pytest.raises(BlockedError, match=f"answered {status}"):
        bench.fetch()
    assert len(bench.server.requests) == 1


def test_a_server_error_is_asked_again(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(status=500), Manner(status=503))
    bench.fetch()
    bench.whole()
    assert "answered 500" in bench.said()


def test_more_than_promised_is_cut_off(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(extra=b"more"))
    bench.fetch()
    bench.whole()


def test_a_resumed_body_that_is_too_long_is_refused(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(cut=400_000), Manner(chunked=True, extra=b"more"))
    bench.fetch()
    bench.whole()
    assert "sent more than" in bench.said()
    assert bench.server.ranges() == ["", "bytes=400000-", ""]


@pytest.mark.parametrize("content_range", ["bytes 1-1500003/1500004", "bytes 400000-9/10", "nonsense"])
def test_a_part_that_was_not_asked_for_is_refused(bench: Bench, content_range: str) -> None:
    bench.server.answers(IMAGE, Manner(cut=400_000), Manner(content_range=content_range))
    bench.fetch()
    bench.whole()
    assert bench.server.ranges() == ["", "bytes=400000-", ""]


def test_less_than_the_hash_wants_is_an_error(bench: Bench) -> None:
    """The server promises, and sends, a truncated file."""
    bench.server.files[IMAGE] = Served(BODY[:-10])
    with pytest.raises(BlockedError, match="another hash"):
        bench.fetch()
    assert list(bench.target.parent.iterdir()) == []


def test_a_body_without_length_is_taken_and_checked(bench: Bench) -> None:
    bench.server.always[IMAGE] = Manner(chunked=True)
    bench.server.answers(IMAGE, Manner(chunked=True, cut=400_000))
    bench.fetch()
    bench.whole()


def test_a_packed_body_is_refused(bench: Bench) -> None:
    bench.server.always[IMAGE] = Manner(encoding="gzip")
    with pytest.raises(BlockedError, match="packed the file with gzip"):
        bench.fetch()
    assert not bench.target.exists()


def test_the_deadline_ends_it_and_keeps_the_part(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(stall=300_000))
    with pytest.raises(DeadlineError, match="not downloaded in 1 s"):
        bench.fetch(seconds=1, patience=Patience(read=30, backoff=0.01))
    assert bench.part.stat().st_size == 300_000
    bench.fetch()
    bench.whole()


def test_cancelling_ends_a_silent_download_and_keeps_the_part(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(stall=300_000))

    def cancel() -> None:
        poll(lambda: _has(bench.part, 300_000), Deadline.after(20), "the first bytes")
        cancelled.set()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        with pytest.raises(InterruptedByUser):
            bench.fetch(patience=Patience(read=60))
    finally:
        canceller.join()
        cancelled.clear()
    bench.fetch()
    bench.whole()
    assert bench.server.ranges() == ["", "bytes=300000-"]


def test_a_part_of_another_release_is_not_used(bench: Bench) -> None:
    bench.part.write_bytes(b"x" * 1000)
    facts = {"url": bench.server.url(IMAGE), "sha256": "0" * 64, "etag": '"one"', "total": len(BODY)}
    bench.part.with_name("disk.img.part.json").write_text(json.dumps(facts))
    bench.fetch()
    bench.whole()
    assert bench.server.ranges() == [""]


def test_a_part_that_is_too_long_is_thrown_away(bench: Bench) -> None:
    bench.part.write_bytes(BODY + b"x")
    facts = {"url": bench.server.url(IMAGE), "sha256": SHA, "etag": '"one"', "total": len(BODY)}
    bench.part.with_name("disk.img.part.json").write_text(json.dumps(facts))
    bench.fetch()
    bench.whole()
    assert [request.status for request in bench.server.requests] == [416, 200]


def test_full_disk_is_told_before_anything_is_written(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(bench.target.parent)._replace(free=1_000_000)
    monkeypatch.setattr("lab.core.files.shutil.disk_usage", lambda _: usage)
    with pytest.raises(BlockedError, match="is free"):
        bench.fetch()
    assert not bench.part.exists()
    assert not bench.target.exists()


def test_nobody_there_is_said_in_plain_words(bench: Bench) -> None:
    bench.server.go_away()
    with pytest.raises(BlockedError, match=r"127\.0\.0\.1 refused the connection"):
        bench.fetch()


def test_a_password_in_the_address_stays_out_of_every_text(bench: Bench) -> None:
    url = bench.server.url(IMAGE).replace("http://", "http://user:pass%40word-1@")
    bench.server.answers(IMAGE, Manner(cut=1000), Manner(status=404))
    with pytest.raises(BlockedError) as caught:
        bench.fetch(url=url)
    kept = bench.said() + caught.value.what + bench.part.with_name("disk.img.part.json").read_text()
    assert "word-1" not in kept
    assert redact.clean("pass@word-1") == "[redacted]"


PROGRAM = """
import sys
from pathlib import Path
from lab.core.deadline import Deadline
from lab.images.download import download
from lab.core.steps import Steps
url, target, sha256 = sys.argv[1:]
with Steps(lambda event: print(event.text, flush=True)).step("fetch") as step:
    download(url, Path(target), sha256=sha256, step=step, deadline=Deadline.after(60))
"""


def _start(bench: Bench) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", PROGRAM, bench.server.url(IMAGE), str(bench.target), SHA]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)


def _has(path: Path, size: int) -> bool | None:
    return True if path.exists() and path.stat().st_size == size else None


def test_a_killed_download_is_taken_up_again(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(stall=700_000))
    process = _start(bench)
    poll(lambda: _has(bench.part, 700_000), Deadline.after(30), "the first bytes")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not bench.target.exists()
    bench.fetch()
    bench.whole()
    assert bench.server.ranges() == ["", "bytes=700000-"]


def test_two_processes_download_once(bench: Bench) -> None:
    bench.server.answers(IMAGE, Manner(stall=700_000))
    first = _start(bench)
    poll(lambda: _has(bench.part, 700_000), Deadline.after(30), "the first bytes")
    second = _start(bench)
    assert second.stdout
    said = next(line for line in second.stdout if "waiting" in line)
    assert f"process {first.pid} (the download of disk.img" in said
    bench.server.released.set()
    for process in (first, second):
        process.communicate(timeout=60)
        assert process.returncode == 0
    bench.whole()
    assert len(bench.server.requests) == 1


def test_who_waits_too_long_is_told_the_holder(bench: Bench) -> None:
    with (
        lock.when_free(lock.beside(bench.target), "a test"),
        pytest.raises(BusyError, match=f"process {os.getpid()} "),
    ):
        bench.fetch(seconds=0.6)


def test_does_not_leave_https(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = make_certificate(tmp_path)
    with image_server(certificate) as secure:
        url = secure.url(IMAGE)
        secure.answers(IMAGE, Manner(status=302, location=bench.server.url(IMAGE)))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        with pytest.raises(BlockedError, match="does not leave https"):
            bench.fetch(url=url)
        assert bench.server.requests == []
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
        with pytest.raises(BlockedError, match=r"certificate of 127\.0\.0\.1 was not accepted"):
            bench.fetch(url=url)
