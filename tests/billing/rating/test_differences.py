"""Late usage and corrections: what is now, less what was billed."""

from dataclasses import replace
from decimal import Decimal

import pytest

from billing.enums import LineKind, TierMode
from billing.rating import difference
from billing.types import ChargeLine
from tests.billing.rating_figures import fixed, printed, rated, usage


def less(now: tuple[ChargeLine, ...], billed: tuple[ChargeLine, ...], decimals: int = 2) -> tuple[ChargeLine, ...]:
    return difference(now, billed, decimals=decimals)


def test_nothing_new_is_no_line() -> None:
    lines = rated(usage(1_000_000, 50), flat_fee="5")
    assert less(lines, lines) == ()
    assert less((), ()) == ()


def test_what_came_late_is_a_line_at_its_unit_price_with_its_own_calls() -> None:
    billed = rated(usage(1_000_000, calls=10, digest=(5,) * 8))
    now = rated(usage(1_400_000, calls=12, digest=(7, 4, 5, 5, 5, 5, 5, 5)))
    lines = less(now, billed)
    assert printed(lines) == [("gpt-4o, input tokens", 400_000, "2.5", "1.00")]
    assert (lines[0].calls, lines[0].digest, lines[0].cost_pico) == (2, (2, -1, 0, 0, 0, 0, 0, 0), 10**12)


def test_all_of_it_is_late_where_nothing_was_billed() -> None:
    now = rated(usage(1_000_000), flat_fee="5")
    assert less(now, ()) == now


def test_what_is_gone_comes_back_negative_whole() -> None:
    billed = rated(usage(1_000_000, calls=3, digest=(1,) * 8))
    (line,) = less((), billed)
    assert printed((line,)) == [("gpt-4o, input tokens, billed before", -1_000_000, "2.5", "-2.50")]
    assert (line.cost_pico, line.calls, line.digest) == (-2_500_000_000_000, -3, (-1,) * 8)


def test_halves_of_a_negative_line_are_rounded_away_from_zero() -> None:
    (line,) = less((), rated(usage(2_000)))
    assert (line.exact_amount, str(line.amount), line.residual) == (
        Decimal("-0.005"),
        "-0.01",
        Decimal("0.005"),
    )


def test_less_than_half_a_cent_is_zero_without_a_sign() -> None:
    (line,) = less((), rated(usage(1)))
    assert str(line.amount) == "0.00"


@pytest.mark.parametrize(
    ("tokens", "printed_amounts"),
    [
        # 0.0025 each time.
        ((1_000, 2_000, 3_000, 4_000, 5_000), ["0.00", "0.01", "0.00", "0.00", "0.00"]),
        # 10.005, 10.0025, 0 and 10.005.
        ((4_002_000, 4_001_000, 0, 4_002_000), ["10.01", "-0.01", "-10.00", "10.01"]),
    ],
)
def test_what_was_billed_in_parts_comes_to_what_the_whole_is_rounded_to(
    tokens: tuple[int, ...], printed_amounts: list[str]
) -> None:
    billed: tuple[ChargeLine, ...] = ()
    for each in tokens:
        billed += less(rated(usage(each)), billed)
    assert [str(line.amount) for line in billed] == printed_amounts
    assert sum(line.exact_amount for line in billed) == rated(usage(tokens[-1]))[0].exact_amount


def test_what_an_earlier_release_rounded_in_parts_is_set_right_with_the_next_difference() -> None:
    in_parts = [replace(line, amount=Decimal("0.00")) for line in rated(usage(1_000)) * 4]
    (line,) = less(rated(usage(5_000)), tuple(in_parts))
    assert (line.exact_amount, str(line.amount)) == (Decimal("0.0025"), "0.01")


def test_a_key_that_was_billed_several_times_is_subtracted_as_often() -> None:
    first, second = rated(usage(1_000_000, calls=1)), rated(usage(500_000, calls=1))
    (line,) = less(rated(usage(1_700_000, calls=3)), (*first, *second))
    assert (line.quantity, line.unit_price, line.amount, line.calls) == (200_000, Decimal("2.5"), Decimal("0.50"), 1)


def test_a_unit_price_that_no_longer_gives_the_amount_is_left_out() -> None:
    billed = tuple(replace(line, exact_amount=Decimal(2), amount=Decimal(2)) for line in rated(usage(1_000_000)))
    (line,) = less(rated(usage(1_400_000)), billed)
    assert (line.quantity, line.unit_price, line.exact_amount) == (400_000, None, Decimal("1.5"))


def test_a_volume_tier_that_was_reached_late_reprices_all() -> None:
    prices = (fixed("*", "input", (0, "4"), (1_000_000, "3"), mode=TierMode.VOLUME),)
    lines = less(rated(usage(1_200_000), fixed_prices=prices), rated(usage(900_000), fixed_prices=prices))
    assert printed(lines) == [
        ("gpt-4o, input tokens, price after 1,000,000", 1_200_000, "3", "3.60"),
        ("gpt-4o, input tokens, billed before", -900_000, "4", "-3.60"),
    ]


def test_late_usage_takes_the_place_of_a_top_up() -> None:
    lines = less(rated(usage(2_000_000), minimum_commitment="4"), rated(usage(1_000_000), minimum_commitment="4"))
    assert [(line.kind, str(line.amount)) for line in lines] == [
        (LineKind.USAGE, "2.50"),
        (LineKind.COMMITMENT, "-1.50"),
    ]


def test_late_usage_uses_up_what_is_left_of_an_allowance() -> None:
    now = rated(usage(2_000_000), allowance_tokens=1_500_000)
    lines = less(now, rated(usage(1_000_000), allowance_tokens=1_500_000))
    assert [(line.kind, line.quantity, str(line.amount)) for line in lines] == [
        (LineKind.USAGE, 1_000_000, "2.50"),
        (LineKind.ALLOWANCE, -500_000, "-1.25"),
    ]


def test_lines_stand_in_printing_order_with_usage_that_is_gone_before_other_kinds() -> None:
    billed = rated(usage(1_000_000, model="gone"), minimum_commitment="10")
    lines = less(rated(usage(1_000_000, model="new"), flat_fee="5"), billed)
    assert [line.kind for line in lines] == [LineKind.USAGE, LineKind.USAGE, LineKind.FLAT_FEE, LineKind.COMMITMENT]


def test_a_call_that_used_nothing_is_no_line() -> None:
    assert less(rated(usage(1_000, calls=2, digest=(1,) * 8)), rated(usage(1_000))) == ()


def test_a_corrected_price_is_a_line_without_quantity() -> None:
    billed = rated(usage(1_000_000))
    (line,) = less(rated(usage(1_000_000, cost_pico=2_000_000_000_000)), billed)
    assert printed((line,)) == [("gpt-4o, other usage and corrections", None, None, "-0.50")]


def test_a_cost_that_changed_alone_is_kept_though_nothing_is_charged_for_it() -> None:
    prices = (fixed("*", "input", "4"),)
    billed = rated(usage(1_000), fixed_prices=prices)
    (line,) = less(rated(usage(1_000, cost_pico=0), fixed_prices=prices), billed)
    assert (line.quantity, line.amount, line.cost_pico) == (0, Decimal(0), -2_500_000_000)
