from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from billing.documents.wording import (
    one_line,
    several_lines,
    text_of_day,
    text_of_days,
    text_of_exact,
    text_of_moment,
    text_of_month,
)
from billing.periods import BillingPeriod

FEBRUARY = BillingPeriod(date(2028, 2, 1))


def test_dates_name_the_month() -> None:
    assert text_of_day(date(2026, 11, 3)) == "3 November 2026"
    assert text_of_month(FEBRUARY) == "February 2028"
    assert text_of_days(FEBRUARY) == "1\u201329 February 2028"


def test_moment_is_in_utc_and_exact() -> None:
    moment = datetime(2026, 11, 1, 5, 30, 12, 345678, tzinfo=timezone(timedelta(hours=5, minutes=45)))

    assert text_of_moment(moment) == "2026-10-31 23:45:12.345678 UTC"
    assert text_of_moment(datetime(2026, 11, 1, tzinfo=UTC)) == "2026-11-01 00:00:00 UTC"


@pytest.mark.parametrize(
    ("number", "min_decimals", "text"),
    [
        ("2.500000", 2, "2.50"),
        ("2.648737500000000000000000", 2, "2.6487375"),
        ("0.000000000000000000000001", 2, "0.000000000000000000000001"),
        ("1234567.100000", 2, "1,234,567.10"),
        ("3.000", 0, "3"),
        ("100", 0, "100"),
        ("0.000000", 3, "0.000"),
        ("-1500.25", 2, "-1,500.25"),
        ("12345678901234567890123456789012345678", 0, "12,345,678,901,234,567,890,123,456,789,012,345,678"),
    ],
)
def test_exact_number_keeps_every_digit_but_needless_zeros(number: str, min_decimals: int, text: str) -> None:
    assert text_of_exact(Decimal(number), min_decimals=min_decimals) == text


def test_typed_text_is_composed_and_its_white_space_single() -> None:
    assert one_line("  Zo\u0065\u0308 \t A\u030angstro\u0308m\n Ltd ") == "Zoë Ångström Ltd"
    assert several_lines("1 Road\r\n\r\n  London \n") == ("1 Road", "London")
    assert several_lines("") == ()
