"""Anthropic's Messages API, through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import cast
from urllib.parse import quote

import httpx2
from anthropic import AsyncAnthropic, AsyncStream, Omit

from llm.dialects.anthropic_messages.client import MessageCollector, read_reply
from llm.dialects.anthropic_messages.counting import PATH as COUNT_PATH
from llm.dialects.anthropic_messages.counting import count_body, read_count
from llm.dialects.anthropic_messages.request import API_VERSION, DEFAULT_MAX_TOKENS, request_body
from llm.dialects.anthropic_messages.tool_names import original_names
from llm.enums import Dialect
from llm.providers.base import ProviderSettings, RawCall
from llm.providers.counting import count_message_tokens
from llm.providers.failures import before_sending, upstream_error
from llm.providers.output_maxima import OutputMaxima, stated_maximum
from llm.providers.raw import UpstreamReply, forward, read_all, read_items
from llm.providers.transport import UpstreamTransport, client_on
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamItem, ToolCallDelta


class AnthropicProvider:
    dialects = frozenset((Dialect.ANTHROPIC_MESSAGES,))
    maximum_field = "max_tokens"

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self._secret = settings.api_key
        self._transport = UpstreamTransport(settings)
        self._base_url = settings.base_url.rstrip("/")
        self._client = AsyncAnthropic(
            # Without a key the SDK would look for one in the environment and in the user's home directory.
            api_key=settings.api_key or "none",
            base_url=settings.base_url,
            max_retries=0,
            timeout=httpx2.Timeout(settings.idle_timeout_s, connect=settings.connect_timeout_s),
            http_client=client_on(self._transport),
            open_telemetry=False,
        )
        # The SDK takes ANTHROPIC_CUSTOM_HEADERS from the environment; the gateway uses only its settings.
        self._client._custom_headers = {}
        self._headers: dict[str, str | Omit] = {
            "content-type": "application/json",
            "anthropic-version": API_VERSION,
            # The SDK sends `Authorization: Bearer`, which not all servers with this API know.
            "x-api-key": settings.api_key or "none",
            "authorization": Omit(),
        }
        self._maximum = settings.max_output_tokens
        self._maxima = OutputMaxima(self._describe)

    async def chat(self, request: ChatRequest) -> ChatResponse:
        response = read_reply(*await read_all(await self._post(await self._body(request, is_stream=False))))
        names = original_names(request)
        calls = tuple(replace(call, name=names.get(call.name, call.name)) for call in response.tool_calls)
        return replace(response, tool_calls=calls)

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        reply = await self._post(await self._body(request, is_stream=True))
        names = original_names(request)
        async with aclosing(read_items(reply, MessageCollector())) as items:
            async for item in items:
                if isinstance(item, ToolCallDelta) and item.name in names:
                    yield replace(item, name=names[item.name])
                else:
                    yield item

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        return count_message_tokens(messages)

    def check_request(self, request: ChatRequest) -> None:
        with before_sending(self.name):
            request_body(request, is_stream=False)

    async def find_output_maximum(self, model: str) -> int | None:
        return stated_maximum(self.name, model) or await self._maxima.find_maximum(model)

    async def find_default_maximum(self, model: str) -> int | None:
        return self._maximum or await self.find_output_maximum(model)

    async def count_prompt(self, request: ChatRequest) -> int:
        with before_sending(self.name):
            body = count_body(request)
        headers = {"content-type": "application/json"}
        _, reply = await read_all(await self._exchange("POST", COUNT_PATH, headers=headers, body=body))
        return read_count(reply)

    async def forward(self, call: RawCall) -> UpstreamReply:
        """With the caller's version of the API, or that of translated calls; the key is ours."""
        return await self._exchange("POST", call.path, headers=call.headers, body=call.body)

    async def aclose(self) -> None:
        await self._client.close()

    async def _body(self, request: ChatRequest, *, is_stream: bool) -> bytes:
        if request.max_tokens is None:
            maximum = await self.find_default_maximum(request.model)
            request = replace(request, max_tokens=maximum or DEFAULT_MAX_TOKENS)
        with before_sending(self.name):
            return request_body(request, is_stream=is_stream)

    async def _describe(self, model: str) -> Mapping[str, object]:
        path = f"/v1/models/{quote(model, safe='')}"
        _, described = await read_all(await self._exchange("GET", path, headers={}, body=b""))
        return described if isinstance(described, dict) else {}

    async def _exchange(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes) -> UpstreamReply:
        return await forward(
            self._transport,
            self._base_url + path,
            headers={"anthropic-version": API_VERSION, **headers, "x-api-key": self._secret or "none"},
            body=body,
            provider=self.name,
            secret=self._secret,
            method=method,
        )

    async def _post(self, body: bytes) -> UpstreamReply:
        try:
            response = await self._client.post(
                "/v1/messages",
                content=body,
                cast_to=httpx2.Response,
                stream=True,
                stream_cls=AsyncStream[object],
                options={"headers": self._headers},
            )
        except Exception as error:
            raise upstream_error(error, provider=self.name, secret=self._secret) from error
        # The SDK returns the unread response unchanged when asked to cast to its class.
        unread = cast("httpx2.AsyncByteStream", cast("httpx2.Response", response).stream)
        return UpstreamReply(unread, provider=self.name, secret=self._secret)
