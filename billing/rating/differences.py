"""A period's current lines less what was billed: the lines of late usage and of corrections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from billing.enums import LineKind
from billing.rating.lines import at_exact_decimals, price_of
from billing.rating.sums import added_digests
from billing.types import NO_DIGEST, ChargeLine
from llm.money import exact_arithmetic, round_half_away

TAKEN_BACK = ", billed before"
"""Added to a usage line that no longer exists: its price has changed, or all of its usage."""

_PRINTING_ORDER = {kind: position for position, kind in enumerate(LineKind)}


def difference(now: Sequence[ChargeLine], billed: Sequence[ChargeLine], *, decimals: int) -> tuple[ChargeLine, ...]:
    """By key, now less billed, in printing order; lines that were billed and no longer exist come back negative.

    billed: may have several lines per key. Exact amounts, quantities, costs, calls and digests are subtracted, and so
    are printed amounts: what was billed in parts adds up to the rounded whole. A unit price stays if it still gives the
    exact amount. Lines whose amount, quantity and cost don't differ are omitted, even if calls that used nothing were
    added.
    """
    with exact_arithmetic():
        before = _by_key(billed)
        changed = [_less(line, before.pop(line.key, None)) for line in now]
        changed += [_less(_nothing_of(line), line) for line in before.values()]
        lines = [_finished(line, decimals) for line in changed if _says_something(line)]
    return tuple(sorted(lines, key=lambda line: _PRINTING_ORDER[line.kind]))


def beside_others(lines: Sequence[ChargeLine], billed: Sequence[ChargeLine]) -> tuple[ChargeLine, ...]:
    """A difference for a whole month, in which each line says what other invoices have billed already."""
    before = _by_key(billed)
    return tuple(_beside(line, before.get(line.key)) for line in lines)


def _beside(line: ChargeLine, billed: ChargeLine | None) -> ChargeLine:
    if billed is None or line.description.endswith(TAKEN_BACK):
        return line
    what = f"{billed.quantity:,}" if billed.quantity else f"{billed.amount:,f}" if billed.exact_amount else ""
    return replace(line, description=f"{line.description}, less {what} on another invoice") if what else line


def _by_key(lines: Iterable[ChargeLine]) -> dict[str, ChargeLine]:
    """One line per key, so that one subtraction suffices."""
    added: dict[str, ChargeLine] = {}
    for line in lines:
        earlier = added.get(line.key)
        added[line.key] = line if earlier is None else _plus(earlier, line, sign=1)
    return added


def _less(line: ChargeLine, billed: ChargeLine | None) -> ChargeLine:
    return line if billed is None else _plus(line, billed, sign=-1)


def _nothing_of(line: ChargeLine) -> ChargeLine:
    quantity = None if line.quantity is None else 0
    words = TAKEN_BACK if line.kind == LineKind.USAGE else ""
    description = line.description.removesuffix(TAKEN_BACK) + words
    return replace(
        line,
        description=description,
        exact_amount=Decimal(0),
        amount=Decimal(0),
        quantity=quantity,
        cost_pico=0,
        calls=0,
        digest=NO_DIGEST,
    )


def _plus(line: ChargeLine, other: ChargeLine, *, sign: int) -> ChargeLine:
    """`line` plus `sign` times `other`, with the description of `line`."""
    has_quantity = line.quantity is not None or other.quantity is not None
    return replace(
        line,
        exact_amount=line.exact_amount + sign * other.exact_amount,
        amount=line.amount + sign * other.amount,
        quantity=(line.quantity or 0) + sign * (other.quantity or 0) if has_quantity else None,
        cost_pico=line.cost_pico + sign * other.cost_pico,
        calls=line.calls + sign * other.calls,
        digest=added_digests((line.digest, tuple(sign * word for word in other.digest))),
    )


def _says_something(line: ChargeLine) -> bool:
    return bool(line.exact_amount or line.amount or line.quantity or line.cost_pico)


def _finished(line: ChargeLine, decimals: int) -> ChargeLine:
    """decimals: of the amounts; sums are only written with that many."""
    exact, amount = at_exact_decimals(line.exact_amount), round_half_away(line.amount, decimals)
    return replace(line, exact_amount=exact, amount=amount, unit_price=_price_that_holds(line))


def _price_that_holds(line: ChargeLine) -> Decimal | None:
    if line.unit_price is None or line.quantity is None:
        return None
    return line.unit_price if price_of(line.quantity, line.unit_price) == line.exact_amount else None
