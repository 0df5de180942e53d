"""Reads back what fpdf2 wrote: as a viewer does, from the file's bytes alone, through each font's own tables."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

_OBJECT = re.compile(rb"(?<=\n)(\d+) 0 obj\n(.*?)\nendobj", re.DOTALL)
_BFCHAR = re.compile(rb"<([0-9A-F]{4})> <([0-9A-F]{4,})>")
_OPERATION = re.compile(
    rb"/(?P<font>F\d+) (?P<size>[\d.]+) Tf|(?:BT|1 0 0 1) (?P<x>[-\d.]+) (?P<y>[-\d.]+) T[dm]"
    rb"|\((?P<text>(?:[^\\()]|\\.)*)\) Tj",
    re.DOTALL,
)
_ESCAPES = {b"\\r": b"\r", b"\\n": b"\n"}


@dataclass(frozen=True)
class Text:
    """A piece of text as drawn. x, y: points from the page's lower left corner. has_glyphs: the font has all of it."""

    x: float
    y: float
    size: float
    text: str
    has_glyphs: bool


@dataclass(frozen=True)
class _Font:
    texts: dict[int, str]
    glyph_ids: bytes

    def read(self, codes: bytes) -> tuple[str, bool]:
        numbers = [high * 256 + low for high, low in zip(codes[::2], codes[1::2], strict=True)]
        glyphs = (self.glyph_ids[2 * number : 2 * number + 2] for number in numbers)
        # Of a letter with its marks the first glyph stands for all.
        return "".join(self.texts.get(number, "") for number in numbers), all(glyph != b"\0\0" for glyph in glyphs)


def read_pages(pdf: bytes) -> list[list[Text]]:
    """The pieces of text of each page, in the order in which they are drawn."""
    objects = {int(number): body for number, body in _OBJECT.findall(pdf)}
    root = next(body for body in objects.values() if b"/Type /Pages" in body)
    kids = re.findall(rb"(\d+) 0 R", _find(rb"/Kids \[(.*?)\]", root))
    return [_read_page(objects, objects[int(number)]) for number in kids]


def lines_of(pieces: list[Text]) -> list[str]:
    """What stands at each height, as the eye meets it from left to right; the highest first."""
    heights = sorted({piece.y for piece in pieces}, reverse=True)
    return ["".join(piece.text for piece in sorted(pieces, key=lambda each: each.x) if piece.y == y) for y in heights]


def text_of(pdf: bytes) -> str:
    """All text, one drawn piece a line."""
    return "\n".join(piece.text for page in read_pages(pdf) for piece in page)


def _read_page(objects: dict[int, bytes], page: bytes) -> list[Text]:
    resources = objects[int(_find(rb"/Resources (\d+)", page))]
    fonts = {
        name: _read_font(objects, objects[int(number)]) for name, number in re.findall(rb"/(F\d+) (\d+) 0 R", resources)
    }
    content = _stream(objects[int(_find(rb"/Contents (\d+)", page))])
    pieces = []
    name, size, x, y = b"", 0.0, 0.0, 0.0
    for match in _OPERATION.finditer(content):
        if match["font"]:
            name, size = match["font"], float(match["size"])
        elif match["x"]:
            x, y = float(match["x"]), float(match["y"])
        else:
            text, has_glyphs = fonts[name].read(_unescape(match["text"]))
            pieces.append(Text(x, y, size, text, has_glyphs))
    assert len(pieces) == content.count(b") Tj"), "some text was drawn in a way that this reader doesn't know"
    return pieces


def _read_font(objects: dict[int, bytes], font: bytes) -> _Font:
    mapping = _stream(objects[int(_find(rb"/ToUnicode (\d+)", font))])
    texts = {int(code, 16): bytes.fromhex(char.decode()).decode("utf-16-be") for code, char in _BFCHAR.findall(mapping)}
    descendant = objects[int(_find(rb"/DescendantFonts \[(\d+)", font))]
    return _Font(texts, _stream(objects[int(_find(rb"/CIDToGIDMap (\d+)", descendant))]))


def _stream(body: bytes) -> bytes:
    content = _find(rb"stream\n(.*)\nendstream", body)
    return zlib.decompress(content) if b"/FlateDecode" in body else content


def _unescape(text: bytes) -> bytes:
    return re.sub(rb"\\.", lambda match: _ESCAPES.get(match[0], match[0][1:]), text, flags=re.DOTALL)


def _find(pattern: bytes, body: bytes) -> bytes:
    match = re.search(pattern, body, re.DOTALL)
    assert match is not None, f"{pattern!r} is not in {body[:200]!r}"
    return match[1]
