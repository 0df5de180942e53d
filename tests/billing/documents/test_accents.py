from __future__ import annotations

import pytest

from billing.documents.accents import Box, MarkRun, runs_of

GRAVE, MACRON, DOT_BELOW, CEDILLA = "\u0300", "\u0304", "\u0323", "\u0327"
BOXES = {
    "x": Box(0.0, 0.0, 0.6, 0.5),
    "E": Box(0.1, 0.0, 0.5, 0.7),
    "g": Box(0.0, -0.2, 0.6, 0.5),
    GRAVE: Box(-0.4, 0.6, -0.2, 0.8),
    MACRON: Box(-0.4, 0.6, -0.2, 0.7),
    DOT_BELOW: Box(-0.35, -0.2, -0.25, -0.1),
    CEDILLA: Box(-0.4, -0.2, -0.2, 0.0),
}


def runs(line: str) -> list[MarkRun]:
    rounded = (MarkRun(run.text, run.before, round(run.x, 6), round(run.y, 6)) for run in runs_of(line, box_of=_box))
    return list(rounded)


def _box(char: str) -> Box:
    return BOXES[char]


def test_line_without_marks_is_one_run() -> None:
    assert runs("Exxg") == [MarkRun("Exxg", "")]
    assert runs("") == []


def test_mark_on_a_small_letter_is_only_centered() -> None:
    assert runs(f"xx{GRAVE}x") == [MarkRun("xx", ""), MarkRun(GRAVE, "x", 0.6, 0.0), MarkRun("x", "xx")]


@pytest.mark.slow
def test_mark_on_a_capital_is_raised_above_it() -> None:
    assert runs(f"E{GRAVE}") == [MarkRun("E", ""), MarkRun(GRAVE, "", 0.6, 0.2)]


def test_second_mark_stands_on_the_first() -> None:
    first, second = runs(f"x{GRAVE}{MACRON}")[1:]

    assert first.y == 0.0
    assert 0.6 + second.y == pytest.approx(0.8 + 0.06)


def test_marks_below_and_above_do_not_move_each_other() -> None:
    assert [run.y for run in runs(f"E{DOT_BELOW}{GRAVE}")] == [0, 0.0, 0.2]


def test_mark_below_goes_under_a_descender() -> None:
    assert runs(f"g{DOT_BELOW}")[1].y == -0.2


def test_attached_mark_stays_where_the_font_has_it() -> None:
    assert runs(f"E{CEDILLA}")[1].y == 0.0
