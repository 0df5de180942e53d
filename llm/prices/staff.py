"""Prices that staff set: for what no list has, or what they negotiated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from llm.catalog import MAX_NAME_LENGTH, load_catalog
from llm.enums import Meter, PriceSource
from llm.fields import PriceField
from llm.models import Price
from llm.prices.content import NewPrice, PriceContent, RateValue, content_of, lock_catalog, write_prices
from llm.pricing import STANDARD_SERVICE_TIERS

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_COLUMN: PriceField[Decimal, Decimal] = PriceField()
MAX_TIER_LENGTH = 50
"""As long as the column."""


class PriceRefusedError(ValueError):
    """The price can't be set; the message tells staff why."""


@transaction.atomic
def set_price(
    provider: str,
    model: str,
    *,
    effective_from: datetime,
    rates: Mapping[Meter, Decimal] | None = None,
    is_free: bool = False,
    service_tier: str = "",
    note: str = "",
    created_by: User | None = None,
) -> Price:
    """Set what the exact model costs from a moment on, in USD per million tokens, until staff set another price.

    It wins over imported prices, later ones too. `rates` replaces all token rates of its service tier, whatever their
    context tiers; what can't be said here carries over from the price in force at that moment: the other service
    tiers, rates of extra meters (web searches), the context window. Calls already recorded keep their price.
    Raises PriceRefusedError; nothing is written then.
    """
    tier = "" if service_tier in STANDARD_SERVICE_TIERS else service_tier
    _check_target(provider, model, effective_from)
    _check_rates(rates or {}, is_free=is_free, service_tier=tier)
    lock_catalog()
    _check_moment_is_vacant(provider, model, effective_from)
    current = _content_in_force(provider, model, effective_from)
    if is_free:
        content = PriceContent(rate_sets={}, is_free=True, context_window=current.context_window, note=note)
    else:
        content = _with_rates(current, tier, rates or {}, note)
    return write_prices([NewPrice(provider, model, effective_from, PriceSource.STAFF, content, created_by)])[0]


def _check_target(provider: str, model: str, effective_from: datetime) -> None:
    from llm.providers.registry import known_providers

    if provider not in known_providers():
        raise PriceRefusedError(f"“{provider}” is no provider; known are {', '.join(known_providers())}.")
    if not 0 < len(model) <= MAX_NAME_LENGTH or model != model.strip():
        raise PriceRefusedError(f"“{model}” is no model name: 1 to {MAX_NAME_LENGTH} characters, no blanks around it.")
    if timezone.is_naive(effective_from):
        raise PriceRefusedError("The moment from which the price holds needs a time zone.")


def _check_rates(rates: Mapping[Meter, Decimal], *, is_free: bool, service_tier: str) -> None:
    if is_free and (rates or service_tier):
        raise PriceRefusedError("A free model has no rates and no service tiers: give either rates or free.")
    if not is_free and not {Meter.INPUT, Meter.OUTPUT} & rates.keys():
        raise PriceRefusedError("Give a rate of input or of output tokens, or say that the model is free.")
    if len(service_tier) > MAX_TIER_LENGTH:
        raise PriceRefusedError(f"A service tier's name has at most {MAX_TIER_LENGTH} characters.")
    for meter, amount in rates.items():
        try:
            micro_usd = _COLUMN.get_prep_value(amount)
        except (TypeError, ValueError) as error:
            raise PriceRefusedError(f"The rate of {meter.label}: {error}.") from error
        if micro_usd < 0:
            raise PriceRefusedError(f"The rate of {meter.label} is negative; it must be 0 or more.")


def _check_moment_is_vacant(provider: str, model: str, effective_from: datetime) -> None:
    same_moment = Price.objects.filter(
        provider=provider, model__iexact=model, effective_from=effective_from, source=PriceSource.STAFF
    )
    if same_moment.exists():
        moment = effective_from.astimezone(UTC).isoformat(" ", "seconds")
        raise PriceRefusedError(
            f"{provider} {model} has a price from {moment} on already, and prices never change:"
            " set one from another moment on."
        )


def _content_in_force(provider: str, model: str, moment: datetime) -> PriceContent:
    snapshot = load_catalog().price_for(provider, model, at=moment)
    if snapshot is None:
        return PriceContent(rate_sets={})
    return content_of(Price.objects.get(pk=snapshot.id))


def _with_rates(current: PriceContent, tier: str, rates: Mapping[Meter, Decimal], note: str) -> PriceContent:
    if tier and ("", 0) not in current.rate_sets:
        raise PriceRefusedError(f"Set the standard price first; the one of service tier “{tier}” stands beside it.")
    replaced = current.rate_sets.get((tier, 0)) or current.rate_sets.get(("", 0), {})
    extra = {meter: rate for meter, rate in replaced.items() if meter not in Meter.values}
    others = {key: values for key, values in current.rate_sets.items() if key[0] != tier}
    own = {meter.value: RateValue(amount) for meter, amount in rates.items()}
    return replace(current, rate_sets=others | {(tier, 0): own | extra}, match=None, note=note)
