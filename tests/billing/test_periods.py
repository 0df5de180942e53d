"""Months, as people write them."""

from __future__ import annotations

from datetime import date

import pytest

from billing.periods import BillingPeriod, Third


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-10", date(2026, 10, 1), date(2026, 11, 1)),
        (" 2026-12 ", date(2026, 12, 1), date(2027, 1, 1)),
        ("2000-01", date(2000, 1, 1), date(2000, 2, 1)),
        ("2999-12", date(2999, 12, 1), date(3000, 1, 1)),
    ],
)
def test_a_month_is_read_with_its_ends(text: str, start: date, end: date) -> None:
    period = BillingPeriod.parse(text)
    assert (period.start, period.end, str(period)) == (start, end, text.strip())
    assert period.following.previous == period


@pytest.mark.parametrize("text", ["", "2026", "2026-13", "2026-1", "26-10", "2026-10-01", "\uff12026-10", "2026-10\0"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a month such as 2026-10"):
        BillingPeriod.parse(text)


@pytest.mark.parametrize("text", ["0000-01", "0001-01", "1999-12", "3000-01", "9999-12"])
def test_a_month_at_the_calendars_end_is_refused_where_it_is_read(text: str) -> None:
    """Its neighbours could not be reckoned with."""
    with pytest.raises(ValueError, match=f"“{text}” is not a month from 2000-01 to 2999-12"):
        BillingPeriod.parse(text)


@pytest.mark.parametrize(
    ("year", "month", "firsts_and_lasts"),
    [
        (2026, 10, [(1, 10), (11, 20), (21, 31)]),
        (2026, 9, [(1, 10), (11, 20), (21, 30)]),
        (2026, 2, [(1, 10), (11, 20), (21, 28)]),
        (2028, 2, [(1, 10), (11, 20), (21, 29)]),
    ],
)
def test_each_day_of_a_month_is_in_one_of_its_thirds(
    year: int, month: int, firsts_and_lasts: list[tuple[int, int]]
) -> None:
    period = BillingPeriod(date(year, month, 1))
    for day in period.days:
        first, last = Third.of(day)
        assert first <= day <= last
    thirds = sorted({Third.of(day) for day in period.days})
    assert [(third.first.day, third.last.day) for third in thirds] == firsts_and_lasts
