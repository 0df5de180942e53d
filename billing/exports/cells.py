"""Cell values: exact, and harmless whoever wrote them.

A spreadsheet takes a cell that begins with = + - @, or with a tab or line break, for a formula. Names of models, keys
and customers come from outside, so such text gets a leading apostrophe. Figures that we wrote ourselves stay as they
are: -1.50 is a number.
"""

from __future__ import annotations

from decimal import Decimal

from llm.money import format_usd

_BEGINS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - Excel takes the wide ones too


class Figure(str):
    """A number as text, formatted by us: exact, without exponent."""

    __slots__ = ()


Value = str | int | Decimal | None
"""Of one cell. str: text from anywhere. int: whole numbers. Decimal: money, with all of its currency's decimals."""


def exact(amount: Decimal) -> Figure:
    """All digits, no trailing zeros: 0.000002575, -12."""
    return Figure(format_usd(amount, min_decimals=0))


def harmless(text: str) -> str:
    """The text, with an apostrophe in front if a spreadsheet could take it for a formula."""
    # Some programs strip leading blanks first.
    return f"'{text}" if text.lstrip(" \u00a0").startswith(_BEGINS_A_FORMULA) else text


def text_of(value: Value) -> str:
    """For text-only formats; "" for None."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if type(value) is str:
        return harmless(value)
    return str(value)
