"""Amounts of limits, as people write and read them."""

from __future__ import annotations

import re
from decimal import Decimal

from llm.enums import LimitMetric
from llm.models import Limit
from llm.money import format_usd, from_units, to_units

COST_DECIMALS = 6
MAX_UNITS = 10**15
"""A trillion tokens, a billion USD: far above any intended limit, far below where a column overflows."""
LONGEST_TEXT = 40
_WHOLE = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?:_\d{3})+|\d+"
_WHOLE_NUMBER = re.compile(_WHOLE, re.ASCII)
_USD = re.compile(rf"\$? ?(?:{_WHOLE})(?:\.\d+)?|\$? ?\.\d+", re.ASCII)


def parse_amount(metric: str, text: str) -> int:
    """A limit's amount in its units: whole requests, whole tokens, or micro-units of USD.

    Thousands may be separated (1,000,000 or 1_000_000); a cost is in USD (12.50), with at most 6 decimals. Raises
    ValueError with a message for people.
    """
    text = text.strip()
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"“{text[:LONGEST_TEXT]}…” is too long for an amount")
    units = _parse_usd(text) if metric == LimitMetric.COST else _parse_whole(text)
    if units > MAX_UNITS:
        raise ValueError(f"“{text}” is higher than a limit can be; omit the limit instead")
    return units


def amount_digits(metric: str, units: int) -> str:
    """In the form that `parse_amount` reads: 1,000,000 or 12.50."""
    if metric != LimitMetric.COST:
        return f"{units:,}"
    whole, _, fraction = format_usd(from_units(units, COST_DECIMALS)).partition(".")
    return f"{int(whole):,}.{fraction}"


def format_limit_amount(metric: str, units: int) -> str:
    """1,000,000 tokens, 1 request, $12.50."""
    digits = amount_digits(metric, units)
    if metric == LimitMetric.COST:
        return f"${digits}"
    name = LimitMetric(metric).label
    return f"{digits} {name.removesuffix('s') if units == 1 else name}"


def describe_limit(limit: Limit) -> str:
    """1,000,000 tokens per month; with whom it is for, if that is each end user."""
    whose = " for each end user" if limit.is_per_end_user else ""
    return f"{format_limit_amount(limit.metric, limit.amount)} {limit.get_per_display()}{whose}"


def _parse_whole(text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError(f"“{text}” is not a whole number such as 60 or 1,000,000")
    return int(_plain(text))


def _parse_usd(text: str) -> int:
    if not _USD.fullmatch(text):
        raise ValueError(f"“{text}” is not an amount in USD such as 12.50")
    try:
        return to_units(Decimal(_plain(text.lstrip("$ "))), COST_DECIMALS)
    except ValueError as error:
        raise ValueError(f"“{text}” has more than {COST_DECIMALS} decimals") from error


def _plain(text: str) -> str:
    return text.replace(",", "").replace("_", "")
