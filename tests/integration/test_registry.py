"""Images pulled from a real registry through a door that misbehaves: a right image or a clear error."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from registrybench import ANDROID, NEWER, QUICK, REPOSITORY, TAG, Bench, must_be, pulling
from registrydoor import Manner
from registryserver import digest, image, index

from lab.core.deadline import Deadline, cancelled
from lab.core.errors import BlockedError, DeadlineError, ExitCode, InterruptedByUser, LabError
from lab.core.web import Patience
from lab.images import cache as images
from lab.images import savedimage
from lab.images.errors import (
    IncompleteError,
    NotFoundError,
    PartMissingError,
    PlatformError,
    RateLimitedError,
    ServerUnreachableError,
    WrongDigestError,
)
from lab.images.registry import Reference, client, facts, find, pull, reachable


def test_what_is_pulled_is_the_image_that_was_pushed(bench: Bench) -> None:
    entry = bench.pull()
    must_be(entry, ANDROID)
    assert entry.id == f"docker-android-{ANDROID.digest[7:19]}"
    assert entry.manifest.kind == "emulator"
    assert find(bench.cache, ANDROID.digest) == entry
    assert not bench.blobs().exists()
    last = [event for event in bench.events if event.kind == "progress" and "layer" in event.text][-1]
    assert last.done == last.total == facts(entry).compressed_bytes
    assert "layer 3 of 3" in last.text
    assert "MiB/s" in last.text
    saved = savedimage.read(entry.path, bench.state)
    assert (saved.sha256, saved.image_id) == (entry.manifest.sha256, facts(entry).image_id)


def test_an_image_that_does_not_fit_is_not_fetched(bench: Bench) -> None:
    told: list[int] = []

    def refuse(size: int) -> None:
        told.append(size)
        raise BlockedError("it has no room in the VM")

    for attempt in (bench.pull, bench.obtain):
        with pytest.raises(BlockedError, match="no room in the VM"):
            attempt(fits=refuse)
    assert not any("/blobs/" in request.path for request in bench.door.requests)
    fitting = bench.pull(fits=told.append)
    assert told == [facts(fitting).compressed_bytes] * 3


def test_the_archive_is_the_same_each_time(bench: Bench) -> None:
    first = bench.pull().manifest.sha256
    shutil.rmtree(bench.cache)
    assert bench.pull().manifest.sha256 == first


def test_what_the_cache_has_is_not_fetched_again(bench: Bench) -> None:
    bench.pull()
    bench.door.requests.clear()
    bench.pull()
    assert [request.path.rpartition("/")[2] for request in bench.door.requests] == [TAG]


def test_a_damaged_image_is_pulled_again(bench: Bench) -> None:
    entry = bench.pull()
    entry.path.chmod(0o644)
    entry.path.write_bytes(b"x" * entry.manifest.bytes)
    assert find(bench.cache, ANDROID.digest) is None
    must_be(bench.pull(), ANDROID)


def test_a_layer_that_comes_twice_is_fetched_and_packed_once(bench: Bench) -> None:
    twice = image(5, 6, 5)
    bench.real.push("lab/twice", "1", twice)
    entry = bench.pull("lab/twice:1")
    must_be(entry, twice, "lab/twice:1")
    assert len(bench.door.asked("/blobs/")) == 3


def test_the_pulled_image_of_an_index_is_the_one_for_amd64(bench: Bench) -> None:
    platforms = {"linux/arm64": image(7, architecture="arm64"), "linux/amd64": image(8)}
    named = bench.real.push_index("lab/many", "1", platforms)
    entry = bench.pull("lab/many:1")
    must_be(entry, platforms["linux/amd64"], "lab/many:1")
    assert facts(entry).digest == named
    assert find(bench.cache, named) == find(bench.cache, platforms["linux/amd64"].digest) == entry


def test_an_index_without_amd64_is_refused(bench: Bench) -> None:
    bench.real.push_index("lab/arm", "1", {"linux/arm64": image(7, architecture="arm64")})
    with pytest.raises(PlatformError, match=r"no image for linux/amd64, only for linux/arm64"):
        bench.pull("lab/arm:1")


def test_an_image_of_another_architecture_is_refused(bench: Bench) -> None:
    bench.real.push("lab/arm", "plain", image(7, architecture="arm64"))
    with pytest.raises(PlatformError, match="linux/arm64, not for linux/amd64"):
        bench.pull("lab/arm:plain")


def test_resolving_fetches_manifests_only(bench: Bench) -> None:
    with client.Registry(bench.reference, bench.door.host, Deadline.after(10)) as registry:
        found = registry.resolve("")
    assert (found.digest, found.manifest) == (ANDROID.digest, ANDROID.digest)
    assert [layer.digest for layer in found.layers] == [digest(layer) for layer in ANDROID.layers]
    assert not bench.door.asked("/blobs/")


def test_a_cut_layer_is_gone_on_with_and_no_byte_comes_twice(bench: Bench) -> None:
    layer = ANDROID.layers[1]
    bench.door.answers(digest(layer), *[Manner(cut=90_000)] * 4)
    must_be(bench.pull(), ANDROID)
    asked = bench.door.asked(digest(layer))
    assert [request.range for request in asked] == ["", *(f"bytes={n * 90_000}-" for n in range(1, 5))]
    assert sum(request.sent for request in asked) == len(layer)


def test_a_layer_is_gone_on_with_though_the_servers_name_it_differently(bench: Bench) -> None:
    """What a digest names cannot change: no ETag or date is needed to go on, and none can hinder it."""
    layer = ANDROID.layers[0]
    bench.door.answers(
        digest(layer),
        Manner(cut=90_000, headers={"Etag": "", "Last-Modified": ""}),
        Manner(cut=90_000, headers={"Etag": '"another"'}),
    )
    must_be(bench.pull(), ANDROID)
    assert sum(request.sent for request in bench.door.asked(digest(layer))) == len(layer)


def test_what_was_fetched_before_an_interruption_is_kept(bench: Bench) -> None:
    cut = ANDROID.layers[2]
    bench.door.answers(digest(cut), Manner(stall=70_000))

    def stop() -> None:
        bench.wait_for_part(cut, 70_000)
        cancelled.set()

    waiting = threading.Thread(target=stop)
    waiting.start()
    try:
        with pytest.raises(InterruptedByUser):
            bench.pull(patience=Patience())
    finally:
        waiting.join()
        cancelled.clear()
    assert images.entries(bench.cache) == []
    before = {digest(layer): len(bench.door.asked(digest(layer))) for layer in ANDROID.layers}
    must_be(bench.pull(), ANDROID)
    after = {digest(layer): len(bench.door.asked(digest(layer))) for layer in ANDROID.layers}
    assert [after[key] - before[key] for key in before] == [0, 0, 1]
    assert sum(request.sent for request in bench.door.asked(digest(cut))) == len(cut)


def test_a_killed_pull_is_gone_on_with(bench: Bench) -> None:
    cut = ANDROID.layers[2]
    bench.door.answers(digest(cut), Manner(stall=70_000))
    process = pulling(bench)
    bench.wait_for_part(cut, 70_000)
    process.kill()
    process.wait(20)
    must_be(bench.pull(), ANDROID)
    assert sum(request.sent for request in bench.door.asked(digest(cut))) == len(cut)


def test_prune_removes_what_a_cut_pull_left_but_not_under_a_running_one(bench: Bench) -> None:
    bench.door.always.append((digest(ANDROID.layers[2]), Manner(cut=0)))
    with pytest.raises(IncompleteError):
        bench.pull()
    left = bench.blobs()
    with images.lock(bench.cache, left.name):
        assert images.prune(bench.cache, set()) == []
    (removed,) = images.prune(bench.cache, set())
    assert removed.path == left
    assert removed.bytes > 2 * 400_000
    assert list(images.downloads(bench.cache).iterdir()) == []


def test_a_stalled_layer_is_asked_for_again(bench: Bench) -> None:
    layer = ANDROID.layers[0]
    bench.door.answers(digest(layer), Manner(stall=90_000))
    must_be(bench.pull(), ANDROID)
    assert "stopped sending" in bench.said()
    assert [request.range for request in bench.door.asked(digest(layer))] == ["", "bytes=90000-"]


def test_a_layer_that_is_cut_for_ever_is_given_up(bench: Bench) -> None:
    bench.door.always.append((digest(ANDROID.layers[0]), Manner(cut=0)))
    with pytest.raises(IncompleteError, match="3 tries brought nothing new") as caught:
        bench.pull()
    assert caught.value.exit_code == ExitCode.BLOCKED
    assert "is kept" in caught.value.hint


def test_a_layer_that_stays_silent_is_given_up(bench: Bench) -> None:
    bench.door.always.append((digest(ANDROID.layers[0]), Manner(stall=0)))
    with pytest.raises(IncompleteError, match="stopped sending"):
        bench.pull()


def test_time_that_runs_out_is_no_finding_about_the_registry(bench: Bench) -> None:
    bench.door.always.append((digest(ANDROID.layers[0]), Manner(stall=100)))
    with pytest.raises(DeadlineError):
        bench.pull(seconds=1.5, patience=Patience())


def test_another_layer_than_promised_is_refused(bench: Bench) -> None:
    layer = ANDROID.layers[1]
    bench.door.always.append((digest(layer), Manner(body=layer[:-1] + b"x")))
    with pytest.raises(WrongDigestError, match=f"expected {digest(layer)[7:]}, observed"):
        bench.pull()
    assert images.entries(bench.cache) == []
    assert not (bench.blobs() / digest(layer)[7:]).exists()


def test_another_configuration_than_promised_is_refused(bench: Bench) -> None:
    bench.door.always.append((digest(ANDROID.config), Manner(body=b"{}")))
    with pytest.raises(WrongDigestError):
        bench.pull()


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "announced"])
def test_another_manifest_than_promised_is_refused(bench: Bench, pinned: bool) -> None:
    """By the digest that is pinned, else by the one the registry announces with it."""
    wrong = ANDROID.manifest.replace(b"\n", b"\n ")
    bench.door.always.append(("/manifests/", Manner(body=wrong)))
    with pytest.raises(WrongDigestError, match=f"expected {ANDROID.digest}, observed {digest(wrong)}"):
        bench.pull(digest=ANDROID.digest if pinned else "")
    assert not bench.door.asked("/blobs/")


def test_a_manifest_that_is_none_is_refused(bench: Bench) -> None:
    bench.door.always.append(
        ("/manifests/", Manner(status=200, body=b"<html>", headers={"Content-Length": "6"}))
    )
    with pytest.raises(BlockedError, match="not one lab can read"):
        bench.pull()


def test_no_such_tag(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match=rf"has no {REPOSITORY}:absent \(MANIFEST_UNKNOWN") as caught:
        bench.pull(f"{REPOSITORY}:absent")
    assert caught.value.exit_code == ExitCode.BLOCKED
    assert len(bench.door.requests) == 1


def test_no_such_repository(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="has no lab/absent:latest"):
        bench.pull("lab/absent")


def test_a_layer_that_is_gone(bench: Bench) -> None:
    layer = digest(ANDROID.layers[0])
    bench.door.always.append((layer, Manner(status=404)))
    with pytest.raises(PartMissingError, match=f"the manifest is there, its part {layer} is not"):
        bench.pull()


def test_a_manifest_that_the_index_lists_is_gone(bench: Bench) -> None:
    bench.real.push_index(REPOSITORY, "half", {"linux/amd64": ANDROID, "linux/arm64": NEWER})
    bench.door.always.append((f"/manifests/{ANDROID.digest}", Manner(status=404)))
    with pytest.raises(PartMissingError, match=f"the index is there, its manifest {ANDROID.digest} is not"):
        bench.pull(f"{REPOSITORY}:half")


def test_an_index_that_names_no_platforms(bench: Bench) -> None:
    """Each image's own configuration says what it is for; what is no image is passed over."""
    other = image(5, architecture="arm64")
    for made in (ANDROID, other):
        bench.real.push(REPOSITORY, made.digest, made)
    listed = json.loads(index({"linux/arm64": other, "linux/amd64": ANDROID}))
    del listed["manifests"][1]["platform"]
    listed["manifests"][2]["platform"] = None
    bench.door.answers("/manifests/bare", Manner(status=200, body=json.dumps(listed).encode()))
    must_be(bench.pull(f"{REPOSITORY}:bare"), ANDROID, f"{REPOSITORY}:bare")


def test_a_layer_longer_than_its_manifest_says(bench: Bench) -> None:
    layer = digest(ANDROID.layers[1])
    bench.door.always.append((layer, Manner(status=200, body=ANDROID.layers[1] + b"more")))
    with pytest.raises(BlockedError, match=f"and {len(ANDROID.layers[1])} are right"):
        bench.pull()


def test_a_registry_that_is_not_there(bench: Bench) -> None:
    reference = Reference.parse("127.0.0.1:1/a/b:c")
    with (
        pytest.raises(ServerUnreachableError, match="refused the connection") as caught,
        bench.steps.step("x") as step,
    ):
        pull(bench.cache, reference, step=step, deadline=Deadline.after(20), patience=QUICK)
    assert caught.value.exit_code == ExitCode.BLOCKED
    assert caught.value.hint


def test_a_registry_whose_name_nobody_knows(bench: Bench) -> None:
    reference = Reference.parse("registry.invalid/a/b:c")
    with pytest.raises(ServerUnreachableError, match="could not be resolved"), bench.steps.step("x") as step:
        pull(bench.cache, reference, step=step, deadline=Deadline.after(20), patience=QUICK)


def test_reachable_says_why_not(bench: Bench) -> None:
    assert reachable(bench.reference, bench.door.host, 5) is None
    assert "refused" in str(reachable(bench.reference, "127.0.0.1:1", 5))
    bench.door.always.append(("/v2/", Manner(status=401)))
    assert reachable(bench.reference, bench.door.host, 5) is None
    bench.door.always[0] = ("/v2/", Manner(status=404))
    assert "404" in str(reachable(bench.reference, bench.door.host, 5))
    bench.door.always[0] = ("/v2/", Manner(status=429))
    assert "429" in str(reachable(bench.reference, bench.door.host, 5))


def test_a_server_error_is_asked_again(bench: Bench) -> None:
    bench.door.answers("/manifests/", Manner(status=503), Manner(status=500))
    must_be(bench.pull(), ANDROID)


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
@pytest.mark.parametrize("form", ["seconds", "date", "Unix time"])
def test_a_rate_limit_is_waited_for_as_long_as_it_asks(bench: Bench, part: str, form: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=3)
    asked = {
        "seconds": "1",
        "date": format_datetime(until, usegmt=True),
        "Unix time": str(int(until.timestamp())),
    }[form]
    bench.door.answers(part, Manner(status=429, headers={"Retry-After": asked}))
    must_be(bench.pull(), ANDROID)
    waited = [event for event in bench.events if "answered 429" in event.text]
    assert len(waited) == 1
    assert "again in 0.0" not in waited[0].text  # the bench's own patience is 0.01 s


def test_a_rate_limit_that_stays(bench: Bench) -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS"}]}'
    bench.door.always.append(("/manifests/", Manner(status=429, body=body)))
    with pytest.raises(RateLimitedError, match="answered 429") as caught:
        bench.pull()
    assert "docker login" in caught.value.hint
    assert len(bench.door.requests) == QUICK.attempts


def test_a_rate_limit_beyond_the_deadline_is_not_waited_for(bench: Bench) -> None:
    bench.door.always.append(("/blobs/", Manner(status=429, headers={"Retry-After": "3600"})))
    with pytest.raises(RateLimitedError, match="wait 3600 s"):
        bench.pull()
    assert len(bench.door.asked("/blobs/")) == 1


def test_a_disk_too_small_is_found_before_anything_is_fetched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(bench.cache.parent)
    free = 128 * 2**20 + 2 * sum(map(len, ANDROID.layers)) + len(ANDROID.config)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=free))
    with pytest.raises(BlockedError, match=f"pulling {REPOSITORY}:{TAG} needs"):
        bench.pull()
    assert not bench.door.asked("/blobs/")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        pytest.skip("a tmpfs can be mounted by root only")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_while_packing_keeps_what_was_fetched(
    bench: Bench, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else took the space that was there when it was looked at."""
    big = image(20, 21, size=1_200_000)
    bench.real.push("lab/big", "1", big)
    bench.cache = small_disk / "cache"
    monkeypatch.setattr("lab.core.files.require_space", lambda *_: None)
    with pytest.raises(BlockedError, match=r"the disk is full where .*/cache"):
        bench.pull("lab/big:1")
    assert images.entries(bench.cache) == []
    kept = images.downloads(bench.cache) / f"big-{big.digest[7:19]}"
    assert {item.name for item in kept.iterdir()} == {digest(one)[7:] for one in (big.config, *big.layers)}
    assert [item.name for item in bench.cache.iterdir() if item.name.endswith(".part")] == []


def test_two_processes_pull_one_image_once(bench: Bench) -> None:
    processes = [pulling(bench) for _ in range(2)]
    names = {process.communicate(timeout=60)[0] for process in processes}
    assert {process.returncode for process in processes} == {0}
    assert len(names) == 1
    asked = bench.door.asked("/blobs/")
    assert len(asked) == len({request.path for request in asked}) == 4
    (entry,) = images.entries(bench.cache)
    must_be(entry, ANDROID)


def test_every_error_says_what_to_do(bench: Bench) -> None:
    """Each refusal of the registry has a hint, and is not lab's own failure."""
    for status in (401, 403, 404, 410, 429, 500):
        bench.door.always[:] = [("/manifests/", Manner(status=status))]
        with pytest.raises(LabError) as caught:
            bench.pull()
        assert caught.value.hint, status
        assert caught.value.exit_code == ExitCode.BLOCKED
