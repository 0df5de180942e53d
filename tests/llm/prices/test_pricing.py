from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.enums import Meter
from llm.errors import PriceMissing
from llm.prices.pricing import (
    STANDARD,
    Cost,
    ImpossibleCountsError,
    PriceSnapshot,
    RateSetSnapshot,
    cost_of,
    dearest_pico,
    known_cost,
)
from llm.types import Service, TokenCounts

# gpt-4o's of November 2026, in pico-units a token: $2.50, $1.25 and $10.00 per million.
GPT_4O = {"input": 2_500_000, "cache_read": 1_250_000, "output": 10_000_000}
ALL_METERS = {meter.value: 10**position for position, meter in enumerate(Meter)}


def price_of(*rate_sets: RateSetSnapshot, is_free: bool = False) -> PriceSnapshot:
    return PriceSnapshot(1, "openai", "m", datetime(2026, 1, 1, tzinfo=UTC), None, is_free, rate_sets)


def flat(rates: dict[str, int]) -> PriceSnapshot:
    return price_of(RateSetSnapshot(7, 0, STANDARD, rates))


def missing_for(counts: TokenCounts, price: PriceSnapshot, service_tier: str = "") -> tuple[str, ...]:
    with pytest.raises(PriceMissing) as refusal:
        cost_of(counts, price, Service(service_tier))
    return refusal.value.meters


def test_a_plain_call_costs_its_tokens() -> None:
    assert cost_of(TokenCounts(1000, 200), flat(GPT_4O)) == Cost(1000 * 2_500_000 + 200 * 10_000_000, 7)


def test_cached_tokens_cost_their_own_rate_instead_of_the_input_rate() -> None:
    cost = cost_of(TokenCounts(1000, 200, cache_read_tokens=300), flat(GPT_4O))
    assert cost.pico == 700 * 2_500_000 + 300 * 1_250_000 + 200 * 10_000_000


def test_cached_tokens_without_a_rate_cost_as_input() -> None:
    assert cost_of(TokenCounts(1000, 0, cache_read_tokens=300), flat({"input": 3, "output": 5})).pico == 3000


def test_every_token_meter_has_its_own_rate() -> None:
    counts = TokenCounts(
        prompt_tokens=100,
        completion_tokens=50,
        cache_read_tokens=10,
        cache_write_5m_tokens=20,
        cache_write_1h_tokens=30,
        audio_input_tokens=5,
        reasoning_tokens=7,
        audio_output_tokens=3,
    )
    units = {
        "input": 35,
        "cache_read": 10,
        "cache_write_5m": 20,
        "cache_write_1h": 30,
        "audio_input": 5,
        "output": 40,
        "reasoning": 7,
        "audio_output": 3,
    }
    assert cost_of(counts, flat(ALL_METERS)).pico == sum(ALL_METERS[meter] * count for meter, count in units.items())


def test_reasoning_without_a_rate_of_its_own_costs_as_output() -> None:
    assert cost_of(TokenCounts(0, 50, reasoning_tokens=40), flat({"output": 5})).pico == 250


@pytest.mark.parametrize(
    ("counts", "missing"),
    [
        (TokenCounts(10, 0, cache_write_5m_tokens=4), ("cache_write_5m",)),
        (TokenCounts(10, 0, cache_write_1h_tokens=4), ("cache_write_1h",)),
        (TokenCounts(10, 5, audio_input_tokens=4, audio_output_tokens=1), ("audio_input", "audio_output")),
        (TokenCounts(10, 5, extra_meters={"web_searches": 1, "nothing": 0}), ("web_searches",)),
    ],
)
def test_what_has_no_rate_is_named_and_nothing_is_made_cheaper(counts: TokenCounts, missing: tuple[str, ...]) -> None:
    assert missing_for(counts, flat(GPT_4O)) == missing


def test_tokens_without_any_rate_are_missing() -> None:
    assert missing_for(TokenCounts(1, 1), flat({})) == ("input", "output")
    assert missing_for(TokenCounts(1, 1), price_of()) == ("service_tier:standard",)


def test_a_call_without_tokens_costs_nothing() -> None:
    assert cost_of(TokenCounts(), flat(GPT_4O)) == Cost(0, 7)


def test_extra_meters_and_a_fee_per_request_are_priced_beside_the_tokens() -> None:
    rates = {**GPT_4O, "web_searches": 10_000_000_000, "requests": 5_000}
    assert cost_of(TokenCounts(1, 0, extra_meters={"web_searches": 3}), flat(rates)).pico == 30_002_505_000


@pytest.mark.parametrize("service", [Service(), Service("default", "standard", "global")])
def test_all_tokens_of_a_free_price_cost_nothing(service: Service) -> None:
    counts = TokenCounts(10, 10, audio_input_tokens=5, cache_write_1h_tokens=1, extra_meters={"web_searches": 0})
    assert cost_of(counts, price_of(is_free=True), service) == Cost(0, None)


@pytest.mark.parametrize(
    ("counts", "service", "missing"),
    [
        (TokenCounts(10, 10, extra_meters={"web_searches": 1}), Service(), ("web_searches",)),
        (TokenCounts(0, 0, extra_meters={"unreported_tools": 1}), Service(), ("unreported_tools",)),
        (TokenCounts(10, 10), Service("priority"), ("service_tier:priority",)),
        (TokenCounts(10, 10), Service("", "fast", "us"), ("speed:fast", "inference_geo:us")),
    ],
)
def test_a_free_price_prices_nothing_but_tokens_of_the_standard_service(
    counts: TokenCounts, service: Service, missing: tuple[str, ...]
) -> None:
    with pytest.raises(PriceMissing) as raised:
        cost_of(counts, price_of(is_free=True), service)
    assert raised.value.meters == missing
    assert known_cost(counts, price_of(is_free=True), service) is None


@pytest.mark.parametrize("tier", ["", "auto", "default", "standard", "on_demand"])
def test_the_names_of_the_standard_service_have_the_standard_rates(tier: str) -> None:
    assert cost_of(TokenCounts(1, 0), flat(GPT_4O), Service(tier)).rate_set_id == 7


@pytest.mark.parametrize("tier", ["priority", "flex", "scale", "batch", "Default"])
def test_a_tier_that_is_not_listed_is_unpriced(tier: str) -> None:
    assert missing_for(TokenCounts(1, 0), flat(GPT_4O), tier) == (f"service_tier:{tier}",)


def test_a_listed_tier_has_its_own_rates() -> None:
    price = price_of(
        RateSetSnapshot(1, 0, STANDARD, {"input": 2}), RateSetSnapshot(2, 0, Service("priority"), {"input": 5})
    )
    assert cost_of(TokenCounts(10, 0), price, Service("priority")) == Cost(50, 2)
    assert cost_of(TokenCounts(10, 0), price) == Cost(20, 1)


@pytest.mark.parametrize(("prompt_tokens", "expected"), [(200_000, 200_000 * 3 + 4), (200_001, 200_001 * 6 + 8)])
def test_a_context_tier_reprices_the_whole_request(prompt_tokens: int, expected: int) -> None:
    price = price_of(
        RateSetSnapshot(1, 0, STANDARD, {"input": 3, "output": 4}),
        RateSetSnapshot(2, 200_001, STANDARD, {"input": 6, "output": 8}),
    )
    assert cost_of(TokenCounts(prompt_tokens, 1), price).pico == expected


@pytest.mark.parametrize(
    "counts",
    [
        TokenCounts(10, 0, cache_read_tokens=11),
        TokenCounts(10, 0, cache_read_tokens=6, cache_write_5m_tokens=5),
        TokenCounts(0, 5, audio_output_tokens=6),
        TokenCounts(-1, 0),
        TokenCounts(0, -1),
        TokenCounts(10, 0, cache_write_1h_tokens=-1),
        TokenCounts(0, 0, extra_meters={"web_searches": -1}),
    ],
)
def test_parts_that_exceed_their_total_have_no_cost(counts: TokenCounts) -> None:
    with pytest.raises(ImpossibleCountsError):
        cost_of(counts, flat(ALL_METERS))


def test_cached_audio_of_unknown_size_is_unpriced() -> None:
    assert missing_for(TokenCounts(10, 0, cache_read_tokens=6, audio_input_tokens=5), flat(ALL_METERS)) == (
        "cached_audio_input",
    )


@pytest.mark.parametrize("rate", [1.5, 1.0, True, -1, "1", None])
def test_a_rate_that_is_no_whole_number_is_refused(rate: Any) -> None:
    with pytest.raises(TypeError, match="whole pico-units"):
        RateSetSnapshot(1, 0, STANDARD, {"input": rate})


tokens = st.integers(min_value=0, max_value=10**12)


@st.composite
def token_counts(draw: st.DrawFn) -> TokenCounts:
    """Parts first, so that they always fit into their totals."""
    parts = {
        name: draw(tokens)
        for name in ("cache_read", "cache_write_5m", "cache_write_1h", "audio_input", "reasoning", "audio_output")
    }
    prompt = draw(tokens) + sum(
        parts[name] for name in ("cache_read", "cache_write_5m", "cache_write_1h", "audio_input")
    )
    completion = draw(tokens) + parts["reasoning"] + parts["audio_output"]
    searches = draw(st.integers(0, 1000))
    return TokenCounts(
        prompt, completion, **{f"{k}_tokens": v for k, v in parts.items()}, extra_meters={"web_searches": searches}
    )


rates = st.fixed_dictionaries(
    {meter: st.integers(0, 10**12) for meter in (*ALL_METERS, "web_searches")},
)


def added(one: TokenCounts, other: TokenCounts) -> TokenCounts:
    searches = one.extra_meters["web_searches"] + other.extra_meters["web_searches"]
    sums = {
        name: getattr(one, name) + getattr(other, name)
        for name in TokenCounts.__dataclass_fields__
        if name != "extra_meters"
    }
    return TokenCounts(**sums, extra_meters={"web_searches": searches})


@pytest.mark.slow
@given(token_counts(), token_counts(), rates)
def test_cost_adds_up_over_calls(one: TokenCounts, other: TokenCounts, rate: dict[str, int]) -> None:
    price = flat(rate)
    assert cost_of(added(one, other), price).pico == cost_of(one, price).pico + cost_of(other, price).pico


@pytest.mark.slow
@given(token_counts(), rates)
def test_cost_equals_exact_fractions(counts: TokenCounts, rate: dict[str, int]) -> None:
    usd = {meter: Fraction(pico, 10**12) for meter, pico in rate.items()}
    plain_input = counts.prompt_tokens - counts.cache_read_tokens - counts.cache_write_5m_tokens
    plain_input -= counts.cache_write_1h_tokens + counts.audio_input_tokens
    plain_output = counts.completion_tokens - counts.reasoning_tokens - counts.audio_output_tokens
    expected = (
        plain_input * usd["input"]
        + counts.cache_read_tokens * usd["cache_read"]
        + counts.cache_write_5m_tokens * usd["cache_write_5m"]
        + counts.cache_write_1h_tokens * usd["cache_write_1h"]
        + counts.audio_input_tokens * usd["audio_input"]
        + plain_output * usd["output"]
        + counts.reasoning_tokens * usd["reasoning"]
        + counts.audio_output_tokens * usd["audio_output"]
        + counts.extra_meters["web_searches"] * usd["web_searches"]
    )
    assert Fraction(cost_of(counts, flat(rate)).pico, 10**12) == expected


@pytest.mark.slow
@given(token_counts(), st.lists(st.tuples(st.integers(0, 10**6), rates), max_size=4), rates)
def test_no_call_costs_more_than_its_bound(
    counts: TokenCounts, tiers: list[tuple[int, dict[str, int]]], base: dict[str, int]
) -> None:
    sets = [RateSetSnapshot(0, 0, STANDARD, base)]
    sets += [RateSetSnapshot(number, start, STANDARD, rate) for number, (start, rate) in enumerate(tiers, 1)]
    counts = replace(counts, extra_meters={})
    input_pico, output_token_pico = dearest_pico(price_of(*sets), prompt_tokens_bound=counts.prompt_tokens)
    assert cost_of(counts, price_of(*sets)).pico <= input_pico + counts.completion_tokens * output_token_pico


def test_the_bound_takes_the_dearest_class_of_every_tier_that_can_be_reached() -> None:
    price = price_of(
        RateSetSnapshot(1, 0, STANDARD, {"input": 2, "cache_write_1h": 4, "output": 10}),
        RateSetSnapshot(2, 0, Service("priority"), {"input": 5, "output": 20, "requests": 3}),
        RateSetSnapshot(3, 1001, STANDARD, {"input": 100, "output": 100}),
    )
    assert dearest_pico(price, prompt_tokens_bound=1000) == (3 + 1000 * 5, 20)


def test_nothing_is_held_for_a_free_model() -> None:
    assert dearest_pico(price_of(is_free=True), prompt_tokens_bound=10) == (0, 0)
