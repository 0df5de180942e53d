"""(usage of a month, a plan's terms) -> the lines of its invoice. Pure: exact decimals, no I/O.

The same usage under the same terms gives the same lines, in whatever order it is given. docs/invoicing.md, "How a line
comes about", explains the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from billing.currencies import COST_CURRENCY
from billing.rating.cost import is_by_rate_set, rate_sets_of_line
from billing.rating.differences import beside_others, difference
from billing.rating.month import month_lines
from billing.rating.one_offs import one_off_lines
from billing.rating.usage import usage_lines
from billing.types import ChargeLine, PlanTerms, UsageSum
from llm.money import exact_arithmetic

__all__ = ("beside_others", "charge_per_usd", "difference", "one_off_lines", "rate", "rate_sets_of_line")


def rate(
    usage: Sequence[UsageSum],
    terms: PlanTerms,
    *,
    per_usd: Decimal | None,
    decimals: int,
    billed: Sequence[ChargeLine] = (),
) -> tuple[ChargeLine, ...]:
    """All lines of one period in printing order: usage, allowance, discount, flat fee, minimum commitment.

    per_usd: units of the plan's currency for one USD, at most 6 decimals; None if that is USD.
    decimals: of the currency's amounts. billed: lines of the period that were billed already; if those were one per
    rate set, so are these.
    Raises ValueError where `per_usd` doesn't suit the currency, or a fixed price lacks the meter of tokens used.
    """
    with exact_arithmetic():
        lines = usage_lines(
            usage,
            terms,
            charge_per_usd=charge_per_usd(terms, per_usd),
            decimals=decimals,
            by_rate_set=is_by_rate_set(billed),
        )
        return (*lines, *month_lines(lines, terms, decimals=decimals))


def charge_per_usd(terms: PlanTerms, per_usd: Decimal | None) -> Decimal:
    """What one USD of cost is charged at, in the plan's currency."""
    if (per_usd is None) != (terms.currency == COST_CURRENCY):
        raise ValueError(f"an exchange rate is needed for all currencies but USD: {per_usd} for {terms.currency}")
    markup = 1 + terms.markup_percent.scaleb(-2)
    return markup if per_usd is None else markup * per_usd
