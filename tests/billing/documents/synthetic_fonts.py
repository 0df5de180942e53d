"""Fonts made for a test: each character is a box, as wide as the font is high."""

from __future__ import annotations

from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTCollection, TTFont

_UNITS = 1000


def write_font(path: Path, chars: str, *, weight: int = 400) -> Path:
    _font(path.stem, chars, weight).save(path)
    return path


def write_collection(path: Path, *chars: str) -> Path:
    """A face for each of `chars`."""
    collection = TTCollection()
    collection.fonts = [_font(f"{path.stem}{number}", each, 400) for number, each in enumerate(chars)]
    collection.save(path)
    return path


def _font(name: str, chars: str, weight: int) -> TTFont:
    names = {ord(char): f"u{ord(char):04X}" for char in chars}
    order = [".notdef", *names.values()]
    builder = FontBuilder(_UNITS, isTTF=True)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap(names)
    builder.setupGlyf({glyph: _box() for glyph in order})
    builder.setupHorizontalMetrics(dict.fromkeys(order, (_UNITS, 100)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": name, "styleName": "Regular", "fullName": name, "psName": name})
    builder.setupOS2(usWeightClass=weight, sCapHeight=800)
    builder.setupPost()
    return builder.font


def _box() -> object:
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for point in ((900, 0), (900, 800), (100, 800)):
        pen.lineTo(point)
    pen.closePath()
    return pen.glyph()
