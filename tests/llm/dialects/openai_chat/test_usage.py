from __future__ import annotations

from typing import Any

import pytest

from llm.dialects.openai_chat.usage import read_usage, usage_object
from llm.types import TokenCounts


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (
            {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11},
            TokenCounts(prompt_tokens=8, completion_tokens=3),
        ),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, TokenCounts()),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 10, "cache_write_tokens": 20, "new": 1},
                "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 5, "text_tokens": 15},
            },
            TokenCounts(
                prompt_tokens=100,
                completion_tokens=50,
                cache_read_tokens=64,
                cache_write_5m_tokens=20,
                reasoning_tokens=30,
                audio_input_tokens=10,
                audio_output_tokens=5,
            ),
        ),
        (
            {
                "prompt_tokens": 8,
                "completion_tokens": 3,
                "prompt_tokens_details": None,
                "completion_tokens_details": {"reasoning_tokens": None},
            },
            TokenCounts(prompt_tokens=8, completion_tokens=3),
        ),
        # xAI: thinking on top of the completion.
        (
            {
                "prompt_tokens": 32,
                "completion_tokens": 9,
                "total_tokens": 135,
                "completion_tokens_details": {"reasoning_tokens": 94},
            },
            TokenCounts(prompt_tokens=32, completion_tokens=103, reasoning_tokens=94),
        ),
        # Gemini: thinking only in the total.
        (
            {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
            TokenCounts(prompt_tokens=20, completion_tokens=603, reasoning_tokens=405),
        ),
        # A total that is too small proves nothing.
        (
            {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 10},
            TokenCounts(prompt_tokens=20, completion_tokens=10),
        ),
        # DeepSeek.
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5},
            TokenCounts(prompt_tokens=9, completion_tokens=1, cache_read_tokens=4),
        ),
        # Moonshot.
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 3},
            TokenCounts(prompt_tokens=9, completion_tokens=1, cache_read_tokens=3),
        ),
        # Perplexity.
        (
            {"prompt_tokens": 9, "completion_tokens": 1, "num_search_queries": 2, "num_sources_used": 0},
            TokenCounts(prompt_tokens=9, completion_tokens=1, extra_meters={"web_searches": 2}),
        ),
        ({"prompt_tokens": 10**9, "completion_tokens": 0}, TokenCounts(prompt_tokens=10**9)),
    ],
)
def test_usage_becomes_counts(usage: dict[str, Any], counts: TokenCounts) -> None:
    assert read_usage(usage) == (counts, None)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        {"total_tokens": 7},
        {"completion_tokens": 7},
        {"prompt_tokens": 7, "completion_tokens": None},
    ],
)
def test_what_was_not_reported_is_not_zero(usage: dict[str, Any] | None) -> None:
    assert read_usage(usage) == (None, None)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 3},
        {"prompt_tokens": 1, "completion_tokens": 3.5},
        {"prompt_tokens": True, "completion_tokens": 3},
        {"prompt_tokens": "eight", "completion_tokens": 3},
        {"prompt_tokens": "-8", "completion_tokens": 3},
        {"prompt_tokens": "8.5", "completion_tokens": 3},
        {"prompt_tokens": "٨", "completion_tokens": 3},
        {"prompt_tokens": "9" * 5000, "completion_tokens": 3},
        {"prompt_tokens": 1e300, "completion_tokens": 3},
        {"prompt_tokens": 10**9 + 1, "completion_tokens": 3},
        {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": -11},
        {"prompt_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}},
        {
            "prompt_tokens": 8,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 4},
        },
        {"prompt_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": {"audio_tokens": 9}},
        {"prompt_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": [1]},
        {"prompt_tokens": 8, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 4}},
        {
            "prompt_tokens": 8,
            "completion_tokens": 3,
            "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 2},
        },
        {"prompt_tokens": 8, "completion_tokens": 3, "num_search_queries": -1},
    ],
)
def test_figures_that_cannot_be_true_are_kept_aside(usage: dict[str, Any]) -> None:
    assert read_usage(usage) == (None, usage)


def test_usage_that_is_no_object_is_kept_aside() -> None:
    assert read_usage([8, 3]) == (None, {"usage": [8, 3]})


def test_counts_become_usage_and_back() -> None:
    counts = TokenCounts(
        prompt_tokens=100,
        completion_tokens=50,
        cache_read_tokens=64,
        cache_write_5m_tokens=20,
        reasoning_tokens=30,
        audio_input_tokens=10,
        audio_output_tokens=5,
    )

    assert usage_object(counts)["total_tokens"] == 150
    assert read_usage(usage_object(counts)) == (counts, None)


@pytest.mark.parametrize(
    ("counters", "extra_meters"),
    [
        ({"web_search_requests": 2, "tool_calls_requested": 2, "tool_calls_executed": 2}, {"web_searches": 2}),
        (
            {"tool_calls_requested": 5, "tool_calls_executed": 3, "web_search_requests": 1},
            {"web_searches": 1, "tool_calls": 2},
        ),
        ({"tool_calls_requested": 5, "tool_calls_executed": 0}, {}),
        ({"web_search_requests": None}, {}),
        ({"image_generations": 1}, {"image_generations": 1}),
    ],
)
def test_openrouters_own_tools_are_units_beside_the_tokens(
    counters: dict[str, Any], extra_meters: dict[str, int]
) -> None:
    counts, absurd = read_usage({"prompt_tokens": 9, "completion_tokens": 4, "server_tool_use": counters})
    assert (counts, absurd) == (TokenCounts(9, 4, extra_meters=extra_meters), None)


@pytest.mark.parametrize("eight", [8, 8.0, "8", "8.0"])
def test_a_number_counts_in_whatever_form_it_is_written(eight: object) -> None:
    """Servers that go through a float, or write all values as texts."""
    usage = {
        "prompt_tokens": eight,
        "completion_tokens": eight,
        "prompt_tokens_details": {"cached_tokens": eight},
        "num_search_queries": eight,
        "server_tool_use": {"calls": eight},
    }
    counts = TokenCounts(8, 8, cache_read_tokens=8, extra_meters={"web_searches": 8, "calls": 8})
    assert read_usage(usage) == (counts, None)
