"""The document as a PDF for print and archive: A4, fonts embedded, the same bytes for the same document.

fpdf2 only draws: `pdf_layout` makes rows of the document, and `pagination` divides them into pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

from fpdf import FPDF, ViewerPreferences
from fpdf.fonts import TTFFont

from billing.documents.accents import Box, runs_of
from billing.documents.document import LANGUAGE, InvoiceDocument
from billing.documents.pagination import MM_PER_POINT, Cell, LayoutRow, PdfPage, Style, paginate
from billing.documents.pdf_layout import DocumentLayout, Face
from billing.documents.shaping import BidiRun, pieces_from_left, runs_from_left
from billing.documents.typesetting import needs_shaping
from billing.fonts import BOLD, REGULAR, all_glyphs, build_subset, bundled_glyphs, fonts_for, is_bold

_FAMILY = "DejaVu"
_PAGE_WIDTH, _PAGE_HEIGHT = 210.0, 297.0
_LEFT, _TOP, _BOTTOM = 18.0, 18.0, 22.0
_FOOT_Y = _PAGE_HEIGHT - 14.0
_RULE_COLOR = (204, 210, 222)
_MARK_COLOR = (238, 240, 244)
_MARK_SIZE = 110
# From the top of a line of text to its baseline, in font sizes.
_ASCENT = 1.06
# fpdf2 puts a cell's baseline this far from the middle of its height, in font sizes.
_BASELINE_OF_CELL = 0.3


class _Typeface(NamedTuple):
    """A font as fpdf2 knows it. style: B, or empty."""

    family: str
    style: str


@dataclass(frozen=True, slots=True)
class _Fallback:
    """codes: the code points that this font is used for."""

    typeface: _Typeface
    codes: frozenset[int]


def write_pdf(document: InvoiceDocument) -> bytes:
    with PdfWriter(document) as writer:
        return writer.render()


class PdfWriter:
    """Writes one document, once. Use it in a `with`: fpdf2 keeps the font files open if rendering fails."""

    def __init__(self, document: InvoiceDocument) -> None:
        self._document = document
        self._bundled = bundled_glyphs()
        self._pdf = _empty_pdf(document)
        self._regular, self._bold = _fonts_of(self._pdf)
        self._folder = TemporaryDirectory(prefix="llm-fonts-")
        self._fallbacks = self._add_fallbacks()
        self._layout = DocumentLayout(document, Face(all_glyphs(), self._bundled, self._measure))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for font in _fonts_of(self._pdf):
            font.close()
        self._folder.cleanup()

    def pages(self) -> tuple[PdfPage, ...]:
        composer = self._layout
        room = _PAGE_HEIGHT - _TOP - _BOTTOM
        rest = room - composer.continuation().height
        return paginate(composer.rows(), head=composer.head(), first_room=room, room=rest)

    def render(self) -> bytes:
        pages = self.pages()
        for number, page in enumerate(pages, start=1):
            self._pdf.add_page()
            self._draw_mark()
            above = () if number == 1 else (self._layout.continuation(),)
            self._draw_rows((*above, *page), top=_TOP)
            self._draw_rows((self._layout.foot(number, len(pages)),), top=_FOOT_Y)
        return bytes(self._pdf.output())

    def _add_fallbacks(self) -> list[_Fallback]:
        """Adds only what this document needs, so that other documents are the same bytes whatever is configured."""
        chars = {char for text in _texts_of(self._document) for char in text}
        found = []
        for number, (font, codes) in enumerate(fonts_for(chars).items(), start=1):
            path = Path(self._folder.name) / f"{number}.otf"
            path.write_bytes(build_subset(font, codes))
            found.append(_Fallback(_Typeface(f"fallback{number}", "B" if is_bold(font) else ""), frozenset(codes)))
            self._pdf.add_font(*found[-1].typeface, path)
        return found

    def _measure(self, text: str, style: Style) -> float:
        if not needs_shaping(text, bundled=self._bundled):
            self._set_style(style)
            return self._pdf.get_string_width(text)
        return sum(self._shaped(run, style) for run in runs_from_left(text, "ltr"))

    def _set_style(self, style: Style) -> None:
        self._pdf.set_font(_FAMILY, "B" if style.is_bold else "", style.size)
        self._pdf.set_text_color(*style.color)

    def _typefaces_of(self, char: str, style: Style) -> list[_Typeface]:
        """Fonts that have the character, best first; DejaVu for joiners, which no font needs to have."""
        weight = "B" if style.is_bold else ""
        able = [each.typeface for each in self._fallbacks if ord(char) in each.codes]
        return sorted(able, key=lambda each: each.style != weight) or [_Typeface(_FAMILY, weight)]

    def _shaped(self, run: BidiRun, style: Style, at: tuple[float, float] | None = None) -> float:
        """Draws a run of one direction and returns its width. at: its left end, on the baseline."""
        width = 0.0
        pdf = self._pdf
        pdf.set_text_shaping(use_shaping_engine=True, direction=run.direction)
        for text, typeface in pieces_from_left(run, fonts_of=lambda char: self._typefaces_of(char, style)):
            self._set_style(style)
            pdf.set_font(*typeface, style.size)
            piece = pdf.get_string_width(text)
            if at:
                pdf.set_xy(at[0] + width, at[1] - _BASELINE_OF_CELL * style.size * MM_PER_POINT)
                pdf.cell(piece, 0, text)
            width += piece
        pdf.set_text_shaping(use_shaping_engine=False)
        return width

    def _draw_mark(self) -> None:
        """Large and pale across the page, beneath the text, which stays legible."""
        if not self._document.mark:
            return
        style = Style(_MARK_SIZE, _MARK_COLOR, is_bold=True)
        x, y = _PAGE_WIDTH / 2, _PAGE_HEIGHT / 2
        left = x - self._measure(self._document.mark, style) / 2
        with self._pdf.rotation(50, x, y):
            self._pdf.text(left, y + _MARK_SIZE * MM_PER_POINT / 3, self._document.mark)

    def _draw_rows(self, rows: Sequence[LayoutRow], *, top: float) -> None:
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
            draw = self._draw_shaped if needs_shaping(line, bundled=self._bundled) else self._draw_line
            draw(line, cell, _LEFT + cell.x + space, baseline)
            baseline += cell.style.line_height

    def _draw_line(self, line: str, cell: Cell, x: float, baseline: float) -> None:
        style = cell.style
        em = style.size * MM_PER_POINT
        font = self._bold if style.is_bold else self._regular
        self._set_style(style)
        for run in runs_of(line, box_of=lambda char: _box_of(char, font)):
            self._pdf.text(x + self._measure(run.before, style) + run.x * em, baseline - run.y * em, run.text)

    def _draw_shaped(self, line: str, cell: Cell, x: float, baseline: float) -> None:
        for run in runs_from_left(line, cell.direction):
            x += self._shaped(run, cell.style, (x, baseline))


def _empty_pdf(document: InvoiceDocument) -> FPDF:
    pdf = FPDF(format="A4")
    pdf.add_font(_FAMILY, "", REGULAR)
    pdf.add_font(_FAMILY, "B", BOLD)
    pdf.set_auto_page_break(auto=False)
    pdf.c_margin = 0
    # Off, since a customer's name may contain fpdf2's placeholder for the number of pages.
    pdf.str_alias_nb_pages = ""
    pdf.set_title(document.name)
    pdf.set_author(document.seller.name)
    pdf.set_lang(LANGUAGE)
    pdf.set_creation_date(document.made_at)
    pdf.viewer_preferences = ViewerPreferences(display_doc_title=True)
    return pdf


def _fonts_of(pdf: FPDF) -> list[TTFFont]:
    """In the order in which they were added: regular and bold first."""
    return [font for font in pdf.fonts.values() if isinstance(font, TTFFont)]


def _box_of(char: str, font: TTFFont) -> Box:
    units = font.ttfont["head"].unitsPerEm
    glyph = font.ttfont["glyf"][font.cmap[ord(char)]]
    # A glyph without an outline, such as a space, has no bounds.
    left, bottom, right, top = (getattr(glyph, edge, 0) / units for edge in ("xMin", "yMin", "xMax", "yMax"))
    return Box(left, bottom, right, top)


def _texts_of(part: Any) -> Iterator[str]:
    """All texts of the document."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, tuple):
        for each in part:
            yield from _texts_of(each)
    elif is_dataclass(part):
        for field in fields(part):
            yield from _texts_of(getattr(part, field.name))
