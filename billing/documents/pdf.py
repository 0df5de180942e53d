"""The document as a PDF for print and archive: A4, fonts embedded, the same bytes for the same document.

fpdf2 draws; what stands where is decided by `composing` and `layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from fpdf import FPDF, ViewerPreferences
from fpdf.fonts import TTFFont

from billing.documents.accents import Box, runs_of
from billing.documents.composing import Composer, Face
from billing.documents.document import LANGUAGE, InvoiceDocument
from billing.documents.layout import MM_PER_POINT, Cell, Page, Row, Style, paginate

_FONTS = Path(__file__).parent / "fonts"
_FAMILY = "DejaVu"
_PAGE_WIDTH, _PAGE_HEIGHT = 210.0, 297.0
_LEFT, _TOP, _BOTTOM = 18.0, 18.0, 22.0
_FOOT_Y = _PAGE_HEIGHT - 14.0
_RULE_COLOR = (204, 210, 222)
_MARK_COLOR = (238, 240, 244)
_MARK_SIZE = 110
# From the top of a line of text to its baseline, in font sizes.
_ASCENT = 1.06


def write_pdf(document: InvoiceDocument) -> bytes:
    with PdfWriter(document) as writer:
        return writer.render()


class PdfWriter:
    """Writes one document, once. Use it in a `with`: fpdf2 keeps the fonts' files open unless it comes to the end."""

    def __init__(self, document: InvoiceDocument) -> None:
        self._document = document
        self._pdf = _empty_pdf(document)
        self._regular, self._bold = _fonts_of(self._pdf)
        glyphs = frozenset(self._regular.cmap).intersection(self._bold.cmap)
        self._composer = Composer(document, Face(glyphs, self._measure))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for font in (self._regular, self._bold):
            font.close()

    def pages(self) -> tuple[Page, ...]:
        composer = self._composer
        room = _PAGE_HEIGHT - _TOP - _BOTTOM
        rest = room - composer.continuation().height
        return paginate(composer.rows(), head=composer.head(), first_room=room, room=rest)

    def render(self) -> bytes:
        pages = self.pages()
        for number, page in enumerate(pages, start=1):
            self._pdf.add_page()
            self._draw_mark()
            above = () if number == 1 else (self._composer.continuation(),)
            self._draw_rows((*above, *page), top=_TOP)
            self._draw_rows((self._composer.foot(number, len(pages)),), top=_FOOT_Y)
        return bytes(self._pdf.output())

    def _measure(self, text: str, style: Style) -> float:
        self._set_style(style)
        return self._pdf.get_string_width(text)

    def _set_style(self, style: Style) -> None:
        self._pdf.set_font(_FAMILY, "B" if style.is_bold else "", style.size)
        self._pdf.set_text_color(*style.color)

    def _draw_mark(self) -> None:
        """Large and pale across the page, before the text, which stays legible on it."""
        if not self._document.mark:
            return
        style = Style(_MARK_SIZE, _MARK_COLOR, is_bold=True)
        x, y = _PAGE_WIDTH / 2, _PAGE_HEIGHT / 2
        left = x - self._measure(self._document.mark, style) / 2
        with self._pdf.rotation(50, x, y):
            self._pdf.text(left, y + _MARK_SIZE * MM_PER_POINT / 3, self._document.mark)

    def _draw_rows(self, rows: Sequence[Row], *, top: float) -> None:
        y = top
        for row in rows:
            for cell in row.cells:
                self._draw_cell(cell, y + row.space_above)
            y += row.height
            if row.rule:
                self._pdf.set_draw_color(*_RULE_COLOR)
                self._pdf.set_line_width(0.2)
                self._pdf.line(_LEFT + row.rule[0], y, _LEFT + row.rule[1], y)

    def _draw_cell(self, cell: Cell, top: float) -> None:
        baseline = top + cell.style.size * MM_PER_POINT * _ASCENT
        for line in filter(None, cell.lines):
            space = cell.width - self._measure(line, cell.style) if cell.align == "right" else 0
            self._draw_line(line, cell.style, _LEFT + cell.x + space, baseline)
            baseline += cell.style.line_height

    def _draw_line(self, line: str, style: Style, x: float, baseline: float) -> None:
        em = style.size * MM_PER_POINT
        font = self._bold if style.is_bold else self._regular
        self._set_style(style)
        for run in runs_of(line, box_of=lambda char: _box_of(char, font)):
            self._pdf.text(x + self._measure(run.before, style) + run.x * em, baseline - run.y * em, run.text)


def _empty_pdf(document: InvoiceDocument) -> FPDF:
    pdf = FPDF(format="A4")
    pdf.add_font(_FAMILY, "", _FONTS / "DejaVuSans.ttf")
    pdf.add_font(_FAMILY, "B", _FONTS / "DejaVuSans-Bold.ttf")
    pdf.set_auto_page_break(auto=False)
    pdf.set_title(document.name)
    pdf.set_author(document.seller.name)
    pdf.set_lang(LANGUAGE)
    pdf.set_creation_date(document.made_at)
    pdf.viewer_preferences = ViewerPreferences(display_doc_title=True)
    return pdf


def _fonts_of(pdf: FPDF) -> list[TTFFont]:
    """Regular and bold, as they were added."""
    return [font for font in pdf.fonts.values() if isinstance(font, TTFFont)]


def _box_of(char: str, font: TTFFont) -> Box:
    units = font.ttfont["head"].unitsPerEm
    glyph = font.ttfont["glyf"][font.cmap[ord(char)]]
    # One without an outline, such as a space, has no edges.
    left, bottom, right, top = (getattr(glyph, edge, 0) / units for edge in ("xMin", "yMin", "xMax", "yMax"))
    return Box(left, bottom, right, top)
