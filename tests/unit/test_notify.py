"""Notices arrive, signed and once; what cannot arrive is said without a secret in it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from email import message_from_string
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import keyring
import keyring.backend
import keyring.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core import redact
from lab.core.web import Patience
from lab.documents.nights import NoticeFinding
from lab.notify import sending
from lab.notify.github import GitHubIssues
from lab.notify.mail import Mail
from lab.notify.message import Notice
from lab.notify.secrets import secret
from lab.notify.sending import DeliveryError
from lab.notify.webhook import DELIVERY, SIGNATURE, TIMESTAMP, Slack, Webhook, sign, slack_message
from tests import schema
from tests.unit import sinks
from tests.unit.sinks import Answer, HttpSink, Request

AT = "2026-01-02T03:04:05.678+00:00"
SECRET = "correct horse battery"
QUICK = Patience(attempts=3, backoff=0.01, longest_backoff=0.2, read=2.0)
WORSE = NoticeFinding(
    marker="0123456789ab", text="nesting is refuted tonight <and> was confirmed", worse=True
)
NOTICE = Notice(
    night=7,
    uuid="0b0e7a52-7a2c-4f0c-9f2e-0f6e0a3f8f11",
    host="mac",
    started=AT,
    claim="nesting",
    verdict="refuted",
    reason="guest.kvm failed: entry failed",
    cell="qemu 7.2 on Debian",
    counts={"confirmed": 0, "refuted": 3, "blocked": 0, "inconclusive": 0, "not applicable": 0},
    findings=[WORSE, NoticeFinding(marker="ba9876543210", text="android is confirmed", worse=False)],
    notes=["one"],
    report="report.html",
    evidence="evidence/nightly/1",
)


def test_the_token_is_ours_whatever_netrc_has(
    sink: HttpSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password of-somebody-else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("lab.core.web.is_loopback", lambda _host: False)  # as if it were elsewhere
    monkeypatch.setattr(sending, "_checked", lambda url: url)
    sending.send("POST", sink.url, QUICK, headers={"Authorization": "Bearer ours"})
    assert [request.headers["Authorization"] for request in sink.requests] == ["Bearer ours"]


def test_what_is_for_this_machine_goes_through_no_proxy(
    sink: HttpSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sinks.http() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        Webhook(sink.url, SECRET, QUICK).deliver(NOTICE)
    assert (len(sink.requests), proxy.requests) == (1, [])


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with sinks.http() as opened:
        yield opened


# --- webhook ----------------------------------------------------------------------------------------


def test_the_webhook_gets_a_signed_document(sink: HttpSink) -> None:
    said = Webhook(sink.url + "/hook", SECRET, QUICK).deliver(NOTICE)
    (request,) = sink.requests
    schema.validate(request.json)
    assert request.json["findings"][0]["marker"] == WORSE.marker
    stamp, signature = request.headers[TIMESTAMP], request.headers[SIGNATURE]
    assert abs(time.time() - int(stamp)) <= 300
    assert signature == sign(SECRET, stamp, request.body)
    assert request.headers[DELIVERY] == NOTICE.uuid
    assert said == "answered 200"


def test_without_a_secret_it_says_that_it_is_not_signed(sink: HttpSink) -> None:
    assert "not signed" in Webhook(sink.url, patience=QUICK).deliver(NOTICE)
    assert SIGNATURE not in sink.requests[0].headers


def test_a_signature_is_what_the_documentation_has_a_receiver_compute() -> None:
    mac = hmac.new(b"key", b"1000.body", hashlib.sha256).hexdigest()
    assert sign("key", "1000", b"body") == f"sha256={mac}"


@given(body=st.binary(max_size=50), other=st.binary(max_size=50))
def test_a_signature_is_of_one_body_one_moment_and_one_secret(body: bytes, other: bytes) -> None:
    signature = sign(SECRET, "1000", body)
    assert (sign(SECRET, "1000", other) == signature) is (body == other)
    assert sign(SECRET + "!", "1000", body) != signature
    assert sign(SECRET, "1001", body) != signature


@pytest.mark.parametrize("fault", [Answer(500), Answer(503), Answer(429), Answer(drop=True)])
def test_what_may_go_away_is_tried_again(sink: HttpSink, fault: Answer) -> None:
    answers = [fault, fault, Answer()]
    sink.answer = lambda _: answers.pop(0)
    Webhook(sink.url, SECRET, QUICK).deliver(NOTICE)
    assert len(sink.requests) == 3
    assert len({request.body for request in sink.requests}) == 1


def test_a_server_that_stays_down_is_given_up(sink: HttpSink) -> None:
    sink.answer = lambda _: Answer(500)
    with pytest.raises(DeliveryError, match=r"127.0.0.1 answered 500 \(tried up to 3 times\)"):
        Webhook(sink.url, SECRET, QUICK).deliver(NOTICE)
    assert len(sink.requests) == 3


@pytest.mark.parametrize("code", [301, 302, 400, 401, 403, 404, 410])
def test_a_refusal_is_final(sink: HttpSink, code: int) -> None:
    sink.answer = lambda _: Answer(code, {"message": "no"}, {"Location": sink.url + "/elsewhere"})
    with pytest.raises(DeliveryError, match=f"refused it with {code}: no"):
        Webhook(sink.url, SECRET, QUICK).deliver(NOTICE)
    assert len(sink.requests) == 1


def test_the_servers_own_wait_is_kept_and_one_too_long_is_not(sink: HttpSink) -> None:
    answers = [Answer(429, headers={"Retry-After": "0.1"}), Answer()]
    sink.answer = lambda _: answers.pop(0)
    Webhook(sink.url, SECRET, QUICK).deliver(NOTICE)
    assert len(sink.requests) == 2
    sink.answer = lambda _: Answer(429, headers={"Retry-After": "3600"})
    with pytest.raises(DeliveryError, match="asks to wait 3600 s"):
        Webhook(sink.url, SECRET, QUICK).deliver(NOTICE)
    assert len(sink.requests) == 3


def test_nobody_listening_is_said_without_the_address() -> None:
    with sinks.http() as sink:
        url = sink.url + "/services/T0/B0/very-secret-path"
    with pytest.raises(DeliveryError, match="could not be reached") as caught:
        Webhook(url, SECRET, QUICK).deliver(NOTICE)
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://example.com/hook", "ftp://127.0.0.1/", "nonsense", ""])
def test_an_address_that_is_not_safe_is_refused(url: str) -> None:
    with pytest.raises(DeliveryError):
        Webhook(url, SECRET, QUICK).deliver(NOTICE)


# --- slack ------------------------------------------------------------------------------------------


def test_slack_gets_blocks_with_its_markup_escaped(sink: HttpSink) -> None:
    Slack(sink.url, QUICK).deliver(NOTICE)
    message = sink.requests[0].json
    assert message["text"] == "lab on mac: nesting refuted, 1 regression"
    text = message["blocks"][1]["text"]["text"]
    assert "&lt;and&gt;" in text
    assert "<" not in text


@given(reason=st.text(max_size=9000))
def test_slack_takes_any_text(reason: str) -> None:
    message = slack_message(Notice(1, "u", "h", AT, "nesting", "refuted", reason, "", {}, [], []))
    for block in message["blocks"]:
        assert len(block["text"]["text"]) <= 3000


# --- github -----------------------------------------------------------------------------------------


class Repository:
    """GitHub's issues as its REST API has them: labels, a list by label, open and closed."""

    def __init__(self, *, drops_labels: bool = False, label_code: int = 201) -> None:
        self.issues: list[dict[str, Any]] = []
        self.labels: set[str] = set()
        self.drops_labels, self.label_code = drops_labels, label_code

    def answer(self, request: Request) -> Answer:
        if request.headers.get("Authorization") != "Bearer token-of-github":
            return Answer(401, {"message": "Bad credentials"})
        parts = urlsplit(request.path)
        path = parts.path.removeprefix("/repos/me/lab")
        if (request.method, path) == ("GET", "/issues"):
            (wanted,) = parse_qs(parts.query)["labels"]
            found = [issue for issue in self.issues if issue["state"] == "open"]
            return Answer(200, [issue for issue in found if wanted in [x["name"] for x in issue["labels"]]])
        if (request.method, path) == ("POST", "/labels"):
            name = request.json["name"]
            if name in self.labels:
                return Answer(422, {"message": "already_exists"})
            if self.label_code == 201:
                self.labels.add(name)
            return Answer(self.label_code, {"message": "labels"})
        if (request.method, path) == ("POST", "/issues"):
            labels = [] if self.drops_labels else [{"name": name} for name in request.json["labels"]]
            issue = request.json | {"number": len(self.issues) + 1, "labels": labels, "state": "open"}
            self.issues.append(issue)
            return Answer(201, issue)
        number = int(path.removeprefix("/issues/"))
        self.issues[number - 1] |= request.json
        return Answer(200, self.issues[number - 1])


TOKEN = "token-of-github"


def github(sink: HttpSink, token: str = TOKEN) -> GitHubIssues:
    return GitHubIssues("me/lab", token, sink.url, QUICK)


def test_one_issue_a_regression_brought_up_to_date_after_that(sink: HttpSink) -> None:
    repository = Repository()
    sink.answer = repository.answer
    assert github(sink).deliver(NOTICE) == "issue 1 opened"
    later = NOTICE.__class__(**(NOTICE.__dict__ | {"started": "2026-01-03T03:04:05+00:00"}))
    assert github(sink).deliver(later) == "issue 1 brought up to date"
    (issue,) = repository.issues
    assert "Last seen 2026-01-03" in issue["body"]
    assert issue["labels"] == [{"name": f"lab-nightly-{WORSE.marker}"}]


def test_a_closed_issue_is_not_opened_again_but_followed_by_a_new_one(sink: HttpSink) -> None:
    repository = Repository()
    sink.answer = repository.answer
    github(sink).deliver(NOTICE)
    repository.issues[0]["state"] = "closed"
    assert github(sink).deliver(NOTICE) == "issue 2 opened"


def test_two_regressions_are_two_issues_and_none_is_none(sink: HttpSink) -> None:
    repository = Repository()
    sink.answer = repository.answer
    both = [WORSE, NoticeFinding(marker="aaaaaaaaaaaa", text="slower", worse=True)]
    github(sink).deliver(NOTICE.__class__(**(NOTICE.__dict__ | {"findings": both})))
    assert len(repository.issues) == 2
    calm = NOTICE.__class__(**(NOTICE.__dict__ | {"findings": []}))
    assert github(sink).deliver(calm) == "no regression: no issue"


def test_an_answer_that_got_lost_does_not_open_a_second_issue(sink: HttpSink) -> None:
    repository = Repository()
    lost = [True]

    def answer(request: Request) -> Answer:
        said = repository.answer(request)
        if request.method == "POST" and request.path.endswith("/issues") and lost:
            lost.pop()
            return Answer(drop=True)  # it was opened, and nobody heard
        return said

    sink.answer = answer
    assert github(sink).deliver(NOTICE) == "issue 1 brought up to date"
    assert len(repository.issues) == 1


def test_a_token_that_may_not_label_is_refused_before_an_issue_is_opened(sink: HttpSink) -> None:
    repository = Repository(label_code=403)
    sink.answer = repository.answer
    with pytest.raises(DeliveryError, match="403"):
        github(sink).deliver(NOTICE)
    assert repository.issues == []


def test_a_dropped_label_is_said(sink: HttpSink) -> None:
    sink.answer = Repository(drops_labels=True).answer
    with pytest.raises(DeliveryError, match="its label was dropped"):
        github(sink).deliver(NOTICE)


def test_a_bad_token_and_none(sink: HttpSink) -> None:
    sink.answer = Repository().answer
    with pytest.raises(DeliveryError, match="401: Bad credentials"):
        github(sink, "wrong-token").deliver(NOTICE)
    with pytest.raises(DeliveryError, match="no token") as caught:
        github(sink, "").deliver(NOTICE)
    assert "LAB_GITHUB_TOKEN" in caught.value.hint


# --- mail -------------------------------------------------------------------------------------------


def test_mail_arrives_as_text() -> None:
    with sinks.smtp() as sink:
        mail = Mail(f"127.0.0.1:{sink.port}", "lab@example.com", "me@example.com", patience=QUICK)
        assert mail.deliver(NOTICE) == "sent to me@example.com"
        (text,) = sink.messages
    message = message_from_string(text)
    assert message["Subject"] == "lab on mac: nesting refuted, 1 regression"
    assert "guest.kvm failed" in message.get_payload()


def test_a_mail_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not() -> None:
    with sinks.smtp() as sink:
        mail = Mail(f"127.0.0.1:{sink.port}", "lab@example.com", "me@example.com", patience=QUICK)
        sink.refuse = ["550 nobody of that name"]
        with pytest.raises(DeliveryError, match="refused it"):
            mail.deliver(NOTICE)
        assert sink.refuse == []
        assert sink.messages == []
        sink.refuse = []
        mail.deliver(NOTICE)
    with pytest.raises(DeliveryError, match="could not take it"):
        mail.deliver(NOTICE)


def test_a_password_goes_encrypted_or_no_further_than_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with sinks.smtp() as sink:
        words: dict[str, Any] = {"user": "me", "password": "the-mail-password", "patience": QUICK}
        mail = Mail(f"127.0.0.1:{sink.port}", "lab@example.com", "me@example.com", **words)
        sink.features = ["AUTH PLAIN"]
        mail.deliver(NOTICE)
        assert [line.split()[0] for line in sink.said if "AUTH" in line] == ["AUTH"]
        sink.said.clear()
        monkeypatch.setattr("lab.core.web.is_loopback", lambda _host: False)  # as if it were elsewhere
        with pytest.raises(DeliveryError, match="offers no encryption"):
            mail.deliver(NOTICE)
        assert [line.split()[0].upper() for line in sink.said] == ["EHLO"]
        assert len(sink.messages) == 1


# --- secrets ----------------------------------------------------------------------------------------


class Ring(keyring.backend.KeyringBackend):
    priority = 1

    def __init__(self, secrets: dict[str, str], locked: bool = False) -> None:
        super().__init__()
        self.secrets, self.locked = secrets, locked

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise keyring.errors.KeyringLocked("locked")
        return self.secrets.get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    before = keyring.get_keyring()
    found = Ring({"lab/webhook-secret": "kept in the ring"})
    keyring.set_keyring(found)
    monkeypatch.delenv("LAB_WEBHOOK_SECRET", raising=False)
    yield found
    keyring.set_keyring(before)


def test_the_environment_comes_before_the_keyring(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret("webhook-secret") == "kept in the ring"
    monkeypatch.setenv("LAB_WEBHOOK_SECRET", "from the environment")
    assert secret("webhook-secret") == "from the environment"
    assert redact.clean("x from the environment y") == "x [redacted] y"


def test_a_locked_keyring_has_nothing(ring: Ring) -> None:
    ring.locked = True
    assert secret("webhook-secret") == ""


def test_no_part_of_a_webhooks_address_is_ever_shown(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"
    monkeypatch.setenv("LAB_WEBHOOK_URL", "https://hooks.example.com" + path)
    secret("webhook-url")
    said = redact.clean(f"Max retries exceeded with url: {path} and XXXXXXXXXXXXXXXXXXXXXXXX")
    assert "XXXX" not in said


def test_a_notice_shows_no_secret() -> None:
    redact.register("a secret of the night")
    leaky = NOTICE.__class__(**(NOTICE.__dict__ | {"reason": "it said a secret of the night"}))
    assert "a secret of the night" not in json.dumps(leaky.document()) + leaky.title + "".join(leaky.lines)


def test_github_is_told_no_secret_and_may_answer_strangely(sink: HttpSink) -> None:
    redact.register("a-secret/of-the-night")
    worse = NoticeFinding(marker="ba9876543210", text="password=a-secret%2Fof-the-night is gone", worse=True)
    repository = Repository()
    sink.answer = repository.answer
    github(sink).deliver(NOTICE.__class__(**(NOTICE.__dict__ | {"findings": [worse]})))
    (issue,) = repository.issues
    assert "of-the-night" not in issue["title"] + issue["body"]
    for strange in ({}, [{"number": "x"}], [[]], "no", None, [{"labels": 3}]):
        sink.answer = lambda _, strange=strange: Answer(200, strange)
        with pytest.raises(DeliveryError, match="not one lab can read"):
            github(sink).deliver(NOTICE)


@pytest.mark.parametrize("cut", [170, 190, 199, 205])
def test_an_echo_of_the_token_is_not_cut_in_half_before_it_is_masked(sink: HttpSink, cut: int) -> None:
    redact.register(TOKEN)
    sink.answer = lambda _: Answer(400, {"message": "x" * cut + f" {TOKEN} "})
    with pytest.raises(DeliveryError) as caught:
        Webhook(sink.url, SECRET, QUICK).deliver(NOTICE)
    assert "toke" not in str(caught.value)
