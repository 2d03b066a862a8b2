"""Which of the theory's two settings decides, on VirtualBox with VT-x: a fresh VM for each cell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.rehearsing import rehearsed

pytestmark = pytest.mark.timeout(5500)


@pytest.fixture(scope="module")
def document(lines: list[str]) -> Iterator[dict[str, Any]]:
    with rehearsed("e2e-rehearsal", lines, "--experiment", status=0) as answer:
        yield answer


def test_nesting_decides_and_paravirtualization_does_nothing_for_kvm(document: dict[str, Any]) -> None:
    worked = {
        (trial["asked"]["paravirt"], trial["asked"]["nested"]): trial["worked"]
        for trial in document["experiment"]["trials"]
    }
    assert len(worked) == 6
    assert all(works is nested for (_, nested), works in worked.items()), worked
