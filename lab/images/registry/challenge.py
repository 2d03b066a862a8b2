"""What a registry asks for: the challenges of its WWW-Authenticate (RFC 9110, 11.6.1).

One header may hold several, and one challenge commas of its own; several headers are the same as one, joined.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LONGEST = 1 << 14
"""Characters that are read; real headers have a few hundred."""
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PARAMETER = re.compile(
    rf"(?P<name>{_TOKEN.pattern})[ \t]*=[ \t]*"
    rf'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s",]+))',
    re.DOTALL,
)
_TOKEN68 = re.compile(r" +[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")


@dataclass(frozen=True)
class Challenge:
    """Its scheme and the names of its parameters are in small letters: ("bearer", {"realm": …})."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def challenges(header: str) -> list[Challenge]:
    """All that the header holds, in its order. What cannot be read is passed over; never raises."""
    text, at = header[:_LONGEST], 0
    made: list[tuple[str, dict[str, str]]] = []
    while at < len(text):
        if made and (parameter := _PARAMETER.match(text, at)):
            value = parameter["plain"]
            if value is None:
                value = re.sub(r"\\(.)", r"\1", parameter["quoted"], flags=re.DOTALL)
            made[-1][1].setdefault(parameter["name"].lower(), value)
            at = parameter.end()
        elif scheme := _TOKEN.match(text, at):
            made.append((scheme.group().lower(), {}))
            at = scheme.end()
            if token68 := _TOKEN68.match(text, at):
                at = token68.end()
        else:
            at += 1
    return [Challenge(scheme, parameters) for scheme, parameters in made]
