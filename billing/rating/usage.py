"""The usage of a month -> lines by model: at the plan's fixed prices, or at cost and its markup."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import groupby

from billing.rating.cost import lines_at_cost
from billing.rating.fixed import lines_at_fixed_prices, prices_for
from billing.rating.sums import ordered_sums
from billing.types import ChargeLine, PlanTerms, UsageSum


def usage_lines(
    usage: Sequence[UsageSum], terms: PlanTerms, *, charge_per_usd: Decimal, decimals: int
) -> list[ChargeLine]:
    """By model, provider, rates and meter. charge_per_usd: what a USD of cost is charged at."""
    lines: list[ChargeLine] = []
    for model, group in groupby(ordered_sums(usage), key=lambda sums: sums.model):
        if prices := prices_for(model, terms.fixed_prices):
            lines += lines_at_fixed_prices(list(group), prices, decimals=decimals)
        else:
            for sums in group:
                lines += lines_at_cost(sums, charge_per_usd=charge_per_usd, decimals=decimals)
    return lines
