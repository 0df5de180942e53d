"""Positions accents on letters for which the font has no composed form, as in “Ẹ̀gbá” or “Ю́рий”. Pure.

The font draws a combining mark where it fits a small letter of usual width; on a capital it would cross the letter.
fpdf2 leaves that to a shaping library, which is too heavy for this alone. Lengths are in units of the font's size.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from billing.documents.typesetting import clusters

_ABOVE, _BELOW = 230, 220
"""Unicode's combining classes of marks that don't touch the letter."""
_GAP = 0.06


@dataclass(frozen=True, slots=True)
class Box:
    """A character's outline; the left edge is measured from the character's origin."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def center(self) -> float:
        return (self.left + self.right) / 2

    def moved(self, x: float, y: float) -> Box:
        return Box(self.left + x, self.bottom + y, self.right + x, self.top + y)

    def joined(self, other: Box) -> Box:
        return Box(self.left, min(self.bottom, other.bottom), self.right, max(self.top, other.top))


@dataclass(frozen=True, slots=True)
class MarkRun:
    """A piece that is drawn at once, after the text `before`, moved by `x` to the right and `y` up."""

    text: str
    before: str
    x: float = 0
    y: float = 0


def runs_of(line: str, *, box_of: Callable[[str], Box]) -> Iterator[MarkRun]:
    """The pieces of the line, in order; a single one if it has no combining marks."""
    before = piece = ""
    for cluster in clusters(line):
        letter, marks = cluster[0], cluster[1:]
        start = before + piece
        piece += letter
        if not marks:
            continue
        yield MarkRun(piece, before)
        yield from _marks_on(letter, marks, start, box_of)
        before, piece = start + letter, ""
    if piece:
        yield MarkRun(piece, before)


def _marks_on(letter: str, marks: str, before: str, box_of: Callable[[str], Box]) -> Iterator[MarkRun]:
    taken = box_of(letter)
    is_first = {_ABOVE: True, _BELOW: True}
    for mark in marks:
        box, side = box_of(mark), unicodedata.combining(mark)
        x, y = taken.center - box.center, 0.0
        if side == _ABOVE:
            y = max(0.0, taken.top - box_of("x").top) if is_first[side] else taken.top + _GAP - box.bottom
        elif side == _BELOW:
            y = min(0.0, taken.bottom) if is_first[side] else taken.bottom - _GAP - box.top
        is_first[side] = False
        taken = taken.joined(box.moved(x, y))
        yield MarkRun(mark, before, x, y)
