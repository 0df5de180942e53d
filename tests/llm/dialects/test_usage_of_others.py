"""Usage is read as genai-prices reads it, which other people maintain."""

from __future__ import annotations

from typing import Any

from genai_prices import extract_usage
from hypothesis import given
from hypothesis import strategies as st

from llm.dialects.anthropic_messages import usage as anthropic_usage
from llm.dialects.openai_chat import usage as openai_usage
from llm.dialects.openai_responses import usage as responses_usage
from llm.types import TokenCounts

_tokens = st.integers(min_value=0, max_value=2_000_000)


def read_by_others(body: dict[str, Any], *, provider: str, flavor: str = "default") -> TokenCounts:
    found = extract_usage(body, provider_id=provider, api_flavor=flavor).usage
    written, written_1h = int(found.cache_write_tokens or 0), int(found.cache_write_1h_tokens or 0)
    return TokenCounts(
        prompt_tokens=int(found.input_tokens or 0),
        completion_tokens=int(found.output_tokens or 0),
        cache_read_tokens=int(found.cache_read_tokens or 0),
        cache_write_5m_tokens=written - written_1h,
        cache_write_1h_tokens=written_1h,
        reasoning_tokens=int(found.output_reasoning_tokens or 0),
        audio_input_tokens=int(found.input_audio_tokens or 0),
        audio_output_tokens=int(found.output_audio_tokens or 0),
    )


@given(_tokens, _tokens, _tokens, _tokens, _tokens, _tokens)
def test_of_chats(text: int, cached: int, heard: int, said: int, thought: int, spoken: int) -> None:
    usage = {
        "prompt_tokens": text + cached + heard,
        "completion_tokens": said + thought + spoken,
        "total_tokens": text + cached + heard + said + thought + spoken,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": heard},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": spoken},
    }
    counts, absurd = openai_usage.read_usage(usage)
    assert absurd is None
    assert counts == read_by_others({"model": "gpt-4o", "usage": usage}, provider="openai", flavor="chat")


@given(_tokens, _tokens, _tokens, _tokens)
def test_of_responses(text: int, cached: int, said: int, thought: int) -> None:
    usage = {
        "input_tokens": text + cached,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": said + thought,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": text + cached + said + thought,
    }
    body = {"object": "response", "model": "gpt-5", "usage": usage}
    read = responses_usage.read_usage(body)
    assert read.absurd is None
    assert read.counts == read_by_others(body, provider="openai", flavor="responses")


@given(_tokens, _tokens, _tokens, _tokens, _tokens)
def test_of_messages(text: int, cached: int, for_minutes: int, for_an_hour: int, said: int) -> None:
    usage = {
        "input_tokens": text,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": for_minutes + for_an_hour,
        "cache_creation": {"ephemeral_5m_input_tokens": for_minutes, "ephemeral_1h_input_tokens": for_an_hour},
        "output_tokens": said,
    }
    counts, absurd = anthropic_usage.read_usage(usage)
    assert absurd is None
    assert counts == read_by_others({"model": "claude-sonnet-4-5", "usage": usage}, provider="anthropic")
