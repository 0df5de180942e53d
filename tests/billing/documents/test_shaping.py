"""The order of pieces on paper, as Unicode's bidirectional algorithm has it. Letters א ב ג stand for any such word."""

from __future__ import annotations

import pytest

from billing.documents.shaping import BidiRun, pieces_from_left, runs_from_left
from billing.documents.typesetting import Direction


def on_paper(line: str, direction: Direction) -> str:
    """Each run as a reader sees it from left to right."""
    runs = runs_from_left(line, direction)
    return "".join(run.text[::-1] if run.direction == "rtl" else run.text for run in runs)


@pytest.mark.parametrize(
    ("line", "direction", "seen"),
    [
        ("abc 12", "ltr", "abc 12"),
        ("אבג", "ltr", "גבא"),
        ("plan אבג 3, monthly fee", "ltr", "plan 3 גבא, monthly fee"),
        ("אבג 12, בג 3", "rtl", "3 גב ,12 גבא"),
        ("אבג Acme 77", "rtl", "Acme 77 גבא"),
        ("אבג (Acme) 77", "ltr", "גבא (Acme) 77"),
        ("א 1,234.50 ב", "rtl", "ב 1,234.50 א"),
        ("سعر ١٢٣ كم", "rtl", "مك ١٢٣ رعس"),
        ("IBAN אב DE02 12", "ltr", "IBAN בא DE02 12"),
        ("א\u200cב", "ltr", "ב\u200cא"),
    ],
)
def test_words_run_their_way_and_numbers_keep_their_order(line: str, direction: Direction, seen: str) -> None:
    assert on_paper(line, direction) == seen


@pytest.mark.parametrize("line", ["a\u0301אב 12 ג,", " א ", "א\t1\n2 b", "☃" * 3, ") (א", "\u0301א"])
@pytest.mark.parametrize("direction", ["ltr", "rtl"])
def test_nothing_is_lost_by_ordering(line: str, direction: Direction) -> None:
    assert sorted(on_paper(line, direction)) == sorted(line)


def fonts_of(char: str) -> list[str]:
    return [font for font, chars in (("main", "abא \u0301"), ("other", "漢\u0301\u20dd")) if char in chars] or ["main"]


@pytest.mark.parametrize(
    ("text", "level", "pieces"),
    [
        ("ab", 0, [("ab", "main")]),
        ("a漢b", 0, [("a", "main"), ("漢", "other"), ("b", "main")]),
        ("א漢", 1, [("漢", "other"), ("א", "main")]),
        # A mark is drawn with its letter where that font has it, and is never dropped.
        ("漢\u0301a\u0301", 0, [("漢\u0301", "other"), ("a\u0301", "main")]),
        ("a\u20dd", 0, [("a", "main"), ("\u20dd", "other")]),
        ("漢\u200d漢", 0, [("漢\u200d漢", "other")]),
        ("\u0301", 0, [("\u0301", "main")]),
    ],
)
def test_a_run_is_drawn_in_pieces_of_one_font(text: str, level: int, pieces: list[tuple[str, str]]) -> None:
    assert pieces_from_left(BidiRun(text, level), fonts_of=fonts_of) == pieces
