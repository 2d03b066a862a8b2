"""Telling somebody of a night, over every channel that is set up. A failure is recorded, never more.

A night is told once: what is on record as delivered is not sent again. A command that is killed between
the two sends it again, under the same id (X-Lab-Delivery, Message-ID, the issue's label).
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Sequence
from datetime import UTC, datetime

from lab.core import redact
from lab.core.errors import BlockedError, InterruptedByUser, LabError
from lab.documents.nights import NoticeFinding
from lab.history.model import Delivery, Night, NightFinding, counted
from lab.history.regressions import VERDICT
from lab.history.store import History
from lab.model.domain import Verdict
from lab.nights import changed
from lab.nights.showing import cell_phrase
from lab.notify.github import GitHubIssues
from lab.notify.mail import Mail
from lab.notify.message import Notice
from lab.notify.secrets import secret
from lab.notify.sending import Channel
from lab.notify.webhook import Slack, Webhook
from lab.workflow.session import Session

TRIES = 3
"""How many nights try to tell of one over a channel that does not take it."""


def channels(session: Session) -> list[Channel]:
    """What is set up, each with its secret from the environment or the keyring."""
    settings = session.settings.nightly
    channels: list[Channel] = []
    if settings.webhook == "json":
        channels.append(Webhook(secret("webhook-url"), secret("webhook-secret")))
    elif settings.webhook == "slack":
        channels.append(Slack(secret("webhook-url")))
    if settings.github:
        channels.append(GitHubIssues(settings.github, secret("github-token"), settings.github_api))
    if settings.mail_to:
        password = secret("smtp-password") if settings.mail_user else ""
        channels.append(
            Mail(
                settings.mail_server,
                settings.mail_from or settings.mail_to,
                settings.mail_to,
                user=settings.mail_user,
                password=password,
            )
        )
    return channels


def tell(session: Session, night: Night, history: History, channels: Sequence[Channel]) -> bool:
    """Tell of a night, as the settings want it told, over each channel that did not take it yet.

    What came of each is on record before the next is begun. False while a channel is to be tried again.
    Raises InterruptedByUser, HistoryError.
    """
    if not _worth_telling(session, night, history):
        return True
    notice, done = notice_of(night), True
    for channel in channels:
        before = [delivery.delivered for delivery in night.deliveries if delivery.channel == channel.name]
        if any(before) or len(before) >= TRIES:
            continue
        delivery = deliver(session, channel, notice)
        history.add_delivery(night.id, delivery)
        done = done and (delivery.delivered or len(before) + 1 >= TRIES)
    return done


def unrecorded(
    session: Session, error: Exception, channels: Sequence[Channel], night: Night | None = None
) -> None:
    """Tell of a night that could not be written down. What cannot be told either is on the terminal.

    `night` is what the history has of it, or None. It is told again once its end is on record, under the same
    id.
    """
    if session.settings.nightly.notify == "never":
        return
    what = error.what if isinstance(error, LabError) else str(error)
    verdict = Verdict.BLOCKED if isinstance(error, BlockedError) else Verdict.INCONCLUSIVE
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    notice = Notice(
        night=night.id if night else 0,
        uuid=night.uuid if night else hashlib.sha256(now.encode()).hexdigest()[:32],
        host=socket.gethostname(),
        started=night.started if night else now,
        claim="",
        verdict=verdict.value,
        reason=f"the night could not be recorded: {what}",
        cell="",
        counts=counted({}),
    )
    for channel in channels:
        deliver(session, channel, notice)


def notice_of(night: Night) -> Notice:
    """What a channel is told of this night."""
    counts = next((claimed.counts for claimed in night.claims if claimed.claim == night.claim), {})
    return Notice(
        night=night.id,
        uuid=night.uuid,
        host=socket.gethostname(),
        started=night.started,
        claim=night.claim,
        verdict=night.verdict,
        reason=night.reason,
        cell=cell_phrase(night),
        counts=counted(counts),
        findings=[
            NoticeFinding(marker=_marker(item, night), text=item.text, worse=item.worse, known=item.known)
            for item in night.findings
        ],
        notes=night.notes,
        report=night.report,
        evidence=night.evidence,
        changed=changed.kept_headline(night),
    )


def _marker(finding: NightFinding, night: Night) -> str:
    """The same for the same finding every night; twelve hex digits.

    A verdict's key says where it was given, and outlives an update; a figure is of one cell.
    """
    cell = {} if finding.key.startswith(VERDICT) else dict(night.cell or {})
    named = json.dumps([finding.key, cell], sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()[:12]


def _worth_telling(session: Session, night: Night, history: History) -> bool:
    wanted = session.settings.nightly.notify
    if wanted != "changes":
        return wanted == "always"
    last = history.last_before(night)
    news = [finding for finding in night.findings if not finding.known]
    return bool(news or night.notes) or last is None or last.verdict != night.verdict


def deliver(session: Session, channel: Channel, notice: Notice) -> Delivery:
    """Tell it over one channel; whether it arrived, and what came of it. Raises InterruptedByUser."""
    try:
        with session.steps.step("night.tell", channel.name) as step:
            step.result = channel.deliver(notice)
            return Delivery(channel.name, True, step.result)
    except InterruptedByUser:
        raise  # nobody refused it: it is still to be told
    except LabError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Delivery(channel.name, False, redact.clean(f"{error.what}{hint}"))
    except Exception as error:  # a channel's fault must not cost the night
        return Delivery(channel.name, False, redact.clean(f"unexpected {error!r}"))
