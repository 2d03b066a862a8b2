"""An example of every document that lab prints, by subject: as rich as it gets."""

from __future__ import annotations

from typing import Any

from tests.unit.documents import climbs, emulators, fleet, host, labs, nights, theory

EXAMPLES: list[dict[str, Any]] = [
    one for part in (climbs, labs, emulators, host, theory, nights, fleet) for one in part.EXAMPLES
]
