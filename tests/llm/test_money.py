from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.money import (
    PICO,
    format_usd,
    parse_usd_per_million,
    per_million_to_pico,
    pico_to_per_million,
    pico_to_usd,
    round_half_away,
    usd_to_pico,
)


def test_a_price_per_million_is_whole_pico_units_a_token() -> None:
    assert per_million_to_pico(Decimal("2.50")) == 2_500_000
    assert per_million_to_pico(Decimal("0.000001")) == 1
    assert pico_to_per_million(2_500_000) == Decimal("2.5")


def test_a_price_of_seven_decimals_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 6 decimals"):
        per_million_to_pico(Decimal("0.0000001"))


def test_usd_of_thirteen_decimals_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 12 decimals"):
        usd_to_pico(Decimal("1e-13"))


@pytest.mark.parametrize("amount", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_what_is_not_finite_is_no_amount(amount: str) -> None:
    with pytest.raises(ValueError, match="finite"):
        usd_to_pico(Decimal(amount))


@given(st.integers(min_value=-(10**38), max_value=10**38))
def test_pico_units_survive_the_way_to_usd_and_back(pico: int) -> None:
    assert usd_to_pico(pico_to_usd(pico)) == pico
    assert usd_to_pico(Decimal(format_usd(pico_to_usd(pico)))) == pico


def test_a_dollar_has_a_million_million_pico_units() -> None:
    assert usd_to_pico(Decimal(1)) == PICO == 10**12


@pytest.mark.parametrize(
    ("text", "price"),
    [("2.50", "2.5"), ("0", "0"), ("10", "10"), (" .15 ", "0.15"), ("3.", "3"), ("0.000001", "0.000001"), ("-0", "0")],
)
def test_prices_are_read_as_people_type_them(text: str, price: str) -> None:
    assert parse_usd_per_million(text) == Decimal(price)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a plain number"),
        ("1e3", "not a plain number"),
        ("2,50", "not a plain number"),
        ("NaN", "not a plain number"),
        ("Infinity", "not a plain number"),
        ("1_000", "not a plain number"),
        ("٣", "not a plain number"),
        ("$3", "not a plain number"),
        ("-1", "negative"),
        ("0.0000001", "more than 6 decimals"),
        ("9" * 200, "more than 6 decimals|more digits"),
    ],
)
def test_what_is_no_price_is_refused_with_a_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_usd_per_million(text)


@pytest.mark.parametrize(
    ("amount", "rounded"),
    [("0.005", "0.01"), ("0.015", "0.02"), ("-0.005", "-0.01"), ("0.0049999999999", "0.00"), ("1", "1.00")],
)
def test_halves_are_rounded_away_from_zero(amount: str, rounded: str) -> None:
    assert str(round_half_away(Decimal(amount), 2)) == rounded


def test_rounding_keeps_more_digits_than_pythons_default_context() -> None:
    assert round_half_away(Decimal("123456789012345678901234567890.125"), 2) == Decimal(
        "123456789012345678901234567890.13"
    )


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0.00"),
        ("0E-12", "0.00"),
        ("-0.000", "0.00"),
        ("2.5", "2.50"),
        ("0.000000150000", "0.00000015"),
        ("1E+3", "1000.00"),
        ("-1.234", "-1.234"),
    ],
)
def test_amounts_are_printed_exactly_and_without_exponent(amount: str, text: str) -> None:
    assert format_usd(Decimal(amount)) == text
