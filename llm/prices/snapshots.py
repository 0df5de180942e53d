"""From rows of prices to the snapshots that costs are computed with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from django.db.models import QuerySet

from llm.models import Price, Rate, RateSet
from llm.models.catalog import TOKENS_PER_PRICE
from llm.money import per_million_to_pico
from llm.prices.pricing import PriceSnapshot, RateSetSnapshot
from llm.types import Service


def load_rate_sets(rate_sets: QuerySet[RateSet]) -> Mapping[int, Sequence[RateSetSnapshot]]:
    """By the id of their price; two queries."""
    rates: dict[int, dict[str, int]] = defaultdict(dict)
    rate_rows = Rate.objects.filter(rate_set__in=rate_sets).order_by()
    for rate_set_id, meter, amount, per_units in rate_rows.values_list("rate_set_id", "meter", "amount", "per_units"):
        rates[rate_set_id][meter] = per_million_to_pico(amount) * (TOKENS_PER_PRICE // per_units)
    by_price: dict[int, list[RateSetSnapshot]] = defaultdict(list)
    for pk, price_id, min_prompt_tokens, *service in rate_sets.order_by("id").values_list(
        "id", "price_id", "min_prompt_tokens", *Service._fields
    ):
        by_price[price_id].append(RateSetSnapshot(pk, min_prompt_tokens, Service(*service), rates[pk]))
    return by_price


def build_snapshot(price: Price, rate_sets: Sequence[RateSetSnapshot]) -> PriceSnapshot:
    """effective_until is None: what ends the price depends on the requested name."""
    return PriceSnapshot(
        id=price.pk,
        provider=price.provider,
        model=price.model,
        effective_from=price.effective_from,
        effective_until=None,
        is_free=price.is_free,
        rate_sets=tuple(rate_sets),
        context_window=price.context_window,
        unpriced_meters=tuple(price.unpriced_meters),
    )


def load_snapshots(price_ids: Iterable[int]) -> dict[int, PriceSnapshot]:
    """Prices by id, as frozen on usage rows."""
    prices = Price.objects.filter(id__in=set(price_ids))
    rate_sets = load_rate_sets(RateSet.objects.filter(price__in=prices))
    return {price.pk: build_snapshot(price, rate_sets.get(price.pk, ())) for price in prices}
