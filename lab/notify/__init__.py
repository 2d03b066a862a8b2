"""Telling somebody what a night found: by webhook, by GitHub issue, by mail."""

from lab.notify.github import GitHubIssues
from lab.notify.mail import Mail
from lab.notify.message import Notice
from lab.notify.secrets import secret
from lab.notify.sending import Channel, DeliveryError
from lab.notify.webhook import Slack, Webhook

__all__ = [
    "Channel",
    "DeliveryError",
    "GitHubIssues",
    "Mail",
    "Notice",
    "Slack",
    "Webhook",
    "secret",
]
