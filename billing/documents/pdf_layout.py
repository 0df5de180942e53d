"""Lays a document out: its content as rows, in their order on paper. Pure. Lengths are millimetres."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import zip_longest
from typing import Literal

from billing.documents.document import Fact, InvoiceDocument, LineSection, LineText, Note, Party
from billing.documents.pagination import Cell, Color, LayoutRow, Style, keep_together
from billing.documents.typesetting import REPLACEMENT, direction_of, printable, wrap

WIDTH = 174.0
"""Width of A4 between its margins."""

INK: Color = (23, 32, 51)
QUIET: Color = (92, 102, 122)
ALERT: Color = (174, 35, 35)

BODY = Style(9, INK)
BOLD = Style(9, INK, is_bold=True)
LABEL = Style(9, QUIET)
HEADING = Style(8, QUIET, is_bold=True)
SMALL = Style(7, QUIET)
TITLE = Style(22, INK, is_bold=True)
SUMMARY = Style(13, INK, is_bold=True)
ALERTED = Style(9, ALERT, is_bold=True)

_HALF = 84.0
_LEFT, _RIGHT = 0.0, WIDTH - _HALF
_LABEL_WIDTH = 22.0
_PROOF_LABEL_WIDTH = 42.0
_GUTTER = 5.0
_WIDEST_NUMBER = 42.0
_TOTALS_X = 94.0
_TOTALS_LABEL_WIDTH = 30.0
_LINES_KEPT_WITH_TOTALS = 2
_LONGEST_KEPT_NOTE = 12
_LONGEST_KEPT_ENDING = 24


@dataclass(frozen=True, slots=True)
class Face:
    """The fonts. glyphs: their code points; bundled: those that every installation has.

    measure: the width of a text in a style, in millimetres.
    """

    glyphs: Container[int]
    bundled: Container[int]
    measure: Callable[[str, Style], float]


class DocumentLayout:
    def __init__(self, document: InvoiceDocument, face: Face) -> None:
        self._document = document
        self._face = face
        self._number_widths = self._widths_of_numbers()

    def head(self) -> LayoutRow:
        """Labels of the lines' columns, repeated on each page on which the lines continue."""
        row = self._line_row(self._document.column_labels, HEADING)
        return replace(row, space_above=1, space_below=1.5, keeps_next=True, has_head=False, rule=(0, WIDTH))

    def rows(self) -> tuple[LayoutRow, ...]:
        rows = (*self._opening(), *self._lines(), *self._ending())
        if any(REPLACEMENT in line for row in rows for cell in row.cells for line in cell.lines):
            note = f"{REPLACEMENT} stands for a character that the font of this document does not have."
            rows += (LayoutRow((self._cell(note, SMALL),), space_above=3),)
        return rows

    def continuation(self) -> LayoutRow:
        """The heading of every page but the first."""
        return LayoutRow((self._cell(f"{self._document.name} · {self._document.bill_to.name}", LABEL),), space_below=4)

    def foot(self, page: int, pages: int) -> LayoutRow:
        left = self._cell(f"{self._document.seller.name} · {self._document.name}", SMALL, width=WIDTH - 30)
        right = self._cell(f"Page {page} of {pages}", SMALL, x=WIDTH - 30, width=30, align="right")
        return LayoutRow((replace(left, lines=left.lines[:1]), right))

    def _opening(self) -> Iterable[LayoutRow]:
        document = self._document
        yield LayoutRow((self._cell(document.title, TITLE),))
        if document.cites:
            yield LayoutRow((self._cell(document.cites, BOLD),), space_above=1)
        if document.mark_text:
            yield LayoutRow((self._cell(document.mark_text, ALERTED),), space_above=1.5)
        yield LayoutRow((), space_above=4)
        yield from self._facts(document.facts)
        yield LayoutRow((), space_above=5)
        yield from _side_by_side(self._party(document.seller, _LEFT), self._party(document.bill_to, _RIGHT))
        yield LayoutRow((self._cell(document.summary, SUMMARY),), space_above=7, space_below=2)

    def _facts(self, facts: Sequence[Fact]) -> Iterable[LayoutRow]:
        """In two columns, filling the left one first."""
        half = (len(facts) + 1) // 2
        for left, right in zip_longest(facts[:half], facts[half:]):
            cells = self._fact(left, LABEL, BODY, x=_LEFT, width=_HALF, label_width=_LABEL_WIDTH)
            if right:
                cells += self._fact(right, LABEL, BODY, x=_RIGHT, width=_HALF, label_width=_LABEL_WIDTH)
            yield LayoutRow(cells)

    def _party(self, party: Party, x: float) -> list[Cell]:
        texts = (party.heading, HEADING), (party.name, BOLD), *((line, BODY) for line in party.lines)
        return [self._cell(text, style, x=x, width=_HALF) for text, style in texts]

    def _lines(self) -> tuple[LayoutRow, ...]:
        rows = [row for section in self._document.sections for row in self._section(section)]
        kept = len(rows) - _LINES_KEPT_WITH_TOTALS
        rows = [replace(row, keeps_next=row.keeps_next or index >= kept) for index, row in enumerate(rows)]
        return (self.head(), *rows)

    def _ending(self) -> tuple[LayoutRow, ...]:
        """What follows the last lines, on the same page unless it is long."""
        rows = (*self._totals(), *self._notes(), *self._proof())
        return keep_together(rows) if len(rows) <= _LONGEST_KEPT_ENDING else rows

    def _section(self, section: LineSection) -> Iterable[LayoutRow]:
        if section.heading:
            heading = self._cell(section.heading, BOLD)
            yield LayoutRow((heading,), space_above=3, space_below=0.5, keeps_next=True, has_head=True)
        for line in section.lines:
            yield self._line_row(line, BODY)

    def _line_row(self, line: LineText, style: Style) -> LayoutRow:
        description, *numbers = astuple(line)
        right = WIDTH
        cells = []
        for text, width in zip(reversed(numbers), reversed(self._number_widths), strict=True):
            cells.append(self._cell(text, style, x=right - width, width=width, align="right"))
            right -= width + _GUTTER
        cells.append(self._cell(description, style, width=right))
        return LayoutRow(tuple(reversed(cells)), space_above=0.6, space_below=0.6, has_head=True)

    def _widths_of_numbers(self) -> list[float]:
        """Widths of quantity, unit price and amount: that of the widest text, up to a maximum."""
        labels = astuple(self._document.column_labels)[1:]
        lines = [astuple(line)[1:] for section in self._document.sections for line in section.lines]
        widths = [self._face.measure(label, HEADING) for label in labels]
        for numbers in lines:
            widths = [max(width, self._face.measure(text, BODY)) for width, text in zip(widths, numbers, strict=True)]
        # Slightly more than measured, so that rounding never breaks a text that fits.
        return [min(width + 0.1, _WIDEST_NUMBER) for width in widths]

    def _totals(self) -> tuple[LayoutRow, ...]:
        totals = self._document.totals
        rule = _TOTALS_X, WIDTH
        rows = [
            replace(self._total_row("Subtotal", totals.subtotal, BODY), space_above=3),
            *(self._total_row(tax.label, tax.amount, BODY) for tax in totals.taxes),
        ]
        if totals.tax_note:
            rows.append(LayoutRow((self._cell(totals.tax_note, SMALL, x=_TOTALS_X, width=WIDTH - _TOTALS_X),)))
        rows[-1] = replace(rows[-1], space_below=1.5, rule=rule)
        rows.append(replace(self._total_row("Total", totals.total, BOLD), space_above=1.5))
        return keep_together(rows)

    def _total_row(self, label: str, amount: str, style: Style) -> LayoutRow:
        x = _TOTALS_X + _TOTALS_LABEL_WIDTH
        cells = (
            self._cell(label, style, x=_TOTALS_X, width=_TOTALS_LABEL_WIDTH),
            self._cell(amount, style, x=x, width=WIDTH - x, align="right"),
        )
        return LayoutRow(cells, space_above=0.5, space_below=0.5)

    def _notes(self) -> Iterable[LayoutRow]:
        """In pairs, side by side."""
        notes = self._document.notes
        for left, right in zip_longest(notes[::2], notes[1::2]):
            columns = self._note(left, _LEFT), self._note(right, _RIGHT) if right else []
            rows = (LayoutRow((), space_above=5), *_side_by_side(*columns))
            yield from keep_together(rows) if len(rows) <= _LONGEST_KEPT_NOTE else rows

    def _note(self, note: Note, x: float) -> list[Cell]:
        texts = (note.heading, HEADING), *((line, BODY) for line in note.lines)
        return [self._cell(text, style, x=x, width=_HALF) for text, style in texts]

    def _proof(self) -> tuple[LayoutRow, ...]:
        width = _PROOF_LABEL_WIDTH
        facts = [self._fact(fact, SMALL, SMALL, label_width=width) for fact in self._document.proof]
        return keep_together((LayoutRow((), space_above=5), *map(LayoutRow, facts)))

    def _fact(
        self, fact: Fact, label: Style, value: Style, *, label_width: float, x: float = 0, width: float = WIDTH
    ) -> tuple[Cell, ...]:
        return (
            self._cell(fact.label, label, x=x, width=label_width),
            self._cell(fact.value, value, x=x + label_width, width=width - label_width),
        )

    def _cell(
        self, text: str, style: Style, *, x: float = 0, width: float = WIDTH, align: Literal["left", "right"] = "left"
    ) -> Cell:
        shown = printable(text, glyphs=self._face.glyphs, bundled=self._face.bundled)
        lines = wrap(shown, width, measure=lambda line: self._face.measure(line, style))
        return Cell(lines, x, width, style, align, direction_of(shown))


def _side_by_side(left: Sequence[Cell], right: Sequence[Cell]) -> Iterable[LayoutRow]:
    """Two columns line by line, so that their content may be longer than a page."""
    columns = ([replace(cell, lines=(line,)) for cell in cells for line in cell.lines] for cells in (left, right))
    for pair in zip_longest(*columns):
        yield LayoutRow(tuple(cell for cell in pair if cell))
