"""No text from outside becomes a formula; no figure of ours becomes text that isn't its digits."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing.exports.cells import Figure, exact, harmless, text_of


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\u00a0=1", "＝1", "＋1", "－1", "＠A1"],  # noqa: RUF001 - wide on purpose
)
def test_text_that_a_spreadsheet_would_take_for_a_formula_gets_an_apostrophe(text: str) -> None:
    assert harmless(text) == text_of(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "gpt-4o", "'=1", "a=1", "1-1", "|=", "  a"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_figures_are_written_digit_by_digit() -> None:
    assert text_of(Decimal("-1.50")) == "-1.50"
    assert text_of(exact(Decimal("-0.000000000000000000000001"))) == "-0.000000000000000000000001"
    assert text_of(exact(Decimal("12345678901234567890123456.500"))) == "12345678901234567890123456.5"
    assert text_of(exact(Decimal("1E+3"))) == "1000"
    assert text_of(exact(Decimal("0.00"))) == "0"
    assert (text_of(-7), text_of(0), text_of(None)) == ("-7", "0", "")
    assert isinstance(exact(Decimal(1)), Figure)
