"""The fonts of PDFs: which characters they have, and which fonts of BILLING_FONTS are used for the others.

Read with HarfBuzz, which takes a millisecond for the largest font; the PDF library is far heavier. Even HarfBuzz is
loaded only if a text has more than Latin letters or a font is configured.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from uharfbuzz import Face, Set

_FOLDER = Path(__file__).parent / "documents" / "fonts"
REGULAR = _FOLDER / "DejaVuSans.ttf"
BOLD = _FOLDER / "DejaVuSans-Bold.ttf"

JOINERS = frozenset("\u200c\u200d\u200e\u200f")
"""Invisible characters that decide how neighbouring letters join, or their direction."""
_BOLD_FROM_WEIGHT = 600
# Characters of both bundled fonts, so that most texts need no look into a font.
_SURELY_THERE = re.compile(r"[ -~\u00a0-\u024f\n]*")
_FACE_OF_COLLECTION = re.compile(r"(.+):(\d+)")
_OUTLINES = frozenset(("glyf", "CFF "))
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
# They select a form of the preceding character and have no glyph of their own.
_VARIATION_SELECTORS = range(0xE0100, 0xE01F0)


@dataclass(frozen=True, slots=True)
class FontFile:
    """number: of the face in a collection (.ttc), from 0."""

    path: Path
    number: int = 0

    @classmethod
    def named(cls, value: str) -> FontFile:
        """Parses an entry of BILLING_FONTS: a path, with `:2` for a face of a collection."""
        match = _FACE_OF_COLLECTION.fullmatch(value)
        return cls(Path(match[1]), int(match[2])) if match else cls(Path(value))


def configured_fonts() -> tuple[FontFile, ...]:
    """In the order in which they are tried for a character that the bundled fonts lack."""
    return tuple(map(FontFile.named, settings.BILLING_FONTS))


def font_problem(value: str) -> str:
    """Why this entry of BILLING_FONTS can't be used; "" if it can."""
    font = FontFile.named(value)
    if not font.path.is_file():
        return f"BILLING_FONTS names {font.path}, which is not a file; install the font or correct the path."
    if font.path.suffix.lower() not in _SUFFIXES:
        return f"BILLING_FONTS names {font.path}, which must be a font file: {', '.join(_SUFFIXES)}."
    return _face_problem(font)


@cache
def bundled_glyphs() -> Set:
    """Code points that both the regular and the bold font have."""
    glyphs = glyphs_of(FontFile(REGULAR)).copy()
    glyphs &= glyphs_of(FontFile(BOLD))
    return glyphs


@cache
def glyphs_of(font: FontFile) -> Set:
    """Not a Python set: a Chinese font's would take 4 MB."""
    return open_face(font).unicodes


@cache
def is_bold(font: FontFile) -> bool:
    # In the OS/2 table, the weight (1 to 1000) follows the version and the average width.
    table = open_face(font).reference_table("OS/2").data
    return int.from_bytes(table[4:6], "big") >= _BOLD_FROM_WEIGHT


def open_face(font: FontFile) -> Face:
    from uharfbuzz import Blob, Face

    return Face(Blob.from_file_path(str(font.path)), font.number)


@cache
def _glyphs_of_all(fonts: Collection[FontFile]) -> Set:
    glyphs = bundled_glyphs().copy()
    for font in fonts:
        glyphs |= glyphs_of(font)
    return glyphs


def all_glyphs() -> Set:
    return _glyphs_of_all(configured_fonts())


def has_no_look(char: str) -> bool:
    """Joiners, direction marks and the like: omitted from a document, or only shaping their neighbours."""
    return unicodedata.category(char) == "Cf" or ord(char) in _VARIATION_SELECTORS


def missing_characters(texts: Iterable[str]) -> tuple[str, ...]:
    """Characters that no font can draw, each once, in order of appearance."""
    unsure = "".join(text for text in texts if not _SURELY_THERE.fullmatch(text))
    if not unsure:
        return ()
    glyphs = all_glyphs()
    chars = dict.fromkeys(unicodedata.normalize("NFC", unsure))
    return tuple(char for char in chars if not char.isspace() and not has_no_look(char) and ord(char) not in glyphs)


def character_name(char: str) -> str:
    """`株 (U+682A)`; without the character if it is invisible or would affect the text around it."""
    code = f"U+{ord(char):04X}"
    is_shown = char.isprintable() and not unicodedata.category(char).startswith("M")
    return f"{char} ({code})" if is_shown else code


def fonts_for(chars: Iterable[str]) -> Mapping[FontFile, Collection[int]]:
    """Which configured fonts are needed for characters that the bundled ones lack, and for which code points.

    Regular text takes the first non-bold font that has the character, bold text the first bold one; if there is none of
    that kind, the first that has it.
    """
    needed = {code for code in map(ord, chars) if code not in bundled_glyphs()}
    fonts = configured_fonts() if needed else ()
    chosen: dict[FontFile, set[int]] = defaultdict(set)
    for code in sorted(needed):
        able = [font for font in fonts if code in glyphs_of(font)]
        for wants_bold in (False, True):
            if font := _first(able, wants_bold=wants_bold):
                chosen[font].add(code)
    # In the order of the setting, not of the characters.
    return {font: chosen[font] for font in fonts if font in chosen}


def build_subset(font: FontFile, codes: Collection[int]) -> bytes:
    """A font of a few kB with these characters and their shaping rules; the same bytes each time.

    fpdf2 takes seconds to read a whole Chinese font. Of a variable font, this is the default instance.
    """
    from uharfbuzz import SubsetFlags, SubsetInput, subset

    face, wanted = open_face(font), SubsetInput()
    wanted.unicode_set.update((*codes, *map(ord, JOINERS), ord(" ")))
    wanted.flags = SubsetFlags.NOTDEF_OUTLINE
    if face.has_var_data:
        wanted.pin_all_axes_to_default(face)
    return bytes(subset(face, wanted).blob.data)


def _first(fonts: Sequence[FontFile], *, wants_bold: bool) -> FontFile | None:
    return next((font for font in fonts if is_bold(font) == wants_bold), fonts[0] if fonts else None)


def _face_problem(font: FontFile) -> str:
    from uharfbuzz import HarfBuzzError

    named = f"BILLING_FONTS names {font.path}"
    try:
        face = open_face(font)
    except HarfBuzzError:
        return f"{named}, which can't be read; make it readable for the user that runs the gateway."
    if font.number and font.number >= face.count:
        return f"{named}, which has no face {font.number}; there are {face.count}, numbered from 0."
    if not (
        face.glyph_count and face.unicodes and _OUTLINES.intersection(face.table_tags) and "OS/2" in face.table_tags
    ):
        return f"{named}, which is not a TrueType or OpenType font with outlines; choose another."
    return ""
