from __future__ import annotations

from collections.abc import Sequence

from billing.documents.pagination import MM_PER_POINT, Cell, LayoutRow, PdfPage, Style, keep_together, paginate

# A line of text in it is 7 mm high.
STYLE = Style(5 / MM_PER_POINT, (0, 0, 0))
HEAD = LayoutRow((Cell(("head",), 0, 50, STYLE),), keeps_next=True)


def row(name: str, *, lines: int = 1, keeps_next: bool = False, has_head: bool = True) -> LayoutRow:
    return LayoutRow((Cell((name,) * lines, 0, 50, STYLE),), keeps_next=keeps_next, has_head=has_head)


def names(pages: Sequence[PdfPage]) -> list[list[str]]:
    return [[row.cells[0].lines[0] for row in page] for page in pages]


def test_height_of_a_row_is_that_of_its_highest_cell_and_the_space_around() -> None:
    cells = (Cell(("one",), 0, 50, STYLE), Cell(("one", "two"), 50, 50, STYLE))

    assert round(LayoutRow(cells, space_above=2, space_below=1).height, 6) == 17
    assert LayoutRow((), space_above=4).height == 4


def test_pages_are_filled_and_the_head_is_repeated_over_lines() -> None:
    rows = [HEAD, *(row(str(number)) for number in range(7))]

    pages = paginate(rows, head=HEAD, first_room=22, room=29)

    assert names(pages) == [["head", "0", "1"], ["head", "2", "3", "4"], ["head", "5", "6"]]


def test_what_is_no_line_has_no_head_above_it() -> None:
    rows = [HEAD, row("line"), row("note", has_head=False)]

    assert names(paginate(rows, head=HEAD, first_room=15, room=29)) == [["head", "line"], ["note"]]


def test_heading_goes_with_its_first_line() -> None:
    rows = [row("1"), row("2"), row("heading", keeps_next=True), row("3")]

    assert names(paginate(rows, head=HEAD, first_room=22, room=29)) == [["1", "2"], ["head", "heading", "3"]]


def test_totals_take_the_last_lines_along() -> None:
    lines = [row("1"), row("2"), row("3", keeps_next=True)]
    totals = keep_together([row("subtotal", has_head=False), row("total", has_head=False)])

    pages = paginate([*lines, *totals], head=HEAD, first_room=29, room=36)

    assert names(pages) == [["1", "2"], ["head", "3", "subtotal", "total"]]


def test_rows_that_keep_each_other_and_are_higher_than_a_page_are_parted() -> None:
    rows = keep_together([row(str(number), has_head=False) for number in range(5)])

    assert names(paginate(rows, head=HEAD, first_room=22, room=22)) == [["0", "1", "2"], ["3", "4"]]


def test_document_without_rows_has_one_page() -> None:
    assert paginate([], head=HEAD, first_room=10, room=10) == ((),)


def test_row_is_never_parted() -> None:
    rows = [row("1"), row("tall", lines=3), row("2")]

    assert names(paginate(rows, head=HEAD, first_room=22, room=36)) == [["1"], ["head", "tall", "2"]]
