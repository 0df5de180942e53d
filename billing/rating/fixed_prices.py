"""Usage at a plan's fixed prices: which price applies to a model, and its tiers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from billing.enums import TierMode
from billing.rating.lines import OTHER, Calls, usage_line
from billing.rating.sums import added_counts
from billing.types import ChargeLine, FixedPrice, Tier, UsageSum
from llm.enums import Meter
from llm.prices.pricing import token_meters

Prices = Mapping[str, FixedPrice]
"""Meter -> its price, for one model."""

_FALLBACK = {
    **dict.fromkeys(
        (Meter.CACHE_READ.value, Meter.CACHE_WRITE_5M.value, Meter.CACHE_WRITE_1H.value, Meter.AUDIO_INPUT.value),
        Meter.INPUT.value,
    ),
    **dict.fromkeys((Meter.AUDIO_OUTPUT.value, Meter.REASONING.value), Meter.OUTPUT.value),
}
"""The meter whose price is used for one that has none."""


def prices_for(model: str, fixed_prices: Sequence[FixedPrice]) -> dict[str, FixedPrice]:
    """The prices of the first pattern that matches the model's name; empty if none does."""
    pattern = next((price.pattern for price in fixed_prices if fits(price.pattern, model)), None)
    return {price.meter: price for price in fixed_prices if price.pattern == pattern}


def fits(pattern: str, name: str) -> bool:
    """Whether the pattern matches the whole name, ignoring case; `*` stands for any text, even none."""
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    *inner, last = others
    start, end = len(first), len(name) - len(last)
    if start > end or not name.startswith(first) or not name.endswith(last):
        return False
    for part in inner:
        found = name.find(part, start, end)
        if found < 0:
            return False
        start = found + len(part)
    return True


def lines_at_fixed_prices(model_sums: Sequence[UsageSum], prices: Prices, *, decimals: int) -> list[ChargeLine]:
    """model_sums: all usage of one model, by provider. One line for each provider, meter and tier.

    Tiers count the model's tokens over all providers, in the order of their lines. Units beside tokens are included.
    Raises ValueError if a meter that was used has no price, and neither does its fallback.
    """
    by_provider = [list(group) for _, group in groupby(model_sums, key=lambda sums: sums.provider)]
    used = [_quantities(sums, prices) for sums in by_provider]
    totals: Counter[str] = Counter()
    for quantities in used:
        totals.update(quantities)
    before: Counter[str] = Counter()
    lines: list[ChargeLine] = []
    for sums, quantities in zip(by_provider, used, strict=True):
        lines += _lines_of_provider(sums, quantities, prices, before=before, totals=totals, decimals=decimals)
        before.update(quantities)
    return lines


@dataclass(frozen=True, slots=True)
class Portion:
    """Tokens priced by one tier. detail: the tier's part of the line's description."""

    tier: Tier
    tokens: int
    detail: str


def portions(price: FixedPrice, *, before: int, quantity: int, total: int) -> Iterator[Portion]:
    """Which tiers price these tokens, which come after `before` others, of `total` in the month."""
    if price.mode == TierMode.VOLUME:
        reached = [tier for tier in price.tiers if tier.from_tokens < total]
        tier = reached[-1] if reached else price.tiers[0]
        yield Portion(tier, quantity, f", price after {tier.from_tokens:,}" if tier.from_tokens else "")
        return
    for tier, following in zip(price.tiers, (*price.tiers[1:], None), strict=True):
        end = following.from_tokens if following else None
        if tokens := _within(before + quantity, tier, end) - _within(before, tier, end):
            yield Portion(tier, tokens, _detail_of(tier, end))


def _within(tokens: int, tier: Tier, end: int | None) -> int:
    """How many of the first `tokens` the tier prices. Below 0 the first tier continues: it prices returned tokens."""
    if tokens <= tier.from_tokens and tier.from_tokens:
        return 0
    return (tokens if end is None else min(tokens, end)) - tier.from_tokens


def _detail_of(tier: Tier, end: int | None) -> str:
    if tier.from_tokens:
        return f", after {tier.from_tokens:,}"
    return "" if end is None else f", up to {end:,}"


def _lines_of_provider(
    sums: Sequence[UsageSum],
    quantities: Mapping[str, int],
    prices: Prices,
    *,
    before: Mapping[str, int],
    totals: Mapping[str, int],
    decimals: int,
) -> list[ChargeLine]:
    calls = Calls.of(sums)
    costs = _cost_by_meter(sums, prices)
    lines = [
        usage_line(
            calls,
            meter,
            basis=f"fixed:{portion.tier.from_tokens}",
            detail=portion.detail,
            quantity=portion.tokens,
            unit_price=portion.tier.price_per_million,
            cost_pico=costs.pop(meter, 0),
            decimals=decimals,
        )
        for meter, quantity in quantities.items()
        for portion in portions(prices[meter], before=before[meter], quantity=quantity, total=totals[meter])
    ]
    return _with_rest_of_cost(lines, sum(each.cost_pico for each in sums), calls, decimals)


def _with_rest_of_cost(lines: list[ChargeLine], cost_pico: int, calls: Calls, decimals: int) -> list[ChargeLine]:
    """Cost not explained by the meters goes to the first line; without tokens, a line for the cost alone."""
    rest = cost_pico - sum(line.cost_pico for line in lines)
    if not rest:
        return lines
    if not lines:
        return [usage_line(calls, OTHER, basis="fixed", cost_pico=rest, decimals=decimals)]
    return [replace(lines[0], cost_pico=lines[0].cost_pico + rest), *lines[1:]]


def _quantities(sums: Sequence[UsageSum], prices: Prices) -> dict[str, int]:
    """Meter with a price -> tokens, without zeros, in the meters' order."""
    quantities: Counter[str] = Counter()
    for meter, tokens in token_meters(added_counts(each.counts for each in sums), prices):
        if tokens:
            quantities[_charged_meter(meter, prices)] += tokens
    return {meter: tokens for meter, tokens in quantities.items() if tokens}


def _cost_by_meter(sums: Sequence[UsageSum], prices: Prices) -> Counter[str]:
    """Pico-units of USD by the meter that is charged for them, as far as the rates tell."""
    costs: Counter[str] = Counter()
    for each in sums:
        for meter, tokens in token_meters(each.counts, each.rates):
            if tokens:
                costs[_charged_meter(meter, prices)] += tokens * each.rates.get(meter, 0)
    return costs


def _charged_meter(meter: str, prices: Prices) -> str:
    charged = meter if meter in prices else _FALLBACK.get(meter, meter)
    if charged not in prices:
        pattern = next(iter(prices.values())).pattern
        raise ValueError(f"the fixed price of “{pattern}” has no price for {charged} tokens")
    return charged
