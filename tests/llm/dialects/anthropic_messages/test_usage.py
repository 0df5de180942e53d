from __future__ import annotations

from typing import Any

import pytest

from llm.dialects.anthropic_messages.usage import OTHER_MODELS_TOKENS, merged_usage, read_usage
from llm.dialects.usage_figures import read_service
from llm.types import Service, TokenCounts


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"input_tokens": 10, "output_tokens": 5}, TokenCounts(prompt_tokens=10, completion_tokens=5)),
        ({"input_tokens": 0, "output_tokens": 0}, TokenCounts()),
        (
            {
                "input_tokens": 10,
                "cache_creation_input_tokens": 700,
                "cache_read_input_tokens": 2000,
                "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 300},
                "output_tokens": 50,
                "output_tokens_details": {"thinking_tokens": 30},
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
                "service_tier": "standard",
            },
            TokenCounts(
                prompt_tokens=2710,
                completion_tokens=50,
                cache_read_tokens=2000,
                cache_write_5m_tokens=400,
                cache_write_1h_tokens=300,
                reasoning_tokens=30,
                extra_meters={"web_searches": 2},
            ),
        ),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 9, "tool_search_requests": 3},
            },
            TokenCounts(prompt_tokens=10, completion_tokens=5, extra_meters={"tool_search_requests": 3}),
        ),
        (
            # What is no count, or is named like something else that a price has.
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "server_tool_use": {"seconds": 1.5, "input": 7, "requests": 2, "A b": 1, "none": None, "zero": 0},
            },
            TokenCounts(prompt_tokens=10, completion_tokens=5, extra_meters={"other_tool_units": 4}),
        ),
        (
            {"input_tokens": 10, "cache_creation_input_tokens": 700, "output_tokens": 5},
            TokenCounts(prompt_tokens=710, completion_tokens=5, cache_write_5m_tokens=700),
        ),
        (
            {
                "input_tokens": 10,
                "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3},
                "output_tokens": 5,
            },
            TokenCounts(prompt_tokens=17, completion_tokens=5, cache_write_5m_tokens=4, cache_write_1h_tokens=3),
        ),
        (
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "cache_read_input_tokens": None,
                "cache_creation": None,
                "server_tool_use": None,
            },
            TokenCounts(prompt_tokens=10, completion_tokens=5),
        ),
    ],
)
def test_usage_becomes_counts(usage: dict[str, Any], counts: TokenCounts) -> None:
    assert read_usage(usage) == (counts, None)


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 10}, {"output_tokens": 5, "input_tokens": None}])
def test_what_was_not_reported_is_not_zero(usage: dict[str, Any] | None) -> None:
    assert read_usage(usage) == (None, None)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1, "output_tokens": 5},
        {"input_tokens": 1.5, "output_tokens": 5},
        {"input_tokens": 10, "output_tokens": 10**9 + 1},
        {"input_tokens": 10, "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 6}},
        {"input_tokens": 10, "output_tokens": 5, "cache_creation": "none"},
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_creation_input_tokens": 2,
            "cache_creation": {"ephemeral_1h_input_tokens": 3},
        },
    ],
)
def test_figures_that_cannot_be_true_are_kept_aside(usage: dict[str, Any]) -> None:
    assert read_usage(usage) == (None, usage)


def test_the_running_total_replaces_what_it_names_and_adds_nothing() -> None:
    start = {
        "input_tokens": 10,
        "cache_creation_input_tokens": 700,
        "cache_creation": {"ephemeral_5m_input_tokens": 400, "ephemeral_1h_input_tokens": 300},
        "output_tokens": 1,
        "service_tier": "standard",
    }
    delta = {
        "input_tokens": 12,
        "output_tokens": 50,
        "cache_creation_input_tokens": 800,
        "cache_read_input_tokens": None,
    }

    merged = merged_usage(start, delta)

    assert read_usage(merged)[0] == TokenCounts(
        prompt_tokens=812, completion_tokens=50, cache_write_5m_tokens=500, cache_write_1h_tokens=300
    )
    assert read_service({}, merged) == Service("standard")


@pytest.mark.parametrize(
    ("usage", "service"),
    [
        ({"service_tier": "priority"}, Service("priority")),
        ({"service_tier": "standard", "speed": "fast"}, Service("standard", "fast")),
        ({"service_tier": "standard", "inference_geo": "us"}, Service("standard", "", "us")),
        ({"service_tier": None, "speed": 7}, Service()),
        (None, Service()),
    ],
)
def test_the_service_that_prices_a_call(usage: Any, service: Service) -> None:
    assert read_service({}, usage) == service


@pytest.mark.parametrize(
    "counters",
    [{"web_search_requests": -1}, {"web_search_requests": 1.5}, {f"counter_{number}": 1 for number in range(21)}, [1]],
)
def test_counters_of_tools_that_cannot_be_true_are_absurd(counters: Any) -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "server_tool_use": counters}
    assert read_usage(usage) == (None, usage)


def test_a_compaction_is_in_no_total_and_an_advisor_is_another_model() -> None:
    one = {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 2}
    iterations = [{"type": "message", **one}, {"type": "compaction", **one}, {"type": "advisor_message", **one}, 7]
    assert read_usage({"input_tokens": 100, "output_tokens": 20, "iterations": iterations}) == (
        TokenCounts(
            prompt_tokens=112,
            completion_tokens=21,
            cache_read_tokens=2,
            extra_meters={OTHER_MODELS_TOKENS: 13},
        ),
        None,
    )


def test_a_number_counts_in_whatever_form_it_is_written() -> None:
    usage = {
        "input_tokens": 8.0,
        "output_tokens": "5",
        "cache_creation_input_tokens": "3",
        "cache_creation": {"ephemeral_1h_input_tokens": 2.0},
        "server_tool_use": {"web_search_requests": 1.0},
    }
    counts = TokenCounts(11, 5, cache_write_5m_tokens=1, cache_write_1h_tokens=2, extra_meters={"web_searches": 1})
    assert read_usage(usage) == (counts, None)
