"""The content of a price, apart from its time and names: read from rows, compared, and written as rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db import transaction

from llm.enums import PriceSource
from llm.models import CatalogVersion, Price, Rate, RateSet
from llm.models.catalog import TOKENS_PER_PRICE
from llm.prices.pricing import priced_service
from llm.types import Service

if TYPE_CHECKING:
    from django.contrib.auth.models import User

RateSetKey = tuple[Service, int]
"""(service, min_prompt_tokens)"""


@dataclass(frozen=True, slots=True)
class RateValue:
    """USD per this many units, with at most 6 decimals."""

    amount: Decimal
    per_units: int = TOKENS_PER_PRICE


@dataclass(frozen=True)
class PriceTerms:
    """rate_sets: rates by meter; empty if is_free. note: for people, ignored in comparisons.

    Two are equal if every call costs the same, whatever words name its service (`priced_service`).
    """

    rate_sets: Mapping[RateSetKey, Mapping[str, RateValue]] = field(compare=False)
    match: Mapping[str, Any] | None = None
    is_free: bool = False
    context_window: int | None = None
    unpriced_meters: tuple[str, ...] = ()
    note: str = field(default="", compare=False)
    _priced: Mapping[RateSetKey, Mapping[str, RateValue]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        priced = {(priced_service(service), size): rates for (service, size), rates in self.rate_sets.items()}
        object.__setattr__(self, "_priced", priced)


@dataclass(frozen=True)
class NewPrice:
    provider: str
    model: str
    effective_from: datetime
    source: PriceSource
    content: PriceTerms
    created_by: User | None = None


def content_of(price: Price) -> PriceTerms:
    """Reads `rate_sets` and their `rates`: prefetch them for many prices."""
    return PriceTerms(
        rate_sets={
            (rate_set.service, rate_set.min_prompt_tokens): {
                rate.meter: RateValue(rate.amount, rate.per_units) for rate in rate_set.rates.all()
            }
            for rate_set in price.rate_sets.all()
            if not price.is_free
        },
        match=price.match,
        is_free=price.is_free,
        context_window=price.context_window,
        unpriced_meters=tuple(price.unpriced_meters),
        note=price.note,
    )


def lock_catalog() -> None:
    """Only one writer of prices may compare and write at a time; held to the end of the transaction."""
    CatalogVersion.ensure()
    CatalogVersion.objects.select_for_update().get(pk=1)


@transaction.atomic
def write_prices(new_prices: Iterable[NewPrice]) -> list[Price]:
    """Insert prices with their rate sets and rates, all or none, and raise the catalog's version."""
    new_prices = list(new_prices)
    prices = Price.objects.bulk_create([_price_row(new) for new in new_prices])
    rate_sets: list[RateSet] = []
    rates: list[Rate] = []
    for price, new in zip(prices, new_prices, strict=True):
        for (service, min_prompt_tokens), values in new.content.rate_sets.items():
            rate_set = RateSet(price=price, min_prompt_tokens=min_prompt_tokens, **service._asdict())
            rate_sets.append(rate_set)
            rates += [
                Rate(rate_set=rate_set, meter=meter, amount=value.amount, per_units=value.per_units)
                for meter, value in values.items()
            ]
    RateSet.objects.bulk_create(rate_sets)
    Rate.objects.bulk_create(rates)
    return prices


def _price_row(new: NewPrice) -> Price:
    content = new.content
    return Price(
        provider=new.provider,
        model=new.model,
        match=content.match,
        effective_from=new.effective_from,
        source=new.source,
        is_free=content.is_free,
        note=content.note,
        context_window=content.context_window,
        unpriced_meters=list(content.unpriced_meters),
        created_by=new.created_by,
    )
