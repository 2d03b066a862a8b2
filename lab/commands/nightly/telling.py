"""Telling somebody of a night, over every channel that is set up. A failure is recorded, never more."""

from __future__ import annotations

import hashlib
import json
import socket
from datetime import UTC, datetime

from lab import redact
from lab.commands.nightly.showing import cell_phrase
from lab.commands.session import Session
from lab.errors import LabError
from lab.history import VERDICT, Delivery, Finding, History, Night, counted
from lab.ladder.model import Verdict
from lab.notify import Channel, GitHubIssues, Mail, Notice, Said, Slack, Webhook, secret


def channels(session: Session) -> list[Channel]:
    """What is set up, each with its secret from the environment or the keyring."""
    settings = session.settings.nightly
    found: list[Channel] = []
    if settings.webhook == "json":
        found.append(Webhook(secret("webhook-url"), secret("webhook-secret")))
    elif settings.webhook == "slack":
        found.append(Slack(secret("webhook-url")))
    if settings.github:
        found.append(GitHubIssues(settings.github, secret("github-token"), settings.github_api))
    if settings.mail_to:
        password = secret("smtp-password") if settings.mail_user else ""
        found.append(
            Mail(
                settings.mail_server,
                settings.mail_from or settings.mail_to,
                settings.mail_to,
                user=settings.mail_user,
                password=password,
            )
        )
    return found


def tell(session: Session, night: Night, history: History) -> list[Delivery]:
    """Tell of a night, as the settings want it told; what came of each channel."""
    if not _worth_telling(session, night, history):
        return []
    notice = notice_of(night)
    return [_deliver(session, channel, notice) for channel in channels(session)]


def unrecorded(session: Session, error: Exception) -> None:
    """Tell of a night that could not be written down. What cannot be told either is on the terminal."""
    what = error.what if isinstance(error, LabError) else str(error)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    notice = Notice(
        night=0,
        uuid=hashlib.sha256(now.encode()).hexdigest()[:32],
        host=socket.gethostname(),
        started=now,
        claim="",
        verdict=Verdict.INCONCLUSIVE.value,
        reason=f"the night could not be recorded: {what}",
        cell="",
        counts=counted({}),
    )
    for channel in channels(session) if session.settings.nightly.notify != "never" else []:
        _deliver(session, channel, notice)


def notice_of(night: Night) -> Notice:
    counts = next((found.counts for found in night.claims if found.claim == night.claim), {})
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
        findings=[Said(_marker(found, night), found.text, found.worse) for found in night.findings],
        notes=night.notes,
        report=night.report,
        evidence=night.evidence,
    )


def _marker(finding: Finding, night: Night) -> str:
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
    last = next((one for one in history.nights(2) if one.id != night.id), None)
    return bool(night.findings or night.notes) or last is None or last.verdict != night.verdict


def _deliver(session: Session, channel: Channel, notice: Notice) -> Delivery:
    try:
        with session.steps.step("night.tell", channel.name) as step:
            step.result = channel.deliver(notice)
            return Delivery(channel.name, True, step.result)
    except LabError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return Delivery(channel.name, False, redact.clean(f"{error.what}{hint}"))
    except Exception as error:  # a channel's fault must not cost the night
        return Delivery(channel.name, False, redact.clean(f"unexpected {error!r}"))
