"""Two nights on the embedded engine: one that is green, and one whose VM is given no nesting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.notify import webhook
from tests.e2e.conftest import Lab
from tests.unit import sinks

pytestmark = pytest.mark.timeout(1800)

_SECRET = "of-the-receiver-alone"


@pytest.fixture(scope="module")
def receiver() -> Iterator[sinks.HttpSink]:
    with sinks.http() as sink:
        yield sink


@pytest.fixture(scope="module")
def night(lab: Lab, receiver: sinks.HttpSink) -> Iterator[Lab]:
    env = {
        "LAB_NIGHTLY__RUNS": "2",
        # The comparison boots L2 without KVM, which takes minutes here: test_chain does it once.
        "LAB_NIGHTLY__COMPARE": "false",
        "LAB_NIGHTLY__WEBHOOK": "json",
        "LAB_WEBHOOK_URL": receiver.url,
        "LAB_WEBHOOK_SECRET": _SECRET,
    }
    yield replace(lab, env=lab.env | env)


def test_a_night_is_confirmed_told_and_leaves_no_lab(night: Lab, receiver: sinks.HttpSink) -> None:
    found = night.json("nightly.run")["night"]
    assert (found["verdict"], found["claim"], len(found["runs"])) == ("confirmed", "nesting", 2)
    assert [run["verdict"] for run in found["runs"]] == ["confirmed", "confirmed"]
    assert "nightly" not in [row["name"] for row in night.json("lab.list")["labs"]]
    page = Path(found["report"])
    assert page.suffix == ".html" and "confirmed" in page.read_text()
    (told,) = receiver.requests
    assert told.json["verdict"] == "confirmed"
    stamp, signature = told.headers[webhook.TIMESTAMP], told.headers[webhook.SIGNATURE]
    assert signature == webhook.sign(_SECRET, stamp, told.body)
    for path in (path for path in Path(found["evidence"]).rglob("*") if path.is_file()):
        assert _SECRET.encode() not in path.read_bytes(), path


def test_a_night_without_nesting_or_a_receiver_is_recorded_and_never_green(night: Lab) -> None:
    down = night.env | {"LAB_WEBHOOK_URL": "http://127.0.0.1:9/", "LAB_VM__NESTED": "false"}
    answer = replace(night, env=down).run("nightly.run", "--json")
    found = answer.document["night"]
    assert answer.status in (10, 11, 12) and found["verdict"] != "confirmed", found
    assert "guest.cpu" in found["reason"] or "no nested virtualization" in found["reason"], found["reason"]
    assert not any(one["delivered"] for one in found["deliveries"])
    nights = night.json("nightly.history")["nights"]
    assert [one["verdict"] for one in nights] == [found["verdict"], "confirmed"]
    assert Path(nights[0]["evidence"]).is_dir()
