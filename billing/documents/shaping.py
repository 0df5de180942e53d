"""A shaped line -> the pieces in which it is drawn, from left to right, each in one font and one direction.

fpdf2 resolves levels by Unicode's bidirectional algorithm (UAX #9), but draws words of the other direction and a number
after them in reading order. So we order them ourselves.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from fpdf.bidi import BidiParagraph
from fpdf.enums import TextDirection

from billing.documents.typesetting import Direction
from billing.fonts import JOINERS

Font = TypeVar("Font")


@dataclass(frozen=True, slots=True)
class BidiRun:
    """Characters of one embedding level, in reading order; odd levels run from right to left."""

    text: str
    level: int

    @property
    def direction(self) -> Direction:
        return "rtl" if self.level % 2 else "ltr"


def runs_from_left(line: str, direction: Direction) -> list[BidiRun]:
    """The runs as they appear on paper, from left to right. direction: the paragraph's."""
    runs = [
        BidiRun("".join(char for char, _ in group), level)
        for level, group in groupby(_levels(line, direction), key=lambda pair: pair[1])
    ]
    return _reordered(runs)


def pieces_from_left(run: BidiRun, *, fonts_of: Callable[[str], Sequence[Font]]) -> list[tuple[str, Font]]:
    """The run in parts of one font each.

    fonts_of: the fonts that have a character, best first. Marks are drawn in their letter's font if it has them.
    """
    pieces: list[tuple[str, Font]] = []
    for char in run.text:
        font = _font_of(char, pieces[-1][1] if pieces else None, fonts_of)
        if pieces and pieces[-1][1] == font:
            pieces[-1] = (pieces[-1][0] + char, font)
        else:
            pieces.append((char, font))
    return pieces[::-1] if run.direction == "rtl" else pieces


def _font_of(char: str, before: Font | None, fonts_of: Callable[[str], Sequence[Font]]) -> Font:
    able = fonts_of(char)
    if before is not None and (char in JOINERS or (before in able and unicodedata.category(char).startswith("M"))):
        return before
    return able[0]


def _levels(line: str, direction: Direction) -> Iterator[tuple[str, int]]:
    """Each character with its embedding level."""
    base = TextDirection.RTL if direction == "rtl" else TextDirection.LTR
    level = int(base == TextDirection.RTL)
    for char in BidiParagraph(line, base, preserve_bn_chars=True).get_characters_with_embedding_level():
        # A joiner would otherwise split the run around it.
        level = level if char.character in JOINERS else char.embedding_level
        yield char.character, level


def _reordered(runs: Sequence[BidiRun]) -> list[BidiRun]:
    """Rule L2: from the highest level down, reverse the sequences at that level or above."""
    ordered = list(runs)
    for level in range(max((run.level for run in runs), default=0), 0, -1):
        groups = groupby(ordered, key=lambda run: run.level >= level)
        ordered = [run for is_turned, group in groups for run in _turned(list(group), is_turned=is_turned)]
    return ordered


def _turned(runs: list[BidiRun], *, is_turned: bool) -> list[BidiRun]:
    return runs[::-1] if is_turned else runs
