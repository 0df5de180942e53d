"""Values as they stand in cells: exact, and harmless whoever wrote them.

A spreadsheet takes a cell for a formula when it begins with = + - @ or with a tab or line break before them. Names of
models, keys and customers come from outside, so such text gets an apostrophe in front. Figures that we wrote ourselves
are left alone: -1.50 is a number.
"""

from __future__ import annotations

from decimal import Decimal

from llm.money import format_usd

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - Excel takes the wide ones too


class Figure(str):
    """A number as text, written by us: exact, without exponent."""

    __slots__ = ()


Value = str | int | Decimal | None
"""Of one cell. str: anybody's text. int: whole numbers. Decimal: money, with all of its currency's decimals."""


def exact(amount: Decimal) -> Figure:
    """All of its digits, no needless zeros: 0.000002575, -12."""
    return Figure(format_usd(amount, min_decimals=0))


def harmless(text: str) -> str:
    """As text that no spreadsheet takes for a formula."""
    # Some programs strip blanks before they look.
    return f"'{text}" if text.lstrip(" \u00a0").startswith(_BEGINS_A_FORMULA) else text


def text_of(value: Value) -> str:
    """For files of text alone; "" for nothing."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if type(value) is str:
        return harmless(value)
    return str(value)
