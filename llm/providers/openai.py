"""OpenAI, and every server that speaks its dialect (Ollama, vLLM, LM Studio), through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
from openai import AsyncOpenAI

from llm.enums import Dialect
from llm.providers.base import ProviderSettings, RawCall
from llm.providers.counting import count_message_tokens
from llm.providers.failures import upstream_error
from llm.providers.raw import SdkReply
from llm.providers.transport import build_http_client
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamItem


class OpenAIProvider:
    dialects = frozenset((Dialect.OPENAI_CHAT,))

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self._secret = settings.api_key
        self._client = AsyncOpenAI(
            api_key=settings.api_key or "none",
            base_url=settings.base_url,
            max_retries=0,
            timeout=httpx2.Timeout(settings.idle_timeout_s, connect=settings.connect_timeout_s),
            http_client=build_http_client(settings),
        )
        # The SDK takes these from the environment where they are not given; the gateway's are its settings alone.
        self._client.organization = None
        self._client.project = None

    async def forward(self, call: RawCall) -> SdkReply:
        try:
            response = await self._client.post(
                call.path,
                content=call.body,
                cast_to=httpx2.Response,
                stream=True,
                stream_cls=None,
                options={"headers": {**call.headers, "content-type": "application/json"}},
            )
        except Exception as error:
            raise upstream_error(error, provider=self.name) from error
        return SdkReply(response, provider=self.name, secret=self._secret)

    async def chat(self, request: ChatRequest) -> ChatResponse:
        raise NotImplementedError

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        raise NotImplementedError
        yield

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        return count_message_tokens(messages)

    async def aclose(self) -> None:
        await self._client.close()
