"""All rates of a price, as tables."""

from __future__ import annotations

from dataclasses import dataclass

from llm.enums import Meter
from llm.models import Price, Rate, RateSet
from llm.models.catalog import TOKENS_PER_PRICE
from llm.money import format_usd
from llm.types import Service

_METER_ORDER = {meter.value: position for position, meter in enumerate(Meter)}


@dataclass(frozen=True, slots=True)
class RateRow:
    meter: str
    amount: str
    unit: str


@dataclass(frozen=True, slots=True)
class RateTable:
    title: str
    rows: tuple[RateRow, ...]


def rate_tables(price: Price) -> tuple[RateTable, ...]:
    """One table per rate set: the standard service first, then by tier and size."""
    return () if price.is_free else tuple(rate_table(rate_set) for rate_set in price.rate_sets.all())


def rate_table(rate_set: RateSet) -> RateTable:
    return RateTable(_title(rate_set), _rows(rate_set))


def _title(rate_set: RateSet) -> str:
    size = rate_set.min_prompt_tokens
    name = service_name(rate_set.service)
    return f"{name}, requests of {size:,} prompt tokens and more" if size else name


def service_name(service: Service) -> str:
    """For example: Service tier “priority”, speed “fast”."""
    labels = zip(("service tier", "speed", "inference geo"), service, strict=True)
    named = ", ".join(f"{label} “{word}”" for label, word in labels if word) or "standard service"
    return named[0].upper() + named[1:]


def _rows(rate_set: RateSet) -> tuple[RateRow, ...]:
    rates = sorted(rate_set.rates.all(), key=lambda rate: (_METER_ORDER.get(rate.meter, 99), rate.meter))
    return tuple(RateRow(meter_name(rate), f"${format_usd(rate.amount)}", unit_name(rate)) for rate in rates)


def meter_name(rate: Rate) -> str:
    if rate.meter in Meter.values:
        return str(Meter(rate.meter).label)
    return rate.meter.replace("_", " ")


def unit_name(rate: Rate) -> str:
    what = "tokens" if rate.meter in Meter.values else "units"
    names = {TOKENS_PER_PRICE: f"per million {what}", 1000: f"per thousand {what}", 1: "each"}
    return names.get(rate.per_units, f"per {rate.per_units:,}")
