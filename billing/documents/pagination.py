"""Divides rows of text into pages. Pure; lengths are millimetres, font sizes points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Color = tuple[int, int, int]

MM_PER_POINT = 25.4 / 72
LINE_SPACING = 1.4


@dataclass(frozen=True, slots=True)
class Style:
    size: float
    color: Color
    is_bold: bool = False

    @property
    def line_height(self) -> float:
        return self.size * MM_PER_POINT * LINE_SPACING


@dataclass(frozen=True, slots=True)
class Cell:
    """Lines of text that fit into `width`, starting at `x` from the left margin.

    direction: of the paragraph, which orders its words; it doesn't affect `align`.
    """

    lines: tuple[str, ...]
    x: float
    width: float
    style: Style
    align: Literal["left", "right"] = "left"
    direction: Literal["ltr", "rtl"] = "ltr"

    @property
    def height(self) -> float:
        return len(self.lines) * self.style.line_height


@dataclass(frozen=True, slots=True)
class LayoutRow:
    """Cells side by side, never split between pages.

    keeps_next: stays on one page with the next row. has_head: if the row is the first of a page, the table's head is
    repeated above it. rule: a line under the row, from one x to another.
    """

    cells: tuple[Cell, ...]
    space_above: float = 0
    space_below: float = 0
    keeps_next: bool = False
    has_head: bool = False
    rule: tuple[float, float] | None = None

    @property
    def height(self) -> float:
        return self.space_above + max((cell.height for cell in self.cells), default=0) + self.space_below


PdfPage = tuple[LayoutRow, ...]


def paginate(rows: Sequence[LayoutRow], *, head: LayoutRow, first_room: float, room: float) -> tuple[PdfPage, ...]:
    """The pages in order, at least one. first_room, room: usable height of the first page, and of any other.

    Rows chained by `keeps_next` stay together unless they are higher than a page. No single row may be.
    """
    pages: list[list[LayoutRow]] = [[]]
    left = first_room
    for chain in _chains(rows):
        height = sum(row.height for row in chain)
        for part in [chain] if height <= room - head.height else [[row] for row in chain]:
            height = sum(row.height for row in part)
            if height > left and pages[-1]:
                pages.append([head] if part[0].has_head else [])
                left = room - sum(row.height for row in pages[-1])
            pages[-1] += part
            left -= height
    return tuple(tuple(page) for page in pages)


def keep_together(rows: Sequence[LayoutRow]) -> tuple[LayoutRow, ...]:
    """The same rows, chained."""
    return (*(replace(row, keeps_next=True) for row in rows[:-1]), *rows[-1:])


def _chains(rows: Sequence[LayoutRow]) -> Iterator[list[LayoutRow]]:
    chain: list[LayoutRow] = []
    for row in rows:
        chain.append(row)
        if not row.keeps_next:
            yield chain
            chain = []
    if chain:
        yield chain
