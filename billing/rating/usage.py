"""The usage lines of a month: each model at its fixed prices, or at cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import groupby

from billing.rating.cost import lines_at_cost, lines_by_rate_set
from billing.rating.fixed_prices import lines_at_fixed_prices, prices_for
from billing.rating.sums import ordered_sums
from billing.types import ChargeLine, PlanTerms, UsageSum


def usage_lines(
    usage: Sequence[UsageSum], terms: PlanTerms, *, charge_per_usd: Decimal, decimals: int, by_rate_set: bool
) -> list[ChargeLine]:
    """By model, provider, meter and price. charge_per_usd: what one USD of cost is charged at."""
    at_cost = lines_by_rate_set if by_rate_set else lines_at_cost
    lines: list[ChargeLine] = []
    for model, group in groupby(ordered_sums(usage), key=lambda sums: sums.model):
        if prices := prices_for(model, terms.fixed_prices):
            lines += lines_at_fixed_prices(list(group), prices, decimals=decimals)
            continue
        for _, sums in groupby(group, key=lambda sums: sums.provider):
            lines += at_cost(list(sums), charge_per_usd=charge_per_usd, decimals=decimals)
    return lines
