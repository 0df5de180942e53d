"""OpenAI, and every server that speaks its dialect (Ollama, vLLM, LM Studio), through the official SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import cast
from urllib.parse import urlsplit

import httpx2
from openai import AsyncOpenAI, AsyncStream

from llm.dialects.base import Server
from llm.dialects.openai_chat import client as openai_chat_client
from llm.dialects.openai_responses.counting import PATH as COUNT_PATH
from llm.dialects.openai_responses.counting import count_body, read_count
from llm.enums import Dialect
from llm.errors import UpstreamError, UpstreamRejected
from llm.providers.base import ProviderSettings, RawCall, RawFetch
from llm.providers.counting import count_message_tokens
from llm.providers.failures import before_sending, misses_reasoning, refuses_stream_options, upstream_error
from llm.providers.raw import UpstreamReply, forward, read_all, read_items
from llm.providers.transport import UpstreamTransport, client_on
from llm.types import ChatMessage, ChatRequest, ChatResponse, StreamItem

# OpenAI stores chat completions of newer organizations unless it is told not to (its guide "Migrate to the Responses
# API"). Newer OpenAI models refuse `max_tokens`; compatible servers may know nothing else, and ignore unknown fields.
_STORING_HOST = "api.openai.com"
_OPENAI_HOSTS = (_STORING_HOST, ".openai.azure.com")


_MAX_MODELS = 1000
_WITHOUT_ENDPOINT = (404, 405, 501)


class OpenAIProvider:
    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self.dialects = settings.dialects
        self._secret = settings.api_key
        self.maximum_field = _maximum_field(settings.base_url)
        self._without_stream_options: set[str] = set()
        self._with_reasoning: set[str] = set()
        self._developer_role = settings.developer_role
        self._transport = UpstreamTransport(settings)
        self._base_url = settings.base_url.rstrip("/")
        self._client = AsyncOpenAI(
            api_key=settings.api_key or "none",
            base_url=settings.base_url,
            max_retries=0,
            timeout=httpx2.Timeout(settings.idle_timeout_s, connect=settings.connect_timeout_s),
            http_client=client_on(self._transport),
        )
        # The SDK takes these from the environment if they aren't given; the gateway uses only its settings.
        self._client.organization = None
        self._client.project = None
        self._client._custom_headers = {}

    def check_request(self, request: ChatRequest) -> None:
        openai_chat_client.check_request(request)

    async def chat(self, request: ChatRequest) -> ChatResponse:
        return openai_chat_client.read_reply(*await read_all(await self._post_chat(request, is_stream=False)))

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        reply = await self._post_chat(request, is_stream=True)
        async with aclosing(read_items(reply, openai_chat_client.StreamCollector())) as items:
            async for item in items:
                yield item

    def server_for(self, model: str) -> Server:
        return Server(
            self.maximum_field,
            takes_stream_options=model not in self._without_stream_options,
            developer_role=self._developer_role,
            stores_chats=_host_of(self._base_url).endswith(_STORING_HOST),
            wants_reasoning=model in self._with_reasoning,
        )

    def learn_no_stream_options(self, model: str) -> bool:
        """The server of this model refuses to be asked for the usage of a stream; returns whether that is new."""
        return _is_new(model, self._without_stream_options)

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        return count_message_tokens(messages)

    async def count_prompt(self, request: ChatRequest) -> int | None:
        """None for a server without responses, and for one that has them without this endpoint."""
        if Dialect.OPENAI_RESPONSES not in self.dialects:
            return None
        headers = {"content-type": "application/json"}
        try:
            reply = await self._exchange("POST", COUNT_PATH, headers=headers, body=count_body(request))
        except UpstreamError as error:
            if error.upstream_status in _WITHOUT_ENDPOINT and not _is_openai(self._base_url):
                return None
            raise
        _, counted = await read_all(reply)
        return read_count(counted)

    async def forward(self, call: RawCall) -> UpstreamReply:
        return await self._exchange("POST", call.path, headers=call.headers, body=call.body)

    async def fetch(self, fetch: RawFetch) -> UpstreamReply:
        return await self._exchange(fetch.method, fetch.path, headers={}, body=b"")

    async def aclose(self) -> None:
        await self._client.close()

    async def _post_chat(self, request: ChatRequest, *, is_stream: bool) -> UpstreamReply:
        while True:
            try:
                return await self._post(self._body(request, is_stream=is_stream))
            except UpstreamRejected as refusal:
                if not self._has_learned(refusal, request, is_stream=is_stream):
                    raise

    def _has_learned(self, refusal: UpstreamRejected, request: ChatRequest, *, is_stream: bool) -> bool:
        """Whether the refusal says something new about the server, so that another body may be accepted."""
        if is_stream and refuses_stream_options(refusal):
            return self.learn_no_stream_options(request.model)
        if misses_reasoning(refusal) and any(message.tool_calls for message in request.messages):
            return _is_new(request.model, self._with_reasoning)
        return False

    def _body(self, request: ChatRequest, *, is_stream: bool) -> bytes:
        with before_sending(self.name):
            return openai_chat_client.request_body(request, is_stream=is_stream, server=self.server_for(request.model))

    async def _exchange(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes) -> UpstreamReply:
        ours = {"authorization": f"Bearer {self._secret}"} if self._secret else {}
        return await forward(
            self._transport,
            self._base_url + path,
            headers={**headers, **ours},
            body=body,
            provider=self.name,
            secret=self._secret,
            method=method,
        )

    async def _post(self, body: bytes) -> UpstreamReply:
        try:
            response = await self._client.post(
                "/chat/completions",
                content=body,
                cast_to=httpx2.Response,
                stream=True,
                stream_cls=AsyncStream[object],
                options={"headers": {"content-type": "application/json"}},
            )
        except Exception as error:
            raise upstream_error(error, provider=self.name, secret=self._secret) from error
        # The SDK returns the unread response unchanged when asked to cast to its class.
        unread = cast("httpx2.AsyncByteStream", cast("httpx2.Response", response).stream)
        return UpstreamReply(unread, provider=self.name, secret=self._secret)


def _maximum_field(base_url: str) -> str:
    return "max_completion_tokens" if _is_openai(base_url) else "max_tokens"


def _is_openai(base_url: str) -> bool:
    return _host_of(base_url).endswith(_OPENAI_HOSTS)


def _host_of(base_url: str) -> str:
    return urlsplit(base_url).hostname or ""


def _is_new(model: str, models: set[str]) -> bool:
    """Remembers it; callers choose names, so this is bounded."""
    if model in models:
        return False
    if len(models) >= _MAX_MODELS:
        models.clear()
    models.add(model)
    return True
