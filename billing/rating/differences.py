"""What a period's lines are now, less what was billed of it: the lines of late usage and of corrections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from billing.enums import LineKind
from billing.rating.lines import at_exact_decimals, price_of
from billing.rating.sums import added_digests
from billing.types import NO_DIGEST, ChargeLine
from llm.money import exact_arithmetic, round_half_away

_PRINTING_ORDER = {kind: position for position, kind in enumerate(LineKind)}


def difference(now: Sequence[ChargeLine], billed: Sequence[ChargeLine], *, decimals: int) -> tuple[ChargeLine, ...]:
    """By key, now less billed, in printing order; what was billed and is no more comes back negative.

    billed: a key may come several times. Exact amounts, quantities, costs, calls and digests are subtracted, and the
    exact amount is rounded anew. A unit price stays where it still gives the exact amount. Lines without any difference
    of amount, quantity or cost are left out, though calls that used nothing may have come.
    """
    with exact_arithmetic():
        before = _by_key(billed)
        changed = [_less(line, before.pop(line.key, None)) for line in now]
        changed += [_less(_nothing_of(line), line) for line in before.values()]
        lines = [_finished(line, decimals) for line in changed if _says_something(line)]
    return tuple(sorted(lines, key=lambda line: _PRINTING_ORDER[line.kind]))


def _by_key(lines: Iterable[ChargeLine]) -> dict[str, ChargeLine]:
    """One line a key, so that subtracting it once subtracts all."""
    added: dict[str, ChargeLine] = {}
    for line in lines:
        earlier = added.get(line.key)
        added[line.key] = line if earlier is None else _plus(earlier, line, sign=1)
    return added


def _less(line: ChargeLine, billed: ChargeLine | None) -> ChargeLine:
    return line if billed is None else _plus(line, billed, sign=-1)


def _nothing_of(line: ChargeLine) -> ChargeLine:
    quantity = None if line.quantity is None else 0
    return replace(line, exact_amount=Decimal(0), quantity=quantity, cost_pico=0, calls=0, digest=NO_DIGEST)


def _plus(line: ChargeLine, other: ChargeLine, *, sign: int) -> ChargeLine:
    """`line` and `sign` times `other`; the words are those of `line`."""
    has_quantity = line.quantity is not None or other.quantity is not None
    return replace(
        line,
        exact_amount=line.exact_amount + sign * other.exact_amount,
        quantity=(line.quantity or 0) + sign * (other.quantity or 0) if has_quantity else None,
        cost_pico=line.cost_pico + sign * other.cost_pico,
        calls=line.calls + sign * other.calls,
        digest=added_digests((line.digest, tuple(sign * word for word in other.digest))),
    )


def _says_something(line: ChargeLine) -> bool:
    return bool(line.exact_amount or line.quantity or line.cost_pico)


def _finished(line: ChargeLine, decimals: int) -> ChargeLine:
    exact = at_exact_decimals(line.exact_amount)
    return replace(
        line, exact_amount=exact, amount=round_half_away(exact, decimals), unit_price=_price_that_holds(line)
    )


def _price_that_holds(line: ChargeLine) -> Decimal | None:
    if line.unit_price is None or line.quantity is None:
        return None
    return line.unit_price if price_of(line.quantity, line.unit_price) == line.exact_amount else None
