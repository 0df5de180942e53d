"""What holds of any usage under any plan, up to 10**12 tokens a figure, in currencies of 0, 2 and 3 decimals."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.currencies import DECIMALS
from billing.enums import LineKind, TierMode
from billing.rating import difference, rate
from billing.types import ChargeLine, FixedPrice, PlanTerms, Tier, UsageSum
from llm.enums import Meter
from llm.prices.pricing import token_meters
from llm.types import TOKEN_FIELDS, TokenCounts
from tests.billing.rating_figures import terms as make_terms

pytestmark = pytest.mark.slow

MAX_TOKENS = 10**12
METERS = [meter.value for meter in Meter]
# A rate set has the same rates wherever it turns up; the last one has only what every model has.
RATES: dict[int, dict[str, int]] = {
    1: {meter: 1_250_001 + 7 * position for position, meter in enumerate(METERS)},
    2: {**{meter: 10**position for position, meter in enumerate(METERS)}, "requests": 5_000_003},
    3: {"input": 2_500_000, "output": 10_000_000},
}

tokens = st.integers(0, MAX_TOKENS) | st.integers(0, 2000)

examples = settings(max_examples=30)


def decimals_of(places: int, least: int, most: int) -> st.SearchStrategy[Decimal]:
    return st.integers(least * 10**places, most * 10**places).map(lambda units: Decimal(units).scaleb(-places))


@st.composite
def usages(draw: st.DrawFn) -> UsageSum:
    """Figures as they are, and as corrections can leave them: parts needn't fit their totals, cost its rates."""
    figures: dict[str, Any] = {name: draw(tokens) for name in TOKEN_FIELDS}
    rate_set_id = draw(st.sampled_from([None, 1, 2, 3]))
    calls = draw(st.integers(1, 10**9))
    return UsageSum(
        provider=draw(st.sampled_from(["openai", "a|b", "a"])),
        model=draw(st.sampled_from(["gpt-4o", "gpt-4o-mini", "b|gpt-4o", "o3"])),
        rate_set_id=rate_set_id,
        calls=calls,
        counts=TokenCounts(**figures),
        cost_pico=draw(st.integers(-(10**6), 10**21) | st.just(0)),
        rates=RATES.get(rate_set_id or 0, {}),
        unpriced_calls=draw(st.integers(0, calls)) if rate_set_id is None else 0,
        digest=(draw(st.integers(-(2**31), 2**31 - 1)),) * 8,
    )


@st.composite
def fixed_prices(draw: st.DrawFn) -> tuple[FixedPrice, ...]:
    prices: list[FixedPrice] = []
    for pattern in draw(st.lists(st.sampled_from(["gpt-*", "o3", "*4o", "*"]), unique=True, max_size=3)):
        extra = draw(st.sets(st.sampled_from(METERS)))
        for meter in sorted({"input", "output"} | extra):
            starts = [0, *sorted(draw(st.sets(tokens.filter(bool), max_size=3)))]
            tiers = tuple(Tier(start, draw(decimals_of(6, 0, 1000))) for start in starts)
            prices.append(FixedPrice(pattern, meter, draw(st.sampled_from(TierMode)), tiers))
    return tuple(prices)


@st.composite
def plans(draw: st.DrawFn) -> tuple[PlanTerms, Decimal | None, int]:
    """Terms, the rate of exchange and the currency's decimals."""
    currency = draw(st.sampled_from(["USD", "JPY", "KWD"]))
    amounts = decimals_of(6, 0, 10_000) | st.just(Decimal(0))
    terms = make_terms(
        currency,
        markup_percent=draw(decimals_of(4, -100, 300)),
        flat_fee=draw(amounts),
        minimum_commitment=draw(amounts),
        allowance_tokens=draw(tokens),
        allowance_amount=draw(amounts),
        discount_percent=draw(decimals_of(4, 0, 100)),
        fixed_prices=draw(fixed_prices()),
    )
    per_usd = None if currency == "USD" else draw(decimals_of(6, 1, 200))
    return terms, per_usd, DECIMALS[currency]


def rated(usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]) -> tuple[ChargeLine, ...]:
    terms, per_usd, decimals = plan
    return rate(usage, terms, per_usd=per_usd, decimals=decimals)


def exact(values: Any) -> Fraction:
    return sum((Fraction(value) for value in values), Fraction(0))


def by_key(*parts: tuple[ChargeLine, ...]) -> dict[str, tuple[Any, ...]]:
    """Exact amount, quantity, cost, calls and digest, added up; without what is nothing."""
    sums: dict[str, list[Any]] = defaultdict(lambda: [Fraction(0), 0, 0])
    for line in (line for part in parts for line in part):
        figures = sums[line.key]
        for position, value in enumerate((Fraction(line.exact_amount), line.quantity or 0, line.cost_pico)):
            figures[position] += value
    return {key: tuple(figures) for key, figures in sums.items() if any(figures)}


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_amounts_and_residuals_are_the_exact_amounts(
    usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    lines = rated(usage, plan)
    half = Fraction(1, 2 * 10 ** plan[2])
    assert exact(line.exact_amount for line in lines) == exact(line.amount for line in lines) + exact(
        line.residual for line in lines
    )
    assert all(abs(Fraction(line.residual)) <= half for line in lines)
    assert all(line.amount.as_tuple().exponent == -plan[2] for line in lines)


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_a_unit_price_gives_its_lines_amount_exactly(
    usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    for line in rated(usage, plan):
        if line.unit_price is not None:
            assert line.quantity is not None
            assert Fraction(line.exact_amount) == Fraction(line.unit_price) * line.quantity / 10**6


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_usage_at_cost_is_the_cost_times_its_markup(
    usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    terms = replace(plan[0], fixed_prices=())
    lines = [line for line in rated(usage, (terms, *plan[1:])) if line.kind == LineKind.USAGE]
    markup = 1 + Fraction(terms.markup_percent) / 100
    cost = Fraction(sum(sums.cost_pico for sums in usage), 10**12)
    assert exact(line.exact_amount for line in lines) == cost * markup * Fraction(plan[1] or 1)


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_no_cost_is_lost_or_counted_twice(usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]) -> None:
    assert sum(line.cost_pico for line in rated(usage, plan)) == sum(sums.cost_pico for sums in usage)


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_every_token_stands_on_exactly_one_usage_line(
    usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    lines = [line for line in rated(usage, plan) if line.meter in METERS]
    charged = sum(line.quantity or 0 for line in lines)
    assert charged == sum(units for sums in usage for _, units in token_meters(sums.counts, sums.rates))
    assert charged == sum(sums.counts.total_tokens for sums in usage)


@examples
@given(st.lists(usages(), max_size=6).flatmap(lambda usage: st.tuples(st.just(usage), st.permutations(usage))), plans())
def test_the_same_usage_gives_the_same_lines_in_whatever_order(
    orders: tuple[list[UsageSum], list[UsageSum]], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    lines = rated(orders[0], plan)
    again = rated(orders[1], plan)
    assert again == lines
    assert repr(again) == repr(lines)


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_keys_are_unique_and_texts_fit_their_columns(
    usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    lines = rated(usage, plan)
    assert len({line.key for line in lines}) == len(lines)
    assert all(len(line.key) <= 500 and len(line.description) <= 300 for line in lines)


@examples
@given(st.lists(usages(), max_size=4), st.lists(usages(), max_size=4), plans())
def test_what_was_billed_and_the_difference_are_all_that_is_due(
    billed: list[UsageSum], late: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    before, now = rated(billed, plan), rated(billed + late, plan)
    late_lines = difference(now, before, decimals=plan[2])
    assert by_key(before, late_lines) == by_key(now)
    assert by_key(before, late_lines, difference(before, now, decimals=plan[2])) == by_key(before)


@examples
@given(st.lists(usages(), max_size=3), st.lists(usages(), max_size=3), st.lists(usages(), max_size=3), plans())
def test_late_usage_that_is_billed_in_two_goes_comes_to_the_same(
    first: list[UsageSum], second: list[UsageSum], third: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    before = rated(first, plan)
    then = difference(rated(first + second, plan), before, decimals=plan[2])
    now = rated(first + second + third, plan)
    last = difference(now, (*before, *then), decimals=plan[2])
    assert by_key(before, then, last) == by_key(now)
    assert difference(now, (*before, *then, *last), decimals=plan[2]) == ()


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_usage_is_never_charged_below_zero_by_allowance_and_discount(
    usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    usage = [
        replace(sums, counts=TokenCounts(sums.counts.prompt_tokens, sums.counts.completion_tokens), cost_pico=0)
        for sums in usage
    ]
    own = tuple(replace(sums, cost_pico=_at_rates(sums)) for sums in usage)
    lines = rated(list(own), plan)
    assert exact(line.amount for line in lines) >= 0
    assert exact(line.amount for line in lines if line.kind in (LineKind.USAGE, LineKind.ALLOWANCE)) >= 0


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_usage_is_topped_up_to_the_commitment_at_least(
    usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]
) -> None:
    plan = (replace(plan[0], minimum_commitment=plan[0].minimum_commitment + 1), *plan[1:])
    due = exact(line.amount for line in rated(usage, plan) if line.kind != LineKind.FLAT_FEE)
    assert due >= Fraction(plan[0].minimum_commitment) - Fraction(1, 2 * 10 ** plan[2])


@examples
@given(st.lists(usages(), max_size=6), plans())
def test_no_figure_of_a_line_is_a_float(usage: list[UsageSum], plan: tuple[PlanTerms, Decimal | None, int]) -> None:
    for line in rated(usage, plan):
        figures = [getattr(line, each.name) for each in fields(ChargeLine)]
        assert not [figure for figure in (*figures, *line.digest, line.residual) if isinstance(figure, float)]


def _at_rates(sums: UsageSum) -> int:
    fees = sums.rates.get("requests", 0) * sums.calls
    return fees + sum(units * sums.rates.get(meter, 0) for meter, units in token_meters(sums.counts, sums.rates))
