"""Counting what an upstream did not report: by the provider's own counter, which may be anybody's code."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from llm.calls.estimation import estimate
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.providers.base import ProviderSettings
from llm.providers.counting import MESSAGE_OVERHEAD_TOKENS, count_text_tokens
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamItem, TokenCounts

REQUEST = OPENAI_CHAT.parse(b'{"model":"gpt-4o","messages":[{"role":"user","content":"Hello there"}]}')
PROMPT = OPENAI_CHAT.prompt_text(REQUEST)


class CountingProvider:
    """A provider that can do nothing but count: a fixed overhead and a token a character, or what it is told to."""

    def __init__(self, settings: ProviderSettings | None = None, *, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[tuple[ChatMessage, ...], str]] = []

    async def chat(self, request: ChatRequest) -> ChatResponse:
        raise NotImplementedError

    def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        raise NotImplementedError

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        self.asked.append((tuple(messages), model))
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer  # type: ignore[no-any-return]  # nothing holds a custom provider to its types
        return 100 + sum(len(message.text) for message in messages)


def test_the_provider_counts_the_prompt_and_the_text() -> None:
    provider = CountingProvider()
    assert estimate(provider, OPENAI_CHAT, REQUEST, "Hi!") == TokenCounts(100 + len(PROMPT), 3)
    assert {model for _, model in provider.asked} == {"gpt-4o"}
    assert "Hello there" in provider.asked[0][0][0].text


def test_no_text_is_no_completion() -> None:
    assert estimate(CountingProvider(), OPENAI_CHAT, REQUEST, "") == TokenCounts(100 + len(PROMPT), 0)


def test_text_that_was_not_kept_counts_as_the_rest_does() -> None:
    counts = estimate(CountingProvider(), OPENAI_CHAT, REQUEST, "x" * 10, unkept_characters=25)
    assert counts.completion_tokens == 35


@pytest.mark.parametrize("answer", [RuntimeError("the prompt is: Hello there"), -1, 1.5, [], "9", True, 2**70])
def test_a_counter_that_fails_is_replaced_and_told_of(answer: Any) -> None:
    provider = CountingProvider(answer=answer)
    with capture_logs() as logs:
        counts = estimate(provider, OPENAI_CHAT, REQUEST, "Hi!")
    assert counts == TokenCounts(MESSAGE_OVERHEAD_TOKENS + count_text_tokens(PROMPT), count_text_tokens("Hi!"))
    assert {(log["event"], log["provider"]) for log in logs} == {("provider.count_tokens_failed", "CountingProvider")}
    assert "Hello" not in repr(logs)
