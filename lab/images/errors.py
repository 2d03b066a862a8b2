"""Why an image could not be had. The world is at fault each time, so each is a BlockedError."""

from __future__ import annotations

from lab.core.errors import BlockedError


class ServerUnreachableError(BlockedError):
    """The server was not reached: no such name, no route, refused, a certificate that does not fit."""


class IncompleteError(BlockedError):
    """The file never came whole: cut off or silent as often as it was tried."""


class RateLimitedError(BlockedError):
    """The server answers 429: too many requests from here."""


class RefusedError(BlockedError):
    """A final refusal: its HTTP status, and the first bytes of what the server said."""

    def __init__(self, what: str, *, status: int, body: bytes = b"", hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.status = status
        self.body = body


class WrongDigestError(BlockedError):
    """What came is not what was asked for."""


class NotFoundError(BlockedError):
    """The registry has no such repository, tag or digest."""


class PartMissingError(BlockedError):
    """The registry has an index or a manifest, and not something it lists."""


class DeniedError(BlockedError):
    """The registry wants a login, or does not take the one it was given."""


class PlatformError(BlockedError):
    """The image is not one for linux/amd64."""
