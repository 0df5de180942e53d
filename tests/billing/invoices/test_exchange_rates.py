"""Rates of exchange: which one holds on a day, and what is refused."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from billing.invoices.exchange_rates import NoExchangeRate, add_rate, rate_on
from billing.models import ExchangeRate
from tests.billing.factories import make_user

pytestmark = pytest.mark.django_db


def add(per_usd: str, on: date, currency: str = "EUR") -> ExchangeRate:
    return add_rate(currency, Decimal(per_usd), on=on, source="ECB reference rate")


@pytest.mark.parametrize(
    ("day", "per_usd"),
    [(date(2026, 10, 30), "0.91"), (date(2026, 10, 31), "0.92"), (date(2027, 5, 1), "0.92")],
)
def test_the_latest_rate_of_a_day_or_before_it_holds(day: date, per_usd: str) -> None:
    add("0.92", date(2026, 10, 31))
    add("0.91", date(2026, 10, 1))
    add("155", date(2026, 10, 31), "JPY")
    assert rate_on("EUR", day).per_usd == Decimal(per_usd)


def test_a_correction_of_the_same_day_holds_and_the_first_one_stays() -> None:
    first, second = add("0.29", date(2026, 10, 31)), add("0.92", date(2026, 10, 31))
    assert rate_on("EUR", date(2026, 10, 31)) == second
    assert set(ExchangeRate.objects.all()) == {first, second}


def test_without_a_rate_by_then_the_day_and_the_currency_are_named() -> None:
    add("0.92", date(2026, 11, 1))
    add("155", date(2026, 10, 1), "JPY")
    with pytest.raises(NoExchangeRate, match="no exchange rate for EUR on or before 2026-10-31: set one"):
        rate_on("EUR", date(2026, 10, 31))


def test_a_rate_says_who_set_it_and_where_it_is_from() -> None:
    user = make_user("ada")
    add_rate("KWD", Decimal("0.307151"), on=date(2026, 10, 31), source=" Central Bank of Kuwait ", user=user)
    rate = ExchangeRate.objects.get()
    assert (rate.currency, rate.per_usd, rate.on) == ("KWD", Decimal("0.307151"), date(2026, 10, 31))
    assert (rate.source, rate.created_by) == ("Central Bank of Kuwait", user)


@pytest.mark.parametrize(
    "wrong",
    [
        {"currency": "USD"},
        {"currency": "eur"},
        {"per_usd": Decimal(0)},
        {"per_usd": Decimal("-0.92")},
        {"per_usd": Decimal("0.9200001")},
        {"per_usd": Decimal("NaN")},
        {"per_usd": Decimal(10_000_001)},
        {"per_usd": 0.92},
        {"source": "  "},
    ],
)
def test_what_is_no_rate_is_refused(wrong: dict[str, Any]) -> None:
    facts = {"currency": "EUR", "per_usd": Decimal("0.92"), "source": "ECB reference rate", **wrong}
    with pytest.raises(ValidationError):
        add_rate(facts["currency"], facts["per_usd"], on=date(2026, 10, 31), source=facts["source"])
    assert not ExchangeRate.objects.exists()
