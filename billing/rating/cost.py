"""Usage at cost and its markup: every meter at the rates that gave the calls their cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from billing.rating.lines import OTHER, Calls, usage_line, usd_of
from billing.types import ChargeLine, UsageSum
from llm.money import pico_to_per_million
from llm.pricing import REQUESTS, token_meters


def lines_at_cost(sums: UsageSum, *, charge_per_usd: Decimal, decimals: int) -> Iterator[ChargeLine]:
    """One line a meter, one for fees per request, and one for what those leave of the cost.

    Tokens without a rate stand there with the amount 0: of free calls, and of calls that are not priced (yet), whose
    lines say so. What a correction charged for them is among the rest.
    """
    calls = Calls.of([sums])
    basis = f"cost:{sums.rate_set_id or '-'}"
    rest = sums.cost_pico
    for meter, quantity in _quantities(sums).items():
        rate = _rate_of(meter, sums)
        cost_pico = quantity * (rate or 0)
        rest -= cost_pico
        yield usage_line(
            calls,
            meter,
            basis=basis,
            detail=_what_is_missing(sums) if rate is None else "",
            quantity=quantity,
            unit_price=None if rate is None else pico_to_per_million(rate) * charge_per_usd,
            cost_pico=cost_pico,
            decimals=decimals,
        )
    if rest:
        exact = usd_of(rest) * charge_per_usd
        yield usage_line(calls, OTHER, basis=basis, exact=exact, cost_pico=rest, decimals=decimals)


def _quantities(sums: UsageSum) -> dict[str, int]:
    """Meter -> units, those that aren't 0, in the meters' order."""
    quantities: Counter[str] = Counter()
    for meter, tokens in token_meters(sums.counts, sums.rates):
        quantities[meter] += tokens
    if sums.rates.get(REQUESTS):
        quantities[REQUESTS] = sums.calls
    return {meter: units for meter, units in quantities.items() if units}


def _rate_of(meter: str, sums: UsageSum) -> int | None:
    """Pico-units a unit. None where none is known: only calls that were all priced and cost nothing are free.

    They are so whatever rates they had before: their tokens must not use up what a plan includes.
    """
    is_free = not sums.cost_pico and not sums.unpriced_calls
    return 0 if is_free else sums.rates.get(meter)


def _what_is_missing(sums: UsageSum) -> str:
    if not sums.unpriced_calls:
        return ""
    return f", {sums.unpriced_calls:,} of {sums.calls:,} calls without a price"
