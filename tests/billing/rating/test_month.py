"""Allowance, discount, flat fee and minimum commitment: figures reckoned by hand."""

from decimal import Decimal

import pytest

from billing.enums import LineKind
from billing.types import ChargeLine
from tests.billing.rating_figures import fixed, free_usage, of_kind, rated, usage


def beside_usage(lines: tuple[ChargeLine, ...]) -> list[tuple[str, int | None, str]]:
    return [(line.description, line.quantity, str(line.amount)) for line in lines if line.kind != LineKind.USAGE]


def total(lines: tuple[ChargeLine, ...]) -> Decimal:
    return sum((line.amount for line in lines), Decimal(0))


def test_included_tokens_are_the_dearest_of_the_month() -> None:
    lines = rated(usage(1_000_000, 200_000, cache_read_tokens=400_000), allowance_tokens=500_000)
    # 200,000 at 10.00 and 300,000 at 2.50.
    assert beside_usage(lines) == [("Included allowance: 500,000 tokens", -500_000, "-2.75")]


def test_more_included_tokens_than_were_used_cover_all_of_them_to_the_cent() -> None:
    prices = [fixed("*", meter, "0.01") for meter in ("input", "cache_read", "output")]
    lines = rated(
        usage(800_000, 400_000, cache_read_tokens=400_000), allowance_tokens=10**9, fixed_prices=tuple(prices)
    )
    # Three lines of 0.004 are printed as 0.00: taking back 0.012 would give a cent away.
    assert beside_usage(lines) == [("Included allowance: 1,000,000,000 tokens", -1_200_000, "0.00")]
    assert total(lines) == 0


def test_tokens_that_cost_nothing_and_what_is_no_token_use_up_no_allowance() -> None:
    rates = {"output": 10_000_000, "requests": 99_000_000}
    sums = usage(0, 100_000, rates=rates, calls=1000, cost_pico=1_000_000_000_000 + 99_000_000_000 + 5)
    lines = rated(sums, free_usage(10**6, model="llama"), allowance_tokens=10**6)
    assert beside_usage(lines) == [("Included allowance: 1,000,000 tokens", -100_000, "-1.00")]


def test_included_tokens_take_back_no_more_of_a_model_than_it_costs() -> None:
    # Two million at 2.50, of which a million became free: 5.00 and a correction of -2.50.
    half_free = usage(2_000_000, 0, cost_pico=2_500_000_000_000)
    lines = rated(half_free, allowance_tokens=2_000_000)
    assert beside_usage(lines) == [("Included allowance: 2,000,000 tokens", -2_000_000, "-2.50")]
    assert total(lines) == 0


def test_calls_that_became_free_use_up_no_allowance() -> None:
    lines = rated(usage(1_000_000, 0, cost_pico=0), allowance_tokens=1_000_000)
    assert [(line.quantity, line.amount) for line in lines] == [(1_000_000, Decimal(0))]


def test_of_equal_prices_the_first_line_is_covered_first() -> None:
    lines = rated(usage(100, model="a"), usage(100, model="b"), allowance_tokens=100)
    (line,) = of_kind(lines, LineKind.ALLOWANCE)
    assert line.exact_amount == 0  # All of a's line, which is printed as 0.00.


def test_an_included_amount_covers_usage_up_to_itself() -> None:
    assert beside_usage(rated(usage(4_000_000), allowance_amount="6.50")) == [
        ("Included allowance: 6.50 USD", None, "-6.50")
    ]
    assert beside_usage(rated(usage(1_000_000), allowance_amount="6.50")) == [
        ("Included allowance: 6.50 USD", None, "-2.50")
    ]
    assert beside_usage(rated(allowance_amount="6.50", allowance_tokens=1000)) == []


def test_an_included_amount_covers_what_included_tokens_left() -> None:
    lines = rated(usage(4_000_000), allowance_tokens=3_000_000, allowance_amount="100")
    assert [text for _, _, text in beside_usage(lines)] == ["-7.50", "-2.50"]
    assert total(lines) == 0


def test_a_discount_is_on_what_the_allowance_leaves_as_printed() -> None:
    lines = rated(usage(4_001_000), allowance_amount="5", discount_percent="12.5")
    # 10.0025 is printed as 10.00: 12.5% of 5.00 is 0.625.
    (discount,) = of_kind(lines, LineKind.DISCOUNT)
    assert (discount.exact_amount, discount.amount, discount.residual) == (
        Decimal("-0.625"),
        Decimal("-0.63"),
        Decimal("0.005"),
    )
    assert discount.description == "Discount of 12.5% on usage"


def test_a_whole_discount_leaves_nothing() -> None:
    assert total(rated(usage(1_234_567, 77), discount_percent="100.0000")) == 0


def test_usage_below_the_commitment_is_topped_up_after_allowance_and_discount() -> None:
    lines = rated(usage(4_000_000), allowance_amount="2", discount_percent="10", minimum_commitment="20", flat_fee="5")
    assert beside_usage(lines) == [
        ("Included allowance: 2.00 USD", None, "-2.00"),
        ("Discount of 10% on usage", None, "-0.80"),
        ("Monthly fee", None, "5.00"),
        ("Top-up to the minimum commitment of 20.00 USD", None, "12.80"),
    ]
    assert total(lines) == 25


@pytest.mark.parametrize("commitment", ["9.99", "10.00"])
def test_usage_that_reaches_the_commitment_is_not_topped_up(commitment: str) -> None:
    assert beside_usage(rated(usage(4_000_000), minimum_commitment=commitment)) == []


def test_an_account_without_usage_pays_its_fee_and_commitment() -> None:
    lines = rated(flat_fee="49.90", minimum_commitment="500", discount_percent="10", allowance_tokens=10)
    assert beside_usage(lines) == [
        ("Monthly fee", None, "49.90"),
        ("Top-up to the minimum commitment of 500.00 USD", None, "500.00"),
    ]
    assert [line.key for line in lines] == ["flat_fee", "commitment"]


@pytest.mark.parametrize(
    ("currency", "decimals", "fee", "amount"),
    [("JPY", 0, "980.5", "981"), ("EUR", 2, "49.905", "49.91"), ("KWD", 3, "1.2345", "1.235")],
)
def test_fees_are_in_the_plans_currency_and_rounded_as_it_is(
    currency: str, decimals: int, fee: str, amount: str
) -> None:
    (line,) = rated(currency=currency, decimals=decimals, flat_fee=fee, per_usd="3")
    assert (str(line.amount), line.exact_amount) == (amount, Decimal(fee))


def test_lines_beside_usage_stand_for_no_calls() -> None:
    lines = rated(usage(4_000_000, calls=7), allowance_tokens=1, flat_fee="1", minimum_commitment="100")
    assert {line.calls for line in lines[1:]} == {0}
    assert {line.cost_pico for line in lines[1:]} == {0}
