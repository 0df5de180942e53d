"""A month's lines, on however many invoices, compared with the lines that its usage yields.

A line and its differences on later invoices add up to its current amount, quantity and cost. They add up to calls and
digest too if the last of them was made at the cutoff: a difference only in calls, which used nothing, makes no line.
The unit price must match if the line is on a single invoice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import cast

from django.db.models import QuerySet

from billing.invoices.late_usage import added_lines
from billing.models import InvoiceLine
from billing.types import NO_DIGEST, ChargeLine
from llm.digests import digest_hex
from llm.money import pico_to_usd, plural


@dataclass(frozen=True, slots=True)
class _Places:
    """Where the lines of one key are. last_at: the latest cutoff of their invoices."""

    unit_prices: tuple[Decimal | None, ...]
    last_at: datetime


def problems_of_lines(
    expected: Iterable[ChargeLine],
    lines: QuerySet[InvoiceLine],
    *,
    cutoff: datetime,
    differing: Collection[tuple[str, str]],
) -> Iterator[str]:
    """expected: as of the cutoff. lines: all of the month. differing: (provider, model) whose usage isn't as billed.

    For those the usage is reported already, so calls, digests and costs of their lines aren't compared.
    """
    wanted = {line.key: line for line in expected}
    found = {line.key: line for line in added_lines(lines)}
    places = _read_places(lines)
    for key in sorted({*wanted, *found}):
        billed = found.get(key) or _nothing_of(wanted[key])
        line = wanted.get(key) or _nothing_of(billed)
        yield from _problems_of_charge(line, billed)
        if key not in found:
            continue
        if (line.provider, line.model) not in differing:
            yield from _problems_of_proof(line, billed, is_last=places[key].last_at >= cutoff)
        if key in wanted and places[key].last_at >= cutoff:
            yield from _problems_of_price(line, places[key].unit_prices)


def _read_places(lines: QuerySet[InvoiceLine]) -> dict[str, _Places]:
    rows: dict[str, list[tuple[Decimal | None, datetime]]] = defaultdict(list)
    # The database ensures that frozen invoices have a cutoff.
    for key, unit_price, cutoff_at in lines.order_by().values_list("key", "unit_price", "invoice__cutoff_at"):
        rows[key].append((unit_price, cast("datetime", cutoff_at)))
    return {
        key: _Places(tuple(unit_price for unit_price, _ in each), max(cutoff_at for _, cutoff_at in each))
        for key, each in rows.items()
    }


def _nothing_of(line: ChargeLine) -> ChargeLine:
    return replace(line, quantity=0, exact_amount=Decimal(0), cost_pico=0, calls=0, digest=NO_DIGEST)


def _problems_of_charge(line: ChargeLine, billed: ChargeLine) -> Iterator[str]:
    if billed.exact_amount != line.exact_amount:
        yield f"“{line.description}” is billed at {billed.exact_amount:f}, but should be at {line.exact_amount:f}"
    elif (billed.quantity or 0) != (line.quantity or 0):
        yield f"“{line.description}” is billed for {billed.quantity or 0:,}, but should be for {line.quantity or 0:,}"


def _problems_of_proof(line: ChargeLine, billed: ChargeLine, *, is_last: bool) -> Iterator[str]:
    if billed.cost_pico != line.cost_pico:
        costs = [pico_to_usd(each.cost_pico) for each in (billed, line)]
        yield f"“{line.description}” has a cost of {costs[0]:f} USD, but should have {costs[1]:f}"
    if not is_last:
        return
    if billed.calls != line.calls:
        yield f"“{line.description}” bills {plural(billed.calls, 'call')}, but should bill {line.calls:,}"
    digests = [digest_hex(each.digest) for each in (billed, line)]
    if digests[0] != digests[1]:
        yield f"“{line.description}” has the digest {digests[0]}, but that of its calls is {digests[1]}"


def _problems_of_price(line: ChargeLine, unit_prices: Collection[Decimal | None]) -> Iterator[str]:
    if len(unit_prices) > 1:
        return
    [unit_price] = unit_prices
    if unit_price != line.unit_price:
        yield f"“{line.description}” has the unit price {_price(unit_price)}, but should have {_price(line.unit_price)}"


def _price(unit_price: Decimal | None) -> str:
    return "none" if unit_price is None else f"{unit_price:f}"
