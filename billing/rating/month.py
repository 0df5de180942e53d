"""What a month's invoice has beside its usage: allowance, discount, flat fee and minimum commitment.

All of it is computed from the printed lines, so that readers can add the invoice up and full coverage leaves not a
cent.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from billing.enums import LineKind
from billing.rating.lines import month_line, price_of
from billing.types import ChargeLine, PlanTerms
from llm.enums import Meter
from llm.money import exact_sum, format_usd, round_half_away

_TOKEN_METERS = frozenset(Meter.values)


def month_lines(usage: Sequence[ChargeLine], terms: PlanTerms, *, decimals: int) -> list[ChargeLine]:
    """usage: all usage lines. Lines of amount 0 are omitted."""
    lines: list[ChargeLine] = []
    lines += _included_tokens(usage, terms, decimals)
    lines += _included_amount(_printed((*usage, *lines)), terms, decimals)
    lines += _discount(_printed((*usage, *lines)), terms, decimals)
    net = _printed((*usage, *lines))
    lines += _flat_fee(terms, decimals)
    lines += _top_up(net, terms, decimals)
    return lines


def _included_tokens(usage: Sequence[ChargeLine], terms: PlanTerms, decimals: int) -> Iterator[ChargeLine]:
    """The most expensive tokens of the month, at the prices of their lines; a fully covered line at its printed amount.

    Never more than the model costs: a correction may have taken back what its tokens are listed at.
    """
    left = terms.allowance_tokens
    covered = Decimal(0)
    worth = _worth_by_model(usage)
    for line, quantity, unit_price in _dearest_first(usage):
        taken = min(left, quantity)
        amount = line.amount if taken == quantity else price_of(taken, unit_price)
        amount = min(amount, worth[line.provider, line.model])
        worth[line.provider, line.model] -= amount
        covered += amount
        left -= taken
    if taken_in_all := terms.allowance_tokens - left:
        description = f"Included allowance: {terms.allowance_tokens:,} tokens"
        yield month_line(
            LineKind.ALLOWANCE,
            "allowance|tokens",
            description,
            -covered,
            quantity=-taken_in_all,
            decimals=decimals,
        )


def _worth_by_model(usage: Iterable[ChargeLine]) -> dict[tuple[str, str], Decimal]:
    """What the lines of each provider's model add up to; at least 0."""
    amounts: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for line in usage:
        amounts[line.provider, line.model] += line.amount
    return defaultdict(Decimal, {model: max(amount, Decimal(0)) for model, amount in amounts.items()})


def _dearest_first(usage: Iterable[ChargeLine]) -> list[tuple[ChargeLine, int, Decimal]]:
    """Lines of tokens that cost something, with quantity and unit price; equal prices in the invoice's order."""
    charged = [
        (line, line.quantity, line.unit_price)
        for line in usage
        if line.quantity is not None and line.quantity > 0 and line.unit_price and line.meter in _TOKEN_METERS
    ]
    return sorted(charged, key=lambda item: -item[2])


def _included_amount(usage: Decimal, terms: PlanTerms, decimals: int) -> Iterator[ChargeLine]:
    covered = min(terms.allowance_amount, usage)
    if covered > 0:
        description = f"Included allowance: {_money(terms.allowance_amount, terms, decimals)}"
        yield month_line(LineKind.ALLOWANCE, "allowance|amount", description, -covered, decimals=decimals)


def _discount(usage: Decimal, terms: PlanTerms, decimals: int) -> Iterator[ChargeLine]:
    discount = usage * terms.discount_percent.scaleb(-2)
    if discount:
        description = f"Discount of {format_usd(terms.discount_percent, min_decimals=0)}% on usage"
        yield month_line(LineKind.DISCOUNT, "discount", description, -discount, decimals=decimals)


def _flat_fee(terms: PlanTerms, decimals: int) -> Iterator[ChargeLine]:
    if terms.flat_fee:
        yield month_line(LineKind.FLAT_FEE, "flat_fee", "Monthly fee", terms.flat_fee, decimals=decimals)


def _top_up(net: Decimal, terms: PlanTerms, decimals: int) -> Iterator[ChargeLine]:
    """net: usage after allowance and discount."""
    missing = terms.minimum_commitment - net
    if terms.minimum_commitment and missing > 0:
        description = f"Top-up to the minimum commitment of {_money(terms.minimum_commitment, terms, decimals)}"
        yield month_line(LineKind.COMMITMENT, "commitment", description, missing, decimals=decimals)


def _printed(lines: Iterable[ChargeLine]) -> Decimal:
    return exact_sum(line.amount for line in lines)


def _money(amount: Decimal, terms: PlanTerms, decimals: int) -> str:
    return f"{round_half_away(amount, decimals):,f} {terms.currency}"
