"""Telling somebody of a night."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import null

from lab.core import deadline
from lab.core.web import Patience
from lab.history.database import HistoryError
from lab.history.model import Night
from lab.history.store import History
from lab.nights import telling
from lab.notify.webhook import Webhook
from lab.tasks.nightly.run import ROADS
from tests.unit import sinks
from tests.unit.bed import Bed
from tests.unit.nights import (
    session,
    spend,
)

AT = "2026-01-02T03:04:05.678+00:00"


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bed]:
    for name in ("LAB_WEBHOOK_URL", "LAB_WEBHOOK_SECRET"):
        monkeypatch.delenv(name, raising=False)
    yield Bed(tmp_path, monkeypatch)
    deadline.cancelled.clear()


def test_a_webhook_that_is_down_costs_neither_night_nor_verdict(bed: Bed) -> None:
    with sinks.http() as sink:
        url = sink.url + "/a-secret-path-of-a-webhook"
    bed.patch.setenv("LAB_WEBHOOK_URL", url)
    patience = Patience(attempts=2, backoff=0.01, read=1.0)
    impatient = replace(ROADS, channels=lambda _session: [Webhook(url, patience=patience)])
    result, code = spend(bed, impatient)
    assert (result["verdict"], code) == ("confirmed", 0)
    (delivery,) = result["deliveries"]
    assert (delivery["channel"], delivery["delivered"]) == ("webhook", False)
    assert "could not be reached" in delivery["said"]
    everything = "".join(
        file.read_text(errors="replace") for file in (bed.folder / "state").rglob("*") if file.is_file()
    )
    assert "a-secret-path" not in everything


class BrokenKeyring(KeyringBackend):
    priority = 1  # type: ignore[assignment]

    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError("the bus is gone")  # backends have errors of their own

    set_password = delete_password = get_password  # type: ignore[assignment]


@pytest.fixture
def use_keyring() -> Iterator[Callable[[KeyringBackend], None]]:
    before = keyring.get_keyring()
    yield keyring.set_keyring
    keyring.set_keyring(before)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_keyring_that_breaks_costs_neither_night_nor_its_reason(
    bed: Bed, use_keyring: Callable[[KeyringBackend], None], recorded: bool
) -> None:
    use_keyring(BrokenKeyring())
    if recorded:
        result, code = spend(bed, webhook="json")
        assert (result["verdict"], code) == ("confirmed", 0)
        assert "there is no address" in result["deliveries"][0]["said"]
    else:
        (bed.folder / "state").mkdir()
        bed.session().history_file.mkdir()
        with pytest.raises(HistoryError, match="a file is needed there"):
            spend(bed, webhook="json")


def test_an_address_that_is_missing_is_said(bed: Bed, use_keyring: Callable[[KeyringBackend], None]) -> None:
    use_keyring(null.Keyring())
    result, _ = spend(bed, webhook="json")
    assert "LAB_WEBHOOK_URL" in result["deliveries"][0]["said"]


@pytest.mark.parametrize(("notify", "expected"), [("always", 3), ("changes", 2), ("never", 0)])
def test_when_somebody_is_told(bed: Bed, notify: str, expected: int) -> None:
    with sinks.http() as sink:
        bed.patch.setenv("LAB_WEBHOOK_URL", sink.url)
        for kvm_ok in (True, True, False):
            bed.world.kvm_ok = kvm_ok
            spend(bed, webhook="json", notify=notify)
        assert len(sink.requests) == expected
        if expected:
            assert sink.requests[-1].json["findings"][0]["worse"]


def test_the_same_regression_has_the_same_marker_every_night(bed: Bed) -> None:
    spend(bed)
    bed.world.kvm_ok = False
    markers = []
    for version in ("8.0", "8.1"):
        bed.world.facts = replace(bed.world.facts, version=version)
        spend(bed)
        with History(bed.session().history_file) as record:
            (result,) = telling.notice_of(record.nights(1)[0]).findings
        markers.append(result.marker)
    assert markers[0] == markers[1]


def test_every_channel_is_made_from_its_settings_and_secrets(bed: Bed) -> None:
    for name in ("LAB_WEBHOOK_URL", "LAB_GITHUB_TOKEN", "LAB_SMTP_PASSWORD"):
        bed.patch.setenv(name, f"the secret {name}")
    mail = {"mail_to": "me@example.com", "mail_server": "127.0.0.1:2525", "mail_user": "me"}
    made = telling.channels(session(bed, webhook="slack", github="me/lab", **mail))
    assert [channel.name for channel in made] == ["slack", "github", "mail"]
    assert telling.channels(session(bed)) == []


def _night_of(**more: Any) -> Night:
    return Night(**({"id": 1, "uuid": "u", "state": "ended", "started": AT, "planned": 1, "evidence": "e",
                     "lab_version": "0"} | more))  # fmt: skip


def test_a_night_without_a_cell_is_still_told(bed: Bed) -> None:
    notice = telling.notice_of(_night_of(verdict="blocked", reason="no disk"))
    assert notice.title.endswith("the night blocked")
    assert any("no disk" in line for line in notice.lines)
