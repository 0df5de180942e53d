from __future__ import annotations

import pytest

from billing.documents.typesetting import clusters, printable, wrap

GLYPHS = frozenset(map(ord, "abcdefghijklmnopqrstuvwxyzÉé -/.\u0301ש"))


def per_character(text: str) -> float:
    """Each is one wide, combining marks are nothing."""
    return float(sum(char != "\u0301" for char in text))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café bar", "café bar"),
        ("株式会社 ab", "□□□□ ab"),
        ("ab 😀", "ab □"),
        ("a\x00b", "a□b"),
        # The font has the letter, but nobody puts it in its place.
        ("ש", "□"),
        ("a\u200db\u202ec\u00ad", "abc"),
    ],
)
def test_what_cannot_be_shown_is_replaced_visibly(text: str, shown: str) -> None:
    assert printable(text, glyphs=GLYPHS) == shown


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ("",)),
        ("one", ("one",)),
        ("one two three", ("one two", "three")),
        ("exactly ten", ("exactly", "ten")),
        ("0123456789", ("0123456789",)),
        ("0123456789ab", ("0123456789", "ab")),
        ("of abcdefghijklmn", ("of", "abcdefghij", "klmn")),
        ("openai/gpt-large-model", ("openai/", "gpt-large-", "model")),
        ("a-b-c-d-e-f-g", ("a-b-c-d-e-", "f-g")),
    ],
)
def test_lines_break_at_spaces_else_inside_a_word(text: str, lines: tuple[str, ...]) -> None:
    assert wrap(text, 10, measure=per_character) == lines


def test_nothing_is_lost_by_wrapping() -> None:
    text = "a bc def " * 20 + "x" * 57

    lines = wrap(text, 7, measure=per_character)

    assert all(per_character(line) <= 7 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_accent_stays_with_its_letter() -> None:
    assert list(clusters("xe\u0301\u0301y")) == ["x", "e\u0301\u0301", "y"]
    assert wrap("x\u0301" * 12, 5, measure=per_character) == ("x\u0301" * 5, "x\u0301" * 5, "x\u0301" * 2)


def test_character_wider_than_the_line_has_one_of_its_own() -> None:
    assert wrap("abc", 0.5, measure=per_character) == ("a", "b", "c")
