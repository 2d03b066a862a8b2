"""The one door to the web: no answer is longer, slower or harder to stop than its asker allows."""

from lab.core.web.bounds import bounded, watched
from lab.core.web.patience import Patience, TransientError, may_go_away
from lab.core.web.session import Answer, HttpSession, read_some, read_whole
from lab.core.web.words import is_loopback, length, parse_json, retry_after, shown, spare_loopback

HEAD_BYTES = 1 << 20
"""What headers and redirects may take, beside the body."""

__all__ = [
    "HEAD_BYTES",
    "Answer",
    "Patience",
    "HttpSession",
    "TransientError",
    "bounded",
    "is_loopback",
    "length",
    "may_go_away",
    "parse_json",
    "read_some",
    "read_whole",
    "retry_after",
    "shown",
    "spare_loopback",
    "watched",
]
