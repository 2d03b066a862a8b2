"""GitHub issues: one for each regression, found again by its label and kept up to date."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from lab.core import redact, web
from lab.documents.nights import NoticeFinding
from lab.notify.message import Notice, as_line
from lab.notify.secrets import where
from lab.notify.sending import PATIENCE, DeliveryError, persist, send

API = "https://api.github.com"
LABEL = "lab-nightly-"
"""A regression's label is this and its marker."""
_COLOUR = "b60205"
_VERSION = "2022-11-28"


class _Label(BaseModel):
    name: str


class _Issue(BaseModel):
    """What lab reads of an issue; GitHub lists pull requests among them."""

    number: int
    labels: tuple[_Label, ...] = ()
    pull_request: object = None


_ISSUE, _ISSUES = TypeAdapter(_Issue), TypeAdapter(tuple[_Issue, ...])
T = TypeVar("T")


class GitHubIssues:
    """Opens an issue for each regression of a night, or brings the open one up to date.

    Every step can be repeated: an issue is looked for before it is opened, on every try. The token
    needs to write issues, and push access: GitHub silently drops labels otherwise, and an issue
    without its label would be opened again every night.
    """

    name = "github"

    def __init__(
        self, repository: str, token: str, api: str = API, patience: web.Patience = PATIENCE
    ) -> None:
        self._base = f"{api.rstrip('/')}/repos/{repository}"
        self._token = token
        self._patience = patience

    def deliver(self, notice: Notice) -> str:
        if not self._token:
            raise DeliveryError("there is no token for GitHub", hint=where("github-token"))
        worse = [finding for finding in notice.findings if finding.worse]
        done = [persist(partial(self._tell, item, notice), self._patience) for item in worse]
        return "; ".join(done) or "no regression: no issue"

    def _tell(self, finding: NoticeFinding, notice: Notice) -> str:
        label = LABEL + finding.marker
        content = {"title": _title(finding, notice), "body": _body(finding, notice)}
        number = self._open_issue(label)
        if number is not None:
            self._ask("PATCH", f"/issues/{number}", content)
            return f"issue {number} brought up to date"
        described = {"name": label, "color": _COLOUR, "description": "a regression lab keeps track of"}
        self._ask("POST", "/labels", described, fine=(422,))  # 422: it is there
        made = _read(_ISSUE, self._ask("POST", "/issues", content | {"labels": [label]}))
        if label not in [given.name for given in made.labels]:
            raise DeliveryError(
                f"issue {made.number} was opened, but its label was dropped: it cannot be found again",
                hint="give the token push access, and set the label by hand",
            )
        return f"issue {made.number} opened"

    def _open_issue(self, label: str) -> int | None:
        answer = self._ask("GET", f"/issues?state=open&per_page=10&labels={quote(label)}")
        issues = [issue.number for issue in _read(_ISSUES, answer) if issue.pull_request is None]
        return min(issues, default=None)

    def _ask(
        self, method: str, path: str, content: Mapping[str, Any] | None = None, fine: tuple[int, ...] = ()
    ) -> web.Answer:
        return send(
            method,
            self._base + path,
            self._patience,
            body=json.dumps(content).encode() if content else b"",
            headers={
                "Authorization": f"Bearer {self._token}",
                "Accept": "application/vnd.github+json",
                "Content-Type": "application/json",
                "X-GitHub-Api-Version": _VERSION,
            },
            fine=fine,
        )


def _read(wanted: TypeAdapter[T], answer: web.Answer) -> T:
    try:
        return wanted.validate_json(answer.body)
    except ValidationError:
        raise DeliveryError("GitHub's answer is not one lab can read") from None


def _title(finding: NoticeFinding, notice: Notice) -> str:
    return redact.clean(f"lab on {notice.host}: {as_line(finding.text)}")[:200]


def _body(finding: NoticeFinding, notice: Notice) -> str:
    """The finding, then the night as a list; code fences keep what was observed from being markup."""
    fence = "~~~~"
    lines = "\n".join(line.replace(fence, "~ ~") for line in notice.lines)
    text = redact.clean(as_line(finding.text)).replace(fence, "~ ~")
    return f"{fence}\n{text}\n\n{lines}\n{fence}\n\nLast seen {notice.started}.\n"
