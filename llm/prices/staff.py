"""Prices set by staff: for models missing from every list, or with negotiated prices."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from llm.enums import Meter, PriceSource
from llm.fields import PriceField
from llm.models import Price, RateSet
from llm.prices.catalog import MAX_NAME_LENGTH, load_catalog
from llm.prices.matching import STAR, is_pattern, pattern_clause
from llm.prices.pricing import STANDARD, priced_service, unusual_words, without_standard_words
from llm.prices.terms import NewPrice, PriceTerms, RateValue, content_of, lock_catalog, write_prices
from llm.providers.registry import booked_providers
from llm.types import Service

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_UNIT_NAME = re.compile(r"[a-z][a-z0-9_]{0,49}")
_COLUMN: PriceField[Decimal, Decimal] = PriceField()


class PriceRefusedError(ValueError):
    """The price can't be set; the message tells staff why."""


@transaction.atomic
def set_price(
    provider: str,
    model: str,
    *,
    effective_from: datetime,
    rates: Mapping[Meter, Decimal] | None = None,
    per_thousand: Mapping[str, Decimal] | None = None,
    is_free: bool = False,
    service: Service = STANDARD,
    note: str = "",
    created_by: User | None = None,
) -> Price:
    """Set what a model costs from a moment on, in USD per million tokens, until staff set another price.

    model: exactly this name; with one *, all names of that form (`ft:gpt-4.1-*`) that staff haven't priced themselves.

    It takes precedence over imported prices, later ones too. `rates` replaces all token rates of that service, in all
    its context tiers; everything else carries over from the price in force at that moment: other services, rates of
    extra meters, the context window. Calls already recorded keep their price.
    per_thousand: extra meters (`web_searches`) -> USD per thousand of their units.
    Raises PriceRefusedError; nothing is written then.
    """
    service = without_standard_words(service)
    _check_target(provider, model, effective_from)
    _check_rates(rates or {}, per_thousand or {}, is_free=is_free, service=service)
    lock_catalog()
    _check_moment_is_vacant(provider, model, effective_from)
    current = _content_in_force(provider, model, effective_from)
    if is_free:
        content = PriceTerms(rate_sets={}, is_free=True, context_window=current.context_window, note=note)
    else:
        content = _with_rates(current, service, _rate_values(rates or {}, per_thousand or {}), note)
    if is_pattern(model):
        content = replace(content, match=pattern_clause(model))
    return write_prices([NewPrice(provider, model, effective_from, PriceSource.STAFF, content, created_by)])[0]


def _check_target(provider: str, model: str, effective_from: datetime) -> None:
    if provider not in (known := booked_providers()):
        raise PriceRefusedError(f"“{provider}” is not a provider; choose one of {', '.join(known)}.")
    if not 0 < len(model) <= MAX_NAME_LENGTH or model != model.strip():
        raise PriceRefusedError(
            f"“{model}” is not a valid model name: 1 to {MAX_NAME_LENGTH} characters, without leading or "
            "trailing spaces."
        )
    if model.count(STAR) > 1:
        raise PriceRefusedError(f"“{model}” contains several *: one may stand for any characters.")
    if timezone.is_naive(effective_from):
        raise PriceRefusedError("The time from which the price applies needs a time zone.")


def _check_rates(
    rates: Mapping[Meter, Decimal], per_thousand: Mapping[str, Decimal], *, is_free: bool, service: Service
) -> None:
    if is_free and (rates or per_thousand or any(service)):
        raise PriceRefusedError(
            "A free model has no rates, and no service tier, speed or region: give either rates or “free”."
        )
    if not is_free and not {Meter.INPUT, Meter.OUTPUT} & rates.keys():
        raise PriceRefusedError("Give an input or output token rate, or mark the model as free.")
    for name, word in service._asdict().items():
        longest = getattr(RateSet._meta.get_field(name), "max_length", None) or 0
        if len(word) > longest:
            raise PriceRefusedError(f"The {name.replace('_', ' ')} can have at most {longest} characters.")
    for meter in per_thousand:
        if not _UNIT_NAME.fullmatch(meter) or meter in Meter.values:
            raise PriceRefusedError(
                f"“{meter}” is not a valid name for non-token units: up to 50 lowercase letters, digits and "
                "underscores."
            )
    for name, amount in (*((meter.label, amount) for meter, amount in rates.items()), *per_thousand.items()):
        try:
            micro_usd = _COLUMN.get_prep_value(amount)
        except (TypeError, ValueError) as error:
            raise PriceRefusedError(f"The rate of {name}: {error}.") from error
        if micro_usd < 0:
            raise PriceRefusedError(f"The rate of {name} is negative; it must be 0 or more.")


def _check_moment_is_vacant(provider: str, model: str, effective_from: datetime) -> None:
    same_moment = Price.objects.filter(
        provider=provider, model__iexact=model, effective_from=effective_from, source=PriceSource.STAFF
    )
    if same_moment.exists():
        moment = effective_from.astimezone(UTC).isoformat(" ", "seconds")
        raise PriceRefusedError(
            f"{provider} {model} already has a price from {moment}, and a price can't be changed: set one that starts "
            "at another time."
        )


def _content_in_force(provider: str, model: str, moment: datetime) -> PriceTerms:
    snapshot = load_catalog().price_for(provider, model, at=moment)
    if snapshot is None:
        return PriceTerms(rate_sets={})
    return content_of(Price.objects.get(pk=snapshot.id))


def _rate_values(rates: Mapping[Meter, Decimal], per_thousand: Mapping[str, Decimal]) -> dict[str, RateValue]:
    of_tokens = {meter.value: RateValue(amount) for meter, amount in rates.items()}
    return of_tokens | {meter: RateValue(amount, 1000) for meter, amount in per_thousand.items()}


def _with_rates(current: PriceTerms, service: Service, rates: Mapping[str, RateValue], note: str) -> PriceTerms:
    if any(service) and (STANDARD, 0) not in current.rate_sets:
        raise PriceRefusedError(
            f"Set the standard price first; the one for {', '.join(unusual_words(service))} is added to it."
        )
    same = {
        key: values for key, values in current.rate_sets.items() if priced_service(key[0]) == priced_service(service)
    }
    others = {key: values for key, values in current.rate_sets.items() if key not in same}
    replaced = next((values for (_, size), values in same.items() if not size), None)
    if replaced is None:
        replaced = current.rate_sets.get((STANDARD, 0), {})
    extra = {meter: rate for meter, rate in replaced.items() if meter not in Meter.values}
    rate_sets = others | {(service, 0): {**extra, **rates}}
    return replace(current, rate_sets=rate_sets, is_free=False, match=None, note=note)
