"""A gathering draws the matrix beside its document."""

from __future__ import annotations

from lab.fleet.coordinator import Ways, draw, places
from tests.unit.bed import Bed
from tests.unit.matrices import large


def test_the_fleets_matrix_is_drawn_beside_its_document(bed: Bed) -> None:
    session = bed.session()
    page = Ways().page(session, large(2, 3))
    assert page == places(session).folder / "matrix.html"
    assert "cell 1 of VirtualBox" in page.read_text() and (page.parent / "badge.svg").is_file()


def test_a_page_that_cannot_be_written_costs_no_gathering(bed: Bed) -> None:
    session = bed.session()
    places(session).folder.parent.mkdir(parents=True, exist_ok=True)
    places(session).folder.write_text("a file in its place")
    assert draw(session, large(1, 1)) is None
