"""Usage at cost and its markup: figures reckoned by hand."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from billing.rating import rate
from llm.money import exact_sum
from llm.types import Service
from tests.billing.rating_figures import GPT_4O, free_usage, printed, rated, terms, usage


def test_each_meter_is_a_line_at_its_own_rate() -> None:
    lines = rated(usage(1_000_000, 200_000, cache_read_tokens=400_000))
    assert printed(lines) == [
        ("gpt-4o, input tokens", 600_000, "2.5", "1.50"),
        ("gpt-4o, cached input tokens", 400_000, "1.25", "0.50"),
        ("gpt-4o, output tokens", 200_000, "10", "2.00"),
    ]
    assert [line.cost_pico for line in lines] == [1_500_000_000_000, 500_000_000_000, 2_000_000_000_000]


def test_every_part_of_the_tokens_is_priced_once() -> None:
    meters = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "audio_output")
    rates = {meter: 10**position for position, meter in enumerate((*meters, "reasoning"))}
    counts: dict[str, Any] = {
        "cache_read_tokens": 10,
        "cache_write_5m_tokens": 20,
        "cache_write_1h_tokens": 30,
        "audio_input_tokens": 5,
        "reasoning_tokens": 7,
        "audio_output_tokens": 3,
    }
    lines = rated(
        usage(100, 50, rates=rates, cost_pico=35 + 400 + 1000 + 20_000 + 300_000 + 500_000 + 73_000_000, **counts)
    )
    assert {line.meter: line.quantity for line in lines} == {
        "input": 35,
        "cache_read": 10,
        "cache_write_5m": 20,
        "cache_write_1h": 30,
        "audio_input": 5,
        "output": 40,
        "audio_output": 3,
        "reasoning": 7,
    }


def test_cached_and_reasoning_tokens_without_a_rate_stand_with_input_and_output() -> None:
    rates = {"input": 3_000_000, "output": 5_000_000}
    sums = usage(1000, 50, rates=rates, cost_pico=3_250_000_000, cache_read_tokens=300, reasoning_tokens=40)
    assert [(line.meter, line.quantity) for line in rated(sums)] == [("input", 1000), ("output", 50)]


def test_a_markup_and_a_rate_of_exchange_multiply_exactly() -> None:
    (line,) = rated(usage(1), currency="EUR", markup_percent="12.3456", per_usd="0.920001")
    # 2.5 x 1.123456 x 0.920001, and one millionth of it.
    assert line.unit_price == Decimal("2.58395160864")
    assert line.exact_amount == Decimal("0.00000258395160864")
    assert line.amount == Decimal("0.00")
    assert line.residual == line.exact_amount
    assert line.exact_amount.as_tuple().exponent == -24


def test_an_amount_beyond_28_digits_stays_exact() -> None:
    sums = usage(10**12 + 1, rates={"input": 2_500_001}, cost_pico=(10**12 + 1) * 2_500_001)
    (line,) = rated(sums, currency="JPY", markup_percent="0.0001", per_usd="155.123457", decimals=0)
    # 2,500,001 x 1,000,001 x 155,123,457, with the point moved.
    assert line.unit_price == Decimal("387.809185432254623457")
    assert line.exact_amount == Decimal("387809185.432642432642432254623457")
    assert str(line.amount) == "387809185"
    assert line.residual == Decimal("0.432642432642432254623457")


@pytest.mark.parametrize(("decimals", "amount"), [(0, "3"), (2, "2.50"), (3, "2.500")])
def test_halves_are_rounded_away_from_zero_once(decimals: int, amount: str) -> None:
    (line,) = rated(usage(1_000_000), decimals=decimals)
    assert str(line.amount) == amount


def test_fees_per_request_are_a_line_by_calls() -> None:
    sums = usage(0, 100, rates={**GPT_4O, "requests": 5_000_000}, calls=30, cost_pico=1_150_000_000)
    assert printed(rated(sums, decimals=3)) == [
        ("gpt-4o, output tokens", 100, "10", "0.001"),
        ("gpt-4o, requests", 30, "5", "0.000"),
    ]


def test_what_the_meters_leave_of_the_cost_is_a_line_without_quantity() -> None:
    lines = rated(usage(1_000_000, cost_pico=2_530_000_000_000), markup_percent="10")
    assert printed(lines) == [
        ("gpt-4o, input tokens", 1_000_000, "2.75", "2.75"),
        ("gpt-4o, other usage and corrections", None, None, "0.03"),
    ]
    assert lines[1].exact_amount == Decimal("0.033")
    assert lines[1].cost_pico == 30_000_000_000


def test_a_correction_that_took_back_more_than_the_rest_is_negative() -> None:
    lines = rated(usage(1_000_000, cost_pico=2_000_000_000_000))
    assert [str(line.amount) for line in lines] == ["2.50", "-0.50"]


def test_free_calls_show_their_tokens_at_0() -> None:
    assert printed(rated(free_usage(500, 20, model="llama"), markup_percent="20")) == [
        ("llama, input tokens", 500, "0", "0.00"),
        ("llama, output tokens", 20, "0", "0.00"),
    ]


def test_calls_without_a_price_say_so_and_have_no_unit_price() -> None:
    assert printed(rated(free_usage(500, model="new", calls=1200, unpriced_calls=1100))) == [
        ("new, input tokens, 1,100 of 1,200 calls without a price", 500, None, "0.00"),
    ]


def test_what_was_priced_later_is_charged_once_as_the_rest() -> None:
    sums = usage(1000, rate_set_id=None, rates={}, cost_pico=40_000_000_000)
    assert printed(rated(sums)) == [
        ("gpt-4o, input tokens", 1000, None, "0.00"),
        ("gpt-4o, other usage and corrections", None, None, "0.04"),
    ]


def test_calls_that_used_nothing_are_no_line() -> None:
    assert rated(free_usage(0, calls=5)) == ()
    assert rated() == ()


def test_audio_that_was_cached_is_not_counted_twice() -> None:
    lines = rated(free_usage(100, cache_read_tokens=80, audio_input_tokens=60, unpriced_calls=1))
    assert [(line.meter, line.quantity) for line in lines] == [("input", 40), ("audio_input", 60)]


def test_lines_stand_by_model_provider_meter_and_price_in_whatever_order_usage_comes() -> None:
    sums = [
        usage(1, 1, model="b", provider="x", rate_set_id=2),
        usage(1, model="b", provider="x", rate_set_id=1),
        free_usage(1, model="b", provider="x"),
        usage(1, model="b", provider="w", rate_set_id=9),
        usage(1, model="a", provider="z", rate_set_id=3),
    ]
    lines = rated(*sums)
    assert [line.key for line in lines] == [
        "usage|input|cost@2.5|z|a",
        "usage|input|cost@2.5|w|b",
        "usage|input|cost@0|x|b",
        "usage|input|cost@2.5|x|b",
        "usage|output|cost@10|x|b",
    ]
    assert rated(*reversed(sums)) == lines


def test_sums_of_the_same_rates_are_added_up() -> None:
    digest = (1, 2, 3, 4, 5, 6, 7, 8)
    (line,) = rated(usage(10, calls=2, digest=digest), usage(5, calls=1, digest=digest))
    assert (line.quantity, line.calls, line.digest) == (15, 3, (2, 4, 6, 8, 10, 12, 14, 16))


def test_all_lines_of_a_models_rates_carry_its_calls_and_digest() -> None:
    digest = (1, 2, 3, 4, 5, 6, 7, -8)
    lines = rated(usage(1_000, 1_000, calls=17, digest=digest))
    assert [(line.calls, line.digest) for line in lines] == [(17, digest)] * 2


def test_keys_tell_any_two_names_apart_and_fit_their_column() -> None:
    names = [("a|b", "c"), ("a", "b|c"), ("a\\", "b"), ("a", "\\|b"), ("a\\|", "b"), ("|" * 50, "|" * 200)]
    keys = [rated(usage(1, provider=provider, model=model))[0].key for provider, model in names]
    assert len(set(keys)) == len(names)
    assert max(map(len, keys)) <= 500


def test_a_long_name_leaves_room_for_what_the_line_is() -> None:
    facts: dict[str, Any] = {"cache_write_5m_tokens": 1, "model": "m" * 200, "calls": 10**9, "unpriced_calls": 10**9}
    (line,) = rated(free_usage(1, **facts))
    assert line.description.startswith(f"{'m' * 149}…, input tokens written to the 5 minute cache, 1,000,000,000 of")
    assert len(line.description) <= 300
    assert line.model == "m" * 200


@pytest.mark.parametrize(("currency", "per_usd"), [("EUR", None), ("USD", "1")])
def test_a_rate_of_exchange_that_does_not_suit_the_currency_is_refused(currency: str, per_usd: str | None) -> None:
    with pytest.raises(ValueError, match="an exchange rate is needed"):
        rated(usage(1), currency=currency, per_usd=per_usd)


def test_a_negative_markup_charges_less_than_the_cost() -> None:
    assert printed(rated(usage(1_000_000), markup_percent="-100")) == [("gpt-4o, input tokens", 1_000_000, "0", "0.00")]


# --- One line a model, meter and unit price ---------------------------------------------------------------------------


def other_rates(**rates: int) -> dict[str, int]:
    return {**GPT_4O, **rates}


def in_october(first: int, last: int) -> tuple[date, date]:
    return date(2026, 10, first), date(2026, 10, last)


def test_rates_that_an_import_repeats_make_no_second_line() -> None:
    digest = (1, 2, 3, 4, 5, 6, 7, 8)
    before = replace(usage(153_001, 1_000, rate_set_id=1, calls=153, digest=digest), days=in_october(1, 12))
    after = replace(usage(354_002, 2_000, rate_set_id=2, calls=354, digest=digest), days=in_october(12, 31))

    lines = rated(before, after)

    assert printed(lines) == [
        ("gpt-4o, input tokens", 507_003, "2.5", "1.27"),
        ("gpt-4o, output tokens", 3_000, "10", "0.03"),
    ]
    assert [(line.calls, line.digest) for line in lines] == [(507, tuple(2 * word for word in digest))] * 2
    apart = (*rated(before), *rated(after))
    assert exact_sum(line.exact_amount for line in lines) == exact_sum(line.exact_amount for line in apart)
    assert sum(line.cost_pico for line in lines) == before.cost_pico + after.cost_pico


def test_a_meter_whose_rate_changes_has_two_lines_that_say_when_and_the_others_one() -> None:
    rates = other_rates(output=12_000_000)
    lines = rated(
        replace(usage(1_000_000, 100_000, rate_set_id=1, calls=2), days=in_october(1, 12)),
        replace(
            usage(500_000, 100_000, rate_set_id=2, calls=3, rates=rates, cost_pico=2_450_000_000_000),
            days=in_october(12, 12),
        ),
    )
    assert printed(lines) == [
        ("gpt-4o, input tokens", 1_500_000, "2.5", "3.75"),
        ("gpt-4o, output tokens, 1 to 12 October", 100_000, "10", "1.00"),
        ("gpt-4o, output tokens, 12 October", 100_000, "12", "1.20"),
    ]
    assert [line.calls for line in lines] == [5, 2, 3]


def test_a_price_for_another_service_says_so_and_not_when() -> None:
    priority = other_rates(input=5_000_000)
    lines = rated(
        replace(usage(1_000_000, rate_set_id=1), days=in_october(1, 31)),
        replace(
            usage(1_000_000, rate_set_id=2, rates=priority, cost_pico=5_000_000_000_000),
            days=in_october(2, 30),
            service=Service("priority", "fast", "us"),
            min_prompt_tokens=200_000,
        ),
    )
    assert [line.description for line in lines] == [
        "gpt-4o, input tokens",
        "gpt-4o, input tokens, priority tier, fast speed, in us, prompts of 200,000 tokens or more",
    ]


def test_free_calls_and_unpriced_ones_stand_apart_from_those_that_cost_something() -> None:
    lines = rated(
        usage(1_000_000, rate_set_id=1),
        usage(400_000, rate_set_id=2, cost_pico=0),
        usage(300_000, rate_set_id=None, rates={}, cost_pico=0, calls=3, unpriced_calls=2),
    )
    assert printed(lines) == [
        ("gpt-4o, input tokens, 2 of 3 calls without a price", 300_000, None, "0.00"),
        ("gpt-4o, input tokens", 1_000_000, "2.5", "2.50"),
        ("gpt-4o, input tokens", 400_000, "0", "0.00"),
    ]


def test_what_the_meters_leave_is_one_line_a_model() -> None:
    lines = rated(
        usage(1_000_000, rate_set_id=1, calls=4, cost_pico=2_530_000_000_000),
        usage(1_000_000, rate_set_id=2, calls=5, cost_pico=2_480_000_000_000),
        usage(1_000_000, rate_set_id=3, calls=6),
    )
    assert [(line.meter, line.calls, str(line.exact_amount)[:5]) for line in lines] == [
        ("input", 15, "7.500"),
        ("other", 9, "0.010"),
    ]


def test_corrections_that_take_each_other_back_are_no_line() -> None:
    assert rated(usage(5, rate_set_id=1), usage(-5, rate_set_id=2)) == ()


def test_keys_give_the_price_that_is_charged_and_not_our_cost() -> None:
    (line,) = rated(usage(1), currency="EUR", markup_percent="20", per_usd="0.9")
    assert line.key == "usage|input|cost@2.7|openai|gpt-4o"


def test_a_month_that_was_billed_by_rate_set_goes_on_so() -> None:
    """As version 0.1.0 did: what was rounded line by line, and the discount on it, must not move by a cent."""
    sums = [usage(1_002_000, rate_set_id=1), usage(1_002_000, rate_set_id=2)]
    old = [
        replace(line, key=line.key.replace("cost@2.5", f"cost:{each.rate_set_id}"))
        for each in sums
        for line in rated(each)
    ]
    exact = terms(discount_percent="10")

    again = rate(sums, exact, per_usd=None, decimals=2, billed=old)
    anew = rate(sums, exact, per_usd=None, decimals=2)

    assert [line.key for line in again] == [
        "usage|input|cost:1|openai|gpt-4o",
        "usage|input|cost:2|openai|gpt-4o",
        "discount",
    ]
    assert [str(line.amount) for line in again] == ["2.51", "2.51", "-0.50"]
    assert [str(line.amount) for line in anew] == ["5.01", "-0.50"]
    assert [f"{line.exact_amount:.4f}" for line in (again[-1], anew[-1])] == ["-0.5020", "-0.5010"]
    gone = [replace(line, exact_amount=Decimal(0), quantity=0, cost_pico=0) for line in old]
    assert rate(sums, exact, per_usd=None, decimals=2, billed=gone) == anew
