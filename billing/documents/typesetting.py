"""What the fonts can show, what must be shaped for that, and where lines of text break. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Container, Iterator
from typing import Literal

from billing.fonts import JOINERS, has_no_look

Direction = Literal["ltr", "rtl"]

REPLACEMENT = "□"
"""Replaces a character that the PDF's fonts lack."""

_RIGHT_TO_LEFT = frozenset(("R", "AL", "AN"))
# The one left-to-right script of the bundled fonts that places marks by rules of its own.
_LAO = range(0x0E80, 0x0F00)
# A word too long for a line is broken after one of these, if possible.
_PIECES = re.compile(r"[^-/_.,:@]*[-/_.,:@]+|[^-/_.,:@]+")


def printable(text: str, *, glyphs: Container[int], bundled: Container[int]) -> str:
    """The text with a visible replacement for each character that no font has.

    glyphs: code points that the fonts have; bundled: those of the bundled fonts. Characters that have no look of their
    own are left out, except joiners and direction marks in shaped text: Persian spelling needs them.
    """
    plain = "".join(_shown(char, glyphs) for char in text if not has_no_look(char))
    if not needs_shaping(plain, bundled=bundled):
        return plain
    return "".join(_shown(char, glyphs) for char in text if char in JOINERS or not has_no_look(char))


def needs_shaping(text: str, *, bundled: Container[int]) -> bool:
    """Whether drawing one glyph per character isn't enough, or a character isn't in the bundled fonts.

    Other texts are drawn as before, so that the PDFs of issued documents keep their bytes.
    """
    return not text.isascii() and any(_is_shaped(char, bundled) for char in text)


def direction_of(text: str) -> Direction:
    """The direction of the first character that has one, like `dir=auto` in a browser."""
    classes = map(unicodedata.bidirectional, text)
    strong = next((each for each in classes if each in ("L", "R", "AL")), "L")
    return "ltr" if strong == "L" else "rtl"


def wrap(text: str, width: float, *, measure: Callable[[str], float]) -> tuple[str, ...]:
    """Lines not wider than `width`; at least one. A character that is wider than that gets its own line."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if measure(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *whole, line = _broken(word, width, measure)
        lines += whole
    return (*lines, line)


def clusters(text: str) -> Iterator[str]:
    """Each character with the combining marks after it."""
    cluster = ""
    for char in text:
        if cluster and not unicodedata.combining(char):
            yield cluster
            cluster = ""
        cluster += char
    if cluster:
        yield cluster


def _shown(char: str, glyphs: Container[int]) -> str:
    return char if char in JOINERS or ord(char) in glyphs else REPLACEMENT


def _is_shaped(char: str, bundled: Container[int]) -> bool:
    code = ord(char)
    is_ours = code in bundled or char in JOINERS
    return not is_ours or code in _LAO or unicodedata.bidirectional(char) in _RIGHT_TO_LEFT


def _broken(word: str, width: float, measure: Callable[[str], float]) -> list[str]:
    if measure(word) <= width:
        return [word]
    lines = [""]
    for piece in _PIECES.findall(word):
        fits_a_line = measure(piece) <= width
        for part in (piece,) if fits_a_line else clusters(piece):
            if lines[-1] and measure(lines[-1] + part) > width:
                lines.append("")
            lines[-1] += part
    return lines
