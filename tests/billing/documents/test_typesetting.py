from __future__ import annotations

import pytest

from billing.documents.typesetting import clusters, direction_of, needs_shaping, printable, wrap

BUNDLED = frozenset(map(ord, "abcdefghijklmnopqrstuvwxyzÉé -/.□\u0301שג"))
GLYPHS = BUNDLED | {ord("漢")}


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
        ("ש", "ש"),
        ("漢 ab", "漢 ab"),
        ("a\u200db\u202ec\u00ad", "abc"),
        # Joiners and marks of direction shape what is beside them; overrides are left out of any text.
        ("ש\u200c\u200fג\u202eab\u2066", "ש\u200c\u200fגab"),
        ("漢\U000e0100", "漢"),
        ("\U0001f468\u200d\U0001f469", "□□"),
    ],
)
def test_what_cannot_be_shown_is_replaced_visibly(text: str, shown: str) -> None:
    assert printable(text, glyphs=GLYPHS, bundled=BUNDLED) == shown


@pytest.mark.parametrize(
    ("text", "is_shaped"),
    [("café bar", False), ("ab □", False), ("ab\u0301", False), ("a ש", True), ("漢", True), ("ກ", True)],
)
def test_only_what_needs_it_is_shaped(text: str, is_shaped: bool) -> None:
    assert needs_shaping(text, bundled=BUNDLED | {ord("ກ")}) is is_shaped


@pytest.mark.parametrize(
    ("text", "direction"),
    [("", "ltr"), ("12 (3)", "ltr"), ("Acme שלום", "ltr"), ("12 שלום Acme", "rtl"), ("(شركة) Acme", "rtl")],
)
def test_first_letter_gives_the_direction(text: str, direction: str) -> None:
    assert direction_of(text) == direction


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
