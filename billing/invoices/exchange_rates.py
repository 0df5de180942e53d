"""Exchange rates: written once, with their day and source. A correction is a later row for the same day."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from billing.errors import NotBillableError
from billing.models import ExchangeRate

if TYPE_CHECKING:
    from django.contrib.auth.models import User


class NoExchangeRate(NotBillableError):
    """No rate of a currency is known for a day or before it."""


def rate_on(currency: str, day: date) -> ExchangeRate:
    """The latest rate on or before that day; among those of one day, the one written last. Raises NoExchangeRate."""
    rate = ExchangeRate.objects.filter(currency=currency, on__lte=day).order_by("-on", "-id").first()
    if rate is None:
        raise NoExchangeRate(f"There is no exchange rate for {currency} on or before {day}: set one.")
    return rate


def add_rate(currency: str, per_usd: Decimal, *, on: date, source: str, user: User | None = None) -> ExchangeRate:
    """per_usd: units of the currency for one USD, more than 0, at most 6 decimals. Raises ValidationError."""
    rate = ExchangeRate(currency=currency, per_usd=per_usd, on=on, source=source.strip(), created_by=user)
    rate.full_clean()
    rate.save(force_insert=True)
    return rate
