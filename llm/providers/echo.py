"""The provider for first runs and demonstrations: offline, deterministic, answers with what it was told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence

from llm.providers.base import ProviderSettings
from llm.providers.counting import count_message_tokens, count_text_tokens
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamEnd, StreamItem, TokenCounts


class EchoProvider:
    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name

    async def chat(self, request: ChatRequest) -> ChatResponse:
        reply = _reply_to(request)
        return ChatResponse(reply=reply, model=request.model, usage=self._usage(request, reply))

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        reply = _reply_to(request)
        for word in re.findall(r"\s*\S+\s*$|\s*\S+", reply):
            yield word
        yield StreamEnd(model=request.model, usage=self._usage(request, reply))

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        return count_message_tokens(messages)

    def _usage(self, request: ChatRequest, reply: str) -> TokenCounts:
        return TokenCounts(
            prompt_tokens=self.count_tokens(request.messages, request.model),
            completion_tokens=count_text_tokens(reply),
        )


def _reply_to(request: ChatRequest) -> str:
    spoken = [message.text for message in request.messages if message.role == "user"]
    return f"Echo: {spoken[-1]}" if spoken and spoken[-1].strip() else "Echo: (nothing was said)"
