"""Fixed prices, patterns and tiers: figures reckoned by hand."""

from typing import Any

import pytest

from billing.enums import TierMode
from billing.rating.fixed_prices import fits
from billing.types import ChargeLine, FixedPrice
from tests.billing.rating_figures import fixed, free_usage, printed, rated, usage

PLAIN = (fixed("gpt-*", "input", "4"), fixed("gpt-*", "output", "16"))
TIERS = ((0, "4"), (1_000_000, "3"), (5_000_000, "2"))


def graduated(*sums: Any) -> tuple[ChargeLine, ...]:
    return rated(*sums, fixed_prices=(fixed("gpt-*", "input", *TIERS), fixed("gpt-*", "output", "0")))


def volume(*sums: Any) -> tuple[ChargeLine, ...]:
    prices = (fixed("gpt-*", "input", *TIERS, mode=TierMode.VOLUME), fixed("gpt-*", "output", "0"))
    return rated(*sums, fixed_prices=prices)


@pytest.mark.parametrize(
    ("pattern", "name", "is_fitting"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "my-gpt-4o", False),
        ("gpt-4o", "GPT-4o", False),
        ("gpt-*", "gpt-", True),
        ("gpt-*", "gpt", False),
        ("*", "", True),
        ("*", "any/thing\n*", True),
        ("*-mini", "gpt-4o-mini", True),
        ("*-mini", "gpt-4o-mini-2", False),
        ("a*b*c", "aXbYbZc", True),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
        ("a*bc*cd", "abcd", False),
        ("**", "x", True),
        ("gpt-?", "gpt-4", False),
        ("gpt-?", "gpt-?", True),
        ("gpt-[45]", "gpt-4", False),
        ("gpt-[45]", "gpt-[45]", True),
        ("a.c", "abc", False),
        ("*a" * 100, "a" * 150 + "b", False),
    ],
)
def test_a_pattern_fits_whole_names_and_only_the_star_is_special(pattern: str, name: str, is_fitting: bool) -> None:
    assert fits(pattern, name) is is_fitting


def test_a_fixed_price_takes_the_place_of_cost_and_markup() -> None:
    lines = rated(usage(1_000_000, 500_000), fixed_prices=PLAIN, markup_percent="50")
    assert printed(lines) == [
        ("gpt-4o, input tokens", 1_000_000, "4", "4.00"),
        ("gpt-4o, output tokens", 500_000, "16", "8.00"),
    ]


def test_other_models_are_charged_at_cost() -> None:
    lines = rated(usage(1_000_000, model="o3"), usage(1_000_000), fixed_prices=PLAIN, markup_percent="50")
    assert printed(lines) == [
        ("gpt-4o, input tokens", 1_000_000, "4", "4.00"),
        ("o3, input tokens", 1_000_000, "3.75", "3.75"),
    ]


def test_a_fixed_price_is_in_the_plans_currency() -> None:
    lines = rated(usage(1_000_000), fixed_prices=PLAIN, currency="EUR", per_usd="0.5")
    assert printed(lines) == [("gpt-4o, input tokens", 1_000_000, "4", "4.00")]


@pytest.mark.parametrize(("patterns", "amount"), [(("gpt-4o", "*"), "1.00"), (("*", "gpt-4o"), "2.00")])
def test_the_first_pattern_that_fits_decides(patterns: tuple[str, str], amount: str) -> None:
    prices = {"gpt-4o": "1", "*": "2"}
    lines = rated(usage(1_000_000), fixed_prices=tuple(fixed(name, "input", prices[name]) for name in patterns))
    assert [str(line.amount) for line in lines] == [amount]


def test_meters_without_a_price_fall_back_on_input_and_output() -> None:
    parts: dict[str, Any] = {
        "cache_read_tokens": 10,
        "cache_write_5m_tokens": 20,
        "cache_write_1h_tokens": 30,
        "audio_input_tokens": 5,
        "reasoning_tokens": 7,
        "audio_output_tokens": 3,
    }
    lines = rated(usage(100, 50, **parts), fixed_prices=PLAIN)
    assert [(line.meter, line.quantity) for line in lines] == [("input", 100), ("output", 50)]


def test_meters_with_a_price_of_their_own_stand_apart() -> None:
    prices = (*PLAIN, fixed("gpt-*", "cache_read", "1"), fixed("gpt-*", "reasoning", "20"))
    lines = rated(usage(100, 50, cache_read_tokens=30, reasoning_tokens=20), fixed_prices=prices)
    assert [(line.meter, line.quantity) for line in lines] == [
        ("input", 70),
        ("cache_read", 30),
        ("output", 30),
        ("reasoning", 20),
    ]


def test_tokens_whose_meter_has_no_price_are_refused() -> None:
    with pytest.raises(ValueError, match="“gpt-\\*” has no price for output tokens"):
        rated(usage(0, 1), fixed_prices=(fixed("gpt-*", "input", "1"),))


def test_graduated_tiers_price_the_tokens_within_them() -> None:
    assert printed(graduated(usage(6_000_000))) == [
        ("gpt-4o, input tokens, up to 1,000,000", 1_000_000, "4", "4.00"),
        ("gpt-4o, input tokens, after 1,000,000", 4_000_000, "3", "12.00"),
        ("gpt-4o, input tokens, after 5,000,000", 1_000_000, "2", "2.00"),
    ]


@pytest.mark.parametrize(
    ("tokens", "portions"),
    [
        (999_999, [999_999]),
        (1_000_000, [1_000_000]),
        (1_000_001, [1_000_000, 1]),
        (5_000_000, [1_000_000, 4_000_000]),
        (5_000_001, [1_000_000, 4_000_000, 1]),
    ],
)
def test_a_graduated_tier_begins_after_its_tokens(tokens: int, portions: list[int]) -> None:
    assert [line.quantity for line in graduated(usage(tokens))] == portions


@pytest.mark.parametrize(
    ("tokens", "price", "detail"),
    [
        (1_000_000, "4", ""),
        (1_000_001, "3", ", price after 1,000,000"),
        (5_000_000, "3", ", price after 1,000,000"),
        (5_000_001, "2", ", price after 5,000,000"),
    ],
)
def test_a_volume_tier_prices_all_tokens_once_there_are_more_than_it_says(tokens: int, price: str, detail: str) -> None:
    (line,) = printed(volume(usage(tokens)))
    assert line[:3] == (f"gpt-4o, input tokens{detail}", tokens, price)


def test_tiers_count_a_models_tokens_over_providers_in_printing_order() -> None:
    sums = [usage(700_000, provider="azure"), usage(800_000, provider="openai")]
    lines = graduated(*reversed(sums))
    assert [(line.provider, line.quantity, str(line.amount)) for line in lines] == [
        ("azure", 700_000, "2.80"),
        ("openai", 300_000, "1.20"),
        ("openai", 500_000, "1.50"),
    ]
    assert [str(line.amount) for line in volume(*sums)] == ["2.10", "2.40"]


def test_each_model_has_tiers_of_its_own() -> None:
    lines = graduated(usage(1_000_000, model="gpt-a"), usage(1_000_000, model="gpt-b"))
    assert [str(line.amount) for line in lines] == ["4.00", "4.00"]


def test_all_rates_of_a_provider_are_one_sum_with_their_calls_and_digests() -> None:
    sums = [
        usage(400_000, rate_set_id=1, calls=2, digest=(1,) * 8),
        free_usage(600_000, calls=3, unpriced_calls=3, digest=(5,) * 8),
        usage(1, rate_set_id=2, calls=4, digest=(-2,) * 8),
    ]
    lines = graduated(*sums)
    assert [(line.quantity, line.calls, line.digest) for line in lines] == [(1_000_000, 9, (4,) * 8), (1, 9, (4,) * 8)]


def test_cost_is_shared_by_meter_and_the_rest_stands_on_the_first_line() -> None:
    prices = (*PLAIN, fixed("gpt-*", "cache_read", "1"))
    sums = usage(1_000, 100, cache_read_tokens=400, cost_pico=600 * 2_500_000 + 400 * 1_250_000 + 100 * 10_000_000 + 77)
    lines = rated(sums, fixed_prices=prices)
    assert [line.cost_pico for line in lines] == [600 * 2_500_000 + 77, 400 * 1_250_000, 100 * 10_000_000]


def test_a_tier_line_carries_its_meters_whole_cost_once() -> None:
    lines = graduated(usage(2_000_000))
    assert [line.cost_pico for line in lines] == [5_000_000_000_000, 0]


def test_cost_without_tokens_is_kept_on_a_line_that_charges_nothing() -> None:
    (line,) = rated(usage(0, cost_pico=123), fixed_prices=PLAIN)
    assert (line.meter, line.quantity, str(line.amount), line.cost_pico) == ("other", None, "0.00", 123)
    assert rated(usage(0, cost_pico=0), fixed_prices=PLAIN) == ()


def test_what_is_taken_back_on_balance_is_priced_by_the_first_tier() -> None:
    (line,) = graduated(usage(-10, cost_pico=0))
    assert printed((line,)) == [("gpt-4o, input tokens, up to 1,000,000", -10, "4", "0.00")]


def test_keys_name_the_tier_whatever_its_line_says() -> None:
    lines = graduated(usage(2_000_000))
    assert [line.key for line in lines] == [
        "usage|input|fixed:0|openai|gpt-4o",
        "usage|input|fixed:1000000|openai|gpt-4o",
    ]


def test_prices_of_the_same_pattern_hold_together_wherever_they_stand() -> None:
    scattered: tuple[FixedPrice, ...] = (PLAIN[0], fixed("o3", "input", "9"), PLAIN[1])
    assert [str(line.amount) for line in rated(usage(0, 1_000_000), fixed_prices=scattered)] == ["16.00"]
