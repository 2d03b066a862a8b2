"""Asking a server again: after which failures, how often, and how long to wait before it."""

from __future__ import annotations

from dataclasses import dataclass

from lab.core.errors import BlockedError

_AGAIN = {408, 425, 429}
"""Client errors of HTTP that may go away, beside every 5xx."""


def may_go_away(status: int) -> bool:
    """Whether asking again can help after this status of HTTP."""
    return status in _AGAIN or status >= 500


class TransientError(Exception):
    """A try failed in a way that another try may mend. The text says how, in plain words.

    `after` is how many seconds the server asked to wait; `becomes` the error when no try mends it.
    """

    def __init__(self, text: str, becomes: type[BlockedError] = BlockedError, after: float = 0.0) -> None:
        super().__init__(text)
        self.becomes = becomes
        self.after = after


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, and how often to ask again.

    `connect` is for the connection, `read` the longest silence; `attempts` how many tries in a row may fail.
    """

    connect: float = 10.0
    read: float = 30.0
    attempts: int = 6
    backoff: float = 0.5
    longest_backoff: float = 20.0

    def wait(self, failures: int, after: float, most: float) -> float | None:
        """Seconds until the next try; None to give up: too many failures in a row, or too long a wait.

        `after` is what the server asks for, and is kept to; `most` is the longest wait there is time for.
        """
        if failures >= self.attempts or after > most:
            return None
        backoff = min(self.longest_backoff, self.backoff * 2.0 ** (failures - 1))
        return min(max(backoff, after), most)
