"""How a call's cost came about, as a sum: units of each class times its price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from llm.admin.prices.rate_tables import meter_name, unit_name
from llm.admin.usage.corrections import CorrectedCall
from llm.models import Rate
from llm.money import format_usd, pico_to_usd
from llm.prices.pricing import REQUESTS, token_meters


@dataclass(frozen=True, slots=True)
class CostTerm:
    """units times price is cost."""

    meter: str
    units: int
    price: str
    unit: str
    cost: Decimal


def cost_terms(known: CorrectedCall) -> Sequence[CostTerm]:
    """With all corrections. Empty where no rates gave the cost: it is unpriced, free, or was decided otherwise."""
    rate_set_id, counts = known.figures.rate_set_id, known.figures.counts
    if rate_set_id is None or known.figures.cost_pico is None:
        return ()
    rates = {rate.meter: rate for rate in Rate.objects.filter(rate_set=rate_set_id).order_by("id")}
    units: defaultdict[str, int] = defaultdict(int)
    for meter, number in (*token_meters(counts, rates), *counts.extra_meters.items()):
        units[meter] += number
    if REQUESTS in rates:
        units[REQUESTS] = 1
    used = {meter: number for meter, number in units.items() if number}
    if not used.keys() <= rates.keys():
        return ()
    if sum(number * rates[meter].pico_per_unit for meter, number in used.items()) != known.figures.cost_pico:
        return ()
    return [_term(rates[meter], number) for meter, number in used.items()]


def _term(rate: Rate, units: int) -> CostTerm:
    cost = pico_to_usd(units * rate.pico_per_unit)
    return CostTerm(meter_name(rate), units, f"${format_usd(rate.amount)}", unit_name(rate), cost)
