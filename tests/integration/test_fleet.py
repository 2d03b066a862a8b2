"""A fleet as processes: Buildbot's master, three workers with tags of their own, short nights.

The nights are lab's own on fakes (fleetjob.py); queue, workers, jobs, archives and gatherings are the real
ones. One master and three workers for all tests: each has a date of its own.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.fleet import joining, processes, pulse
from lab.fleet.joining import Joining
from lab.fleet.places import Membership
from lab.fleet.queue import Queue
from lab.tasks.fleet import nights
from lab.tasks.fleet import up as desk
from tests.integration.fleets import Fleet, session_at

DOCUMENT = {
    "host": [
        {"name": "alpha", "tags": ["a", "shared"]},
        {"name": "beta", "tags": ["b", "shared"]},
        {"name": "gamma", "tags": ["c"]},
    ],
    "cell": [
        {"name": "one", "tags": ["a"]},
        {"name": "refuted", "tags": ["b"]},
        {"name": "three", "tags": ["c"]},
        {"name": "either", "tags": ["shared"]},
        {"name": "nowhere", "tags": ["a", "b"]},
        {"name": "placed", "tags": ["b"], "expects": {"host": "alpha"}},
    ],
}
ALL = [str(cell["name"]) for cell in DOCUMENT["cell"]]
LONG = 4.0
"""Seconds of a night that something happens to."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    cache = Path(os.environ.get("FLEET_TEST_CACHE", Path.home() / ".cache" / "lab-tests"))
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:  # a short path: a Unix socket is in it
        made = Fleet(Path(folder), cache, DOCUMENT)
        try:
            made.up()
            made.join("alpha", "beta", "gamma")
            made.until(lambda: connected(made) == {"alpha", "beta", "gamma"}, "the hosts to be there")
            yield made
        finally:
            made.end()


@pytest.fixture(autouse=True)
def quick(fleet: Fleet) -> None:
    for host in fleet.hosts.values():
        host.night_takes(0)


def connected(fleet: Fleet) -> set[str]:
    known = pulse.read(fleet.places.pulse, 3.0)
    return {name for name in fleet.hosts if known.state(name, time.time()) == "connected"}


def begun(fleet: Fleet, host: str, key: str) -> bool:
    return f"began {key}" in fleet.hosts[host].jobs()


def test_every_cell_of_a_night_has_its_true_word(fleet: Fleet) -> None:
    fleet.run("2026-12-01")
    entries = {entry.cell: entry for entry in fleet.settled("2026-12-01", ALL)}
    verdicts = {name: (str(entry.verdict), entry.host) for name, entry in entries.items()}
    assert verdicts["one"] == ("confirmed", "alpha")
    assert verdicts["refuted"] == ("refuted", "beta")
    assert verdicts["three"] == ("confirmed", "gamma")
    assert verdicts["either"][0] == "confirmed"
    assert verdicts["either"][1] in ("alpha", "beta")
    assert verdicts["nowhere"] == ("blocked", "")
    assert verdicts["placed"] == ("inconclusive", "beta")
    assert "expected host alpha, observed beta" in entries["placed"].word
    document = nights.matrix(fleet.session, 0, fleet.ways).document
    assert {entry["cell"] for entry in document["nights"][0]["entries"]} == set(ALL)


def test_a_job_that_is_asked_for_twice_is_one_night(fleet: Fleet) -> None:
    for _ in range(2):
        fleet.run("2026-12-02", "one")
    fleet.settled("2026-12-02", ["one"])
    fleet.run("2026-12-02", "one")
    assert fleet.hosts["alpha"].jobs().count("called 2026-12-02/one") == 1


def test_a_worker_that_is_killed_costs_no_night(fleet: Fleet) -> None:
    gamma, key = fleet.hosts["gamma"], "2026-12-03/three"
    gamma.night_takes(LONG)
    fleet.run("2026-12-03", "three")
    fleet.until(lambda: begun(fleet, "gamma", key), "the night to begin")
    gamma.process().kill()
    fleet.until(lambda: "gamma" not in connected(fleet), "the loss to be noticed")
    gamma.start()
    (entry,) = fleet.settled("2026-12-03", ["three"])
    assert (str(entry.verdict), entry.host) == ("confirmed", "gamma")
    assert gamma.jobs().count(f"called {key}") == 2
    assert gamma.jobs().count(f"began {key}") == 1, "the night went on, and was waited for"


def test_a_master_that_is_killed_costs_no_night(fleet: Fleet) -> None:
    key = "2026-12-04/one"
    fleet.hosts["alpha"].night_takes(LONG)
    fleet.run("2026-12-04", "one", "three")
    fleet.until(lambda: begun(fleet, "alpha", key), "the night to begin")
    process = fleet.process()
    process.kill()
    process.wait(10)
    assert "does not answer" in " ".join(fleet.gather().notes)
    fleet.up()
    one, three = fleet.settled("2026-12-04", ["one", "three"])
    assert (str(one.verdict), str(three.verdict)) == ("confirmed", "confirmed")
    assert fleet.hosts["alpha"].jobs().count(f"began {key}") == 1


def test_master_and_worker_that_are_killed_at_once_cost_no_night(fleet: Fleet) -> None:
    beta, key = fleet.hosts["beta"], "2026-12-05/refuted"
    beta.night_takes(LONG)
    fleet.run("2026-12-05", "refuted")
    fleet.until(lambda: begun(fleet, "beta", key), "the night to begin")
    for process in (fleet.process(), beta.process()):
        process.kill()
        process.wait(10)
    fleet.up()
    beta.start()
    (entry,) = fleet.settled("2026-12-05", ["refuted"])
    assert (str(entry.verdict), entry.host) == ("refuted", "beta")
    assert beta.jobs().count(f"began {key}") == 1


def test_of_two_hosts_that_fit_the_one_that_is_there_runs_it(fleet: Fleet) -> None:
    alpha = fleet.hosts["alpha"]
    fleet.until(lambda: "alpha" in connected(fleet), "alpha to be there")
    alpha.end()
    fleet.until(lambda: "alpha" not in connected(fleet), "the loss to be noticed")
    fleet.run("2026-12-06", "either")
    (entry,) = fleet.settled("2026-12-06", ["either"])
    assert (str(entry.verdict), entry.host) == ("confirmed", "beta")
    alpha.start()
    fleet.until(lambda: "alpha" in connected(fleet), "alpha to be back")


def test_a_frozen_host_is_silent_at_the_hour_and_its_late_success_changes_no_word(fleet: Fleet) -> None:
    """And a host that was away at the hour hands in nothing new when it is back: it runs no night by day."""
    gamma, beta, date = fleet.hosts["gamma"], fleet.hosts["beta"], "2026-12-07"
    gamma.night_takes(1.0)
    beta.end()
    fleet.until(lambda: "beta" not in connected(fleet), "beta to be away")
    fleet.run(date, "three", "refuted", "one")
    fleet.until(lambda: begun(fleet, "gamma", f"{date}/three"), "the night to begin")
    gamma.process().suspend()
    fleet.settled(date, ["one"])
    time.sleep(4.0)
    assert fleet.entry(date, "three").state == "open", "nobody has noticed"
    hosts = desk.status(fleet.session, fleet.ways).document["hosts"]
    state = {host["name"]: host["state"] for host in hosts}
    assert state == {"alpha": "connected", "beta": "silent", "gamma": "silent"}
    known = pulse.read(fleet.places.pulse)
    fleet.hour_comes(date)
    (closed,) = fleet.gather().closed
    entries = {each.cell.name: each.entry for each in closed.cells}
    words = {name: (entry.state, str(entry.verdict), entry.word) for name, entry in entries.items()}
    assert words["one"][:2] == ("settled", "confirmed")
    assert words["three"] == ("closed", "inconclusive", f"host silent since {known.since('gamma')} (gamma)")
    assert words["refuted"][:2] == ("closed", "inconclusive")
    assert f"no host took it: host silent since {known.since('beta')} (beta)" in words["refuted"][2]
    before = fleet.entry(date, "three")
    gamma.process().resume()
    fleet.until(lambda: fleet.entry(date, "three").late, "the late night")
    after = fleet.entry(date, "three")
    assert after.model_copy(update={"late": ()}) == before
    assert [(late.host, str(late.verdict)) for late in after.late] == [("gamma", "confirmed")]
    beta.start()
    fleet.until(lambda: "beta" in connected(fleet), "beta to be back")
    request = closed.cell("refuted").request  # type: ignore[union-attr]
    fleet.until(lambda: Queue(fleet.places.socket).job(request or 0).done, "the job of yesterday to end")
    assert f"called {date}/refuted" not in beta.jobs()
    assert fleet.entry(date, "refuted").state == "closed"


# --- closed by default ------------------------------------------------------------------------------


def test_nothing_listens_but_on_the_loopback_and_a_private_socket(fleet: Fleet) -> None:
    listening = [each.laddr for each in fleet.process().net_connections() if each.status == "LISTEN"]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", fleet.plan.port)]
    assert stat.S_IMODE(fleet.places.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(fleet.places.master.stat().st_mode) == 0o700


def test_a_wrong_password_is_no_host(fleet: Fleet, tmp_path: Path) -> None:
    session = session_at(tmp_path / "state", fleet.cache)
    place = Membership(tmp_path / "state")
    joining.write(session, Joining("alpha", port=fleet.plan.port, password="guessed"))
    processes.start(
        [fleet.hosts["alpha"].programs / "twistd", "--nodaemon", "--pidfile=", "--python", place.tac],
        place.note("worker"),
        place.log,
        folder=place.folder,
        environment=os.environ,
    )
    try:
        refusal = "invalid login from user 'alpha'"
        fleet.until(lambda: refusal in fleet.places.log.read_text(), "the refusal")
    finally:
        processes.end(place.note("worker"), 3.0)
    assert "alpha" in connected(fleet)


def test_no_password_is_in_a_log_or_on_a_command_line(fleet: Fleet) -> None:
    secrets = [path.read_text().strip() for path in fleet.places.passwords.iterdir()]
    logs = [fleet.places.log, *(host.place.log for host in fleet.hosts.values())]
    logs += [path for path in fleet.places.master.iterdir() if path.suffix in (".log", ".json")]
    texts = [path.read_text(errors="replace") for path in logs]
    texts += [" ".join(host.process().cmdline()) for host in fleet.hosts.values()]
    assert len(secrets) == 3
    assert not [secret for secret in secrets for text in texts if secret in text]


def test_a_job_is_one_of_two_tasks(fleet: Fleet) -> None:
    job = fleet.hosts["alpha"].place.job
    done = subprocess.run([job, "lab.destroy"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "the fleet has no job lab.destroy\n")


def test_a_job_that_ends_without_a_night_says_why(fleet: Fleet) -> None:
    alpha = fleet.hosts["alpha"]
    invoke = alpha.folder / "invoke"
    whole = invoke.read_text()
    invoke.write_text("#!/bin/sh\necho there is no such night >&2\nexit 1\n")
    try:
        fleet.run("2026-12-09", "one")
        fleet.until(lambda: fleet.gather() and fleet.entry("2026-12-09", "one").state == "settled", "a word")
    finally:
        invoke.write_text(whole)
    entry = fleet.entry("2026-12-09", "one")
    assert (str(entry.verdict), entry.host) == ("inconclusive", "alpha")
    assert entry.word.startswith("its job ended on alpha without a night: night: ")
    assert entry.word.endswith("there is no such night")


def test_a_plan_that_changes_is_read_without_a_restart(fleet: Fleet) -> None:
    pid, plan = fleet.process().pid, fleet.plan
    assert fleet.up() == "it runs already, with this plan"
    new = {"name": "new", "tags": ["c"]}
    fleet.plan = type(plan).model_validate({**plan.model_dump(), "cell": [*DOCUMENT["cell"], new]})
    assert fleet.up() == "it has read the new plan"
    assert fleet.process().pid == pid
    fleet.run("2026-12-08", "new")
    (entry,) = fleet.settled("2026-12-08", ["new"])
    assert (str(entry.verdict), entry.host) == ("confirmed", "gamma")
