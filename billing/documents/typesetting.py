"""What the bundled font can show, and where lines of text break. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator

REPLACEMENT = "□"
"""Stands for a character that the PDF's font lacks."""

_RIGHT_TO_LEFT = frozenset(("R", "AL", "AN"))
# Inside a word that is too long for a line: after one of these rather than anywhere.
_PIECES = re.compile(r"[^-/_.,:@]*[-/_.,:@]+|[^-/_.,:@]+")


def printable(text: str, *, glyphs: Collection[int]) -> str:
    """The text with a visible replacement for each character that can't be shown as it should.

    glyphs: code points that the font has. Scripts that run from right to left or join their letters need more than
    glyphs and count as missing. Characters that have no look of their own, such as joiners, are left out.
    """
    return "".join(_shown(char, glyphs) for char in text if unicodedata.category(char) != "Cf")


def wrap(text: str, width: float, *, measure: Callable[[str], float]) -> tuple[str, ...]:
    """Lines not wider than `width`; at least one. A character that is wider than that has a line of its own."""
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


def _shown(char: str, glyphs: Collection[int]) -> str:
    is_known = ord(char) in glyphs and unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT
    return char if is_known else REPLACEMENT


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
