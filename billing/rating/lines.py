"""How a line is built: its key, its single rounding, and the calls that it stands for.

Decimals are multiplied with plain operators here, inside `llm.money.exact_arithmetic`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.enums import LineKind
from billing.rating.sums import added_digests
from billing.types import EXACT_DECIMALS, EXACT_DIGITS, ChargeLine, UsageSum
from llm.enums import Meter
from llm.money import PICO_DECIMALS, PRICE_DECIMALS, from_units, round_half_away, to_units
from llm.prices.pricing import REQUESTS

OTHER = "other"
"""The meter of what a model's other lines don't cover: web searches and the like, and corrections."""

_LABELS = {
    **{meter.value: str(meter.label) for meter in Meter},
    Meter.REASONING.value: "reasoning tokens",
    REQUESTS: "requests",
    OTHER: "other usage and corrections",
}
_MAX_NAME = 150


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one model that lines stand for."""

    provider: str
    model: str
    calls: int
    digest: tuple[int, ...]

    @classmethod
    def of(cls, sums: Sequence[UsageSum]) -> Calls:
        """sums: of one provider's model, at least one."""
        digest = added_digests(each.digest for each in sums)
        return cls(sums[0].provider, sums[0].model, sum(each.calls for each in sums), digest)


def usage_line(
    calls: Calls,
    meter: str,
    *,
    basis: str,
    detail: str = "",
    quantity: int | None = None,
    unit_price: Decimal | None = None,
    exact: Decimal | None = None,
    cost_pico: int = 0,
    decimals: int,
) -> ChargeLine:
    """A line of one meter. exact: if it isn't quantity x unit price. basis: which rates or tier, for the key."""
    if exact is None:
        exact = Decimal(0) if quantity is None or unit_price is None else price_of(quantity, unit_price)
    exact = at_exact_decimals(exact)
    return ChargeLine(
        key=_key_of(meter, basis, calls),
        kind=LineKind.USAGE,
        description=f"{_shortened(calls.model)}, {_LABELS[meter]}{detail}",
        exact_amount=exact,
        amount=round_half_away(exact, decimals),
        quantity=quantity,
        unit_price=None if unit_price is None else at_exact_decimals(unit_price),
        provider=calls.provider,
        model=calls.model,
        meter=meter,
        cost_pico=cost_pico,
        calls=calls.calls,
        digest=calls.digest,
    )


def month_line(
    kind: LineKind, key: str, description: str, exact: Decimal, *, quantity: int | None = None, decimals: int
) -> ChargeLine:
    """A line that isn't usage: a fee, an allowance and the like."""
    exact = at_exact_decimals(exact)
    return ChargeLine(key, kind, description, exact, round_half_away(exact, decimals), quantity=quantity)


def price_of(quantity: int, unit_price: Decimal) -> Decimal:
    """unit_price: per million."""
    return (quantity * unit_price).scaleb(-PRICE_DECIMALS)


def usd_of(cost_pico: int) -> Decimal:
    return from_units(cost_pico, PICO_DECIMALS)


def at_exact_decimals(value: Decimal) -> Decimal:
    """The same number with 24 decimals, so that equal figures are equal texts. Raises ValueError beyond them."""
    units = to_units(value, EXACT_DECIMALS)
    if abs(units) >= 10**EXACT_DIGITS:
        raise ValueError(f"{value:f} is more than a line can hold")
    return from_units(units, EXACT_DECIMALS)


def _key_of(meter: str, basis: str, calls: Calls) -> str:
    """Unambiguous: the model's name, which may contain anything, comes last, and the provider's is escaped.

    It must fit its column, and escaping all names could make it too long.
    """
    provider = calls.provider.replace("\\", "\\\\").replace("|", "\\|")
    return f"{LineKind.USAGE.value}|{meter}|{basis}|{provider}|{calls.model}"


def basis_of(key: str) -> str:
    """Part of a usage line's key: which rates, price or tier it stands for; "" for other lines."""
    kind, _, rest = key.partition("|")
    _, _, rest = rest.partition("|")
    return rest.partition("|")[0] if kind == LineKind.USAGE.value else ""


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
