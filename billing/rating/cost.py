"""Usage at cost and its markup: every meter at the rates that priced the calls.

There is one line for each unit price of a meter, from however many imports and tiers it comes. Months that were billed
with separate lines for each rate set keep those: lines are rounded one by one, so different lines would come to
different amounts, and so would what is computed from their printed amounts (docs/decisions/0027).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from billing.periods import month_name
from billing.rating.lines import OTHER, Calls, basis_of, usage_line, usd_of
from billing.types import ChargeLine, UsageSum
from llm.enums import Meter
from llm.money import format_usd, pico_to_per_million
from llm.prices.pricing import REQUESTS, priced_service, token_meters

_ORDER = (
    *(Meter.INPUT, Meter.CACHE_READ, Meter.CACHE_WRITE_5M, Meter.CACHE_WRITE_1H, Meter.AUDIO_INPUT),
    *(Meter.OUTPUT, Meter.AUDIO_OUTPUT, Meter.REASONING, REQUESTS, OTHER),
)
AT_PRICE, OF_RATE_SET = "cost@", "cost:"
"""How the basis in a line's key begins: lines by price, and lines by rate set."""


@dataclass(frozen=True, slots=True)
class _Share:
    """One meter of one rate set's calls. unit_price: None if no rate is known, and for the rest of the cost."""

    sums: UsageSum
    meter: str
    cost_pico: int
    quantity: int | None = None
    unit_price: Decimal | None = None

    @property
    def basis(self) -> str:
        """For the line's key: the price that is charged, not our own rates, since customers see keys in exports."""
        return AT_PRICE + ("-" if self.unit_price is None else format_usd(self.unit_price, min_decimals=0))

    @property
    def basis_of_rate_set(self) -> str:
        return f"{OF_RATE_SET}{self.sums.rate_set_id or '-'}"


def lines_at_cost(model_sums: Sequence[UsageSum], *, charge_per_usd: Decimal, decimals: int) -> Iterator[ChargeLine]:
    """model_sums: all usage of one provider's model. One line per meter and unit price, and one for the rest of the
    cost; each stands for the calls of all rate sets that it adds up.

    Tokens without a rate get amount 0: those of free calls, and of calls without a price yet, whose lines say so. What
    a correction charged for them is in the rest.
    """
    groups: dict[tuple[str, str], list[_Share]] = {}
    for share in _shares(model_sums, charge_per_usd):
        groups.setdefault((share.meter, share.basis), []).append(share)
    for (meter, basis), shares in sorted(groups.items(), key=lambda item: _ORDER.index(item[0][0])):
        beside = [each for (other, name), each in groups.items() if (other == meter) and name != basis]
        detail = _what_for(shares) + _when(shares, beside) + _what_is_missing(shares)
        line = _line(shares, basis=basis, detail=detail, charge_per_usd=charge_per_usd, decimals=decimals)
        # Corrections of two imports may cancel out.
        if line.quantity or line.cost_pico:
            yield line


def lines_by_rate_set(
    model_sums: Sequence[UsageSum], *, charge_per_usd: Decimal, decimals: int
) -> Iterator[ChargeLine]:
    """`lines_at_cost` in its earlier form: separate lines for each rate set."""
    for share in _shares(model_sums, charge_per_usd):
        detail, basis = _what_is_missing([share]), share.basis_of_rate_set
        yield _line([share], basis=basis, detail=detail, charge_per_usd=charge_per_usd, decimals=decimals)


def rate_sets_of_line(
    model_sums: Iterable[UsageSum], *, meter: str, basis: str, charge_per_usd: Decimal
) -> dict[int | None, tuple[int, int]]:
    """Which of a model's rate sets such a line adds up, with the quantity and the cost in pico-units of each."""
    return {
        share.sums.rate_set_id: (share.quantity or 0, share.cost_pico)
        for share in _shares(model_sums, charge_per_usd)
        if share.meter == meter and basis in (share.basis, share.basis_of_rate_set)
    }


def is_by_rate_set(lines: Iterable[ChargeLine]) -> bool:
    """Whether a month that was billed with these lines keeps separate lines for each rate set."""
    return any(
        basis_of(line.key).startswith(OF_RATE_SET)
        for line in lines
        if line.exact_amount or line.quantity or line.cost_pico
    )


def _shares(model_sums: Iterable[UsageSum], charge_per_usd: Decimal) -> Iterator[_Share]:
    """By rate set, then by meter."""
    for sums in model_sums:
        rest = sums.cost_pico
        for meter, quantity in _quantities(sums).items():
            rate = _rate_of(meter, sums)
            cost_pico = quantity * (rate or 0)
            rest -= cost_pico
            price = None if rate is None else pico_to_per_million(rate) * charge_per_usd
            yield _Share(sums, meter, cost_pico, quantity, price)
        if rest:
            yield _Share(sums, OTHER, rest)


def _line(shares: Sequence[_Share], *, basis: str, detail: str, charge_per_usd: Decimal, decimals: int) -> ChargeLine:
    """shares: of one meter and unit price, so that their sum is exactly the sum of the single charges."""
    first, cost_pico = shares[0], sum(share.cost_pico for share in shares)
    is_rest = first.meter == OTHER
    return usage_line(
        Calls.of([share.sums for share in shares]),
        first.meter,
        basis=basis,
        detail=detail,
        quantity=None if is_rest else sum(share.quantity or 0 for share in shares),
        unit_price=first.unit_price,
        exact=usd_of(cost_pico) * charge_per_usd if is_rest else None,
        cost_pico=cost_pico,
        decimals=decimals,
    )


def _quantities(sums: UsageSum) -> dict[str, int]:
    """Meter -> units, without zeros, in the meters' order."""
    quantities: Counter[str] = Counter()
    for meter, tokens in token_meters(sums.counts, sums.rates):
        quantities[meter] += tokens
    if sums.rates.get(REQUESTS):
        quantities[REQUESTS] = sums.calls
    return {meter: units for meter, units in quantities.items() if units}


def _rate_of(meter: str, sums: UsageSum) -> int | None:
    """Pico-units per unit; None if unknown. Only calls that were all priced and cost nothing are free.

    Those are free whatever rates they had before: their tokens must not use up what a plan includes.
    """
    is_free = not sums.cost_pico and not sums.unpriced_calls
    return 0 if is_free else sums.rates.get(meter)


# --- What a line says beside its meter --------------------------------------------------------------------------------


def _what_for(shares: Iterable[_Share]) -> str:
    """What distinguishes a price from the standard one; "" if the line combines both."""
    words = {_words(share.sums) for share in shares if share.unit_price is not None}
    return words.pop() if len(words) == 1 else ""


def _words(sums: UsageSum) -> str:
    tier, speed, place = priced_service(sums.service)
    found = (
        tier and f"{tier} tier",
        speed and f"{speed} speed",
        place and f"in {place}",
        f"prompts of {sums.min_prompt_tokens:,} tokens or more" if sums.min_prompt_tokens else "",
    )
    return "".join(f", {each}" for each in found if each)


def _when(shares: Sequence[_Share], beside: Iterable[Sequence[_Share]]) -> str:
    """The days of the calls, if other calls were charged another price for the same. In the account's own calendar."""
    words = _what_for(shares)
    rivals = [each for each in beside if each[0].unit_price is not None and _what_for(each) == words]
    days = [share.sums.days for share in shares if share.sums.days is not None]
    if not rivals or not days or shares[0].unit_price is None:
        return ""
    return f", {_text_of_days(min(first for first, _ in days), max(last for _, last in days))}"


def _text_of_days(first: date, last: date) -> str:
    """Within one month: `1 to 11 October`."""
    end = f"{last.day} {month_name(last)}"
    return end if first == last else f"{first.day} to {end}"


def _what_is_missing(shares: Sequence[_Share]) -> str:
    unpriced, calls = (sum(getattr(share.sums, name) for share in shares) for name in ("unpriced_calls", "calls"))
    is_priced = shares[0].unit_price is not None or shares[0].meter == OTHER
    return f", {unpriced:,} of {calls:,} calls without a price" if unpriced and not is_priced else ""
