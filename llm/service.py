"""The only interface to language models. Views call it and never import an SDK.

service = LLMService()
response = await service.chat([ChatMessage(role="user", content="Hello")])
async for text in await service.chat(messages, stream=True): ...
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import orjson
from django.conf import settings

from llm.bodies.budget import BodyLease
from llm.books.operations import Claim
from llm.calls.relay import Relay
from llm.calls.runtime import runtime
from llm.calls.task import RequestTask
from llm.dialects.base import ParsedRequest, WireFormat
from llm.dialects.native import NATIVE
from llm.dialects.openai_chat.client import message_object
from llm.dialects.sse import EventSplitter, read_event, split_events
from llm.errors import InvalidKey, InvalidRequest, UpstreamFailed
from llm.keys import Caller, own_caller
from llm.prices.catalog import resolve_model
from llm.providers.base import Closing
from llm.types import ChatMessage, ChatRequest, ChatResponse, TokenCounts, ToolCall


class LLMService:
    """caller: whose calls these are. Without one they are recorded for the gateway's own account."""

    def __init__(self, caller: Caller | None = None) -> None:
        self._caller = caller

    def start(
        self,
        wire: WireFormat,
        request: ParsedRequest,
        *,
        forwarded_headers: Mapping[str, str],
        body_lease: BodyLease | None = None,
        claim: Claim | None = None,
    ) -> RequestTask:
        """Begin a request that came in over HTTP. Raises ShuttingDown.

        body_lease: held by the task until its end, since the body is sent again on a retry.
        """
        if self._caller is None:
            raise InvalidKey("A call over HTTP needs a key.")
        task = RequestTask(runtime(), self._caller, wire, request, forwarded_headers=forwarded_headers, claim=claim)
        runtime().start(task, on_end=None if body_lease is None else body_lease.share())
        return task

    async def chat(
        self,
        messages: Sequence[ChatMessage],
        model: str | None = None,
        stream: bool = False,  # the signature is given by the specification
        track_tokens: bool = True,
    ) -> ChatResponse | AsyncGenerator[str, None]:
        """A whole reply or, with `stream`, its text as it comes. model: None for LLM_DEFAULT_MODEL.

        track_tokens: record the call on the books, as every call over HTTP is; False leaves no trace of it.
        Raises GatewayError.
        """
        if not track_tokens:
            return await _untracked(messages, model=model or settings.LLM_DEFAULT_MODEL, is_stream=stream)
        if self._caller is None:
            self._caller = await runtime().run_db(own_caller)
        request = NATIVE.parse(_native_body(messages, model=model, is_stream=stream))
        task = self.start(NATIVE, request, forwarded_headers={})
        reply = await task.audience.wait()
        return _deltas(reply.body) if isinstance(reply.body, Relay) else _read_response(reply.body)


def _native_body(messages: Sequence[ChatMessage], *, model: str | None, is_stream: bool) -> bytes:
    body = {"messages": [message_object(message) for message in messages], "model": model, "stream": is_stream}
    return orjson.dumps(body)


def _read_response(raw: bytes) -> ChatResponse:
    body = orjson.loads(raw)
    usage = TokenCounts(body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"])
    calls = tuple(
        ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in body.get("tool_calls", ())
    )
    return ChatResponse(reply=body["reply"], model=body["model"], usage=usage, tool_calls=calls)


async def _deltas(relay: Relay) -> AsyncGenerator[str, None]:
    splitter = EventSplitter()
    try:
        async with aclosing(aiter(relay)) as pieces:
            async for piece in pieces:
                for raw in split_events(splitter.feed(piece)):
                    if delta := _delta_of(raw):
                        yield delta
    finally:
        relay.leave()


def _delta_of(raw: bytes) -> str:
    event = orjson.loads(read_event(raw).data or b"{}")
    if "error" in event:
        raise UpstreamFailed(event["error"]["message"], code=event["error"]["code"], may_have_worked=True)
    return str(event.get("delta") or "")


async def _untracked(
    messages: Sequence[ChatMessage], *, model: str, is_stream: bool
) -> ChatResponse | AsyncGenerator[str, None]:
    if not model:
        raise InvalidRequest("Set 'model': this gateway has no default model.", param="model")
    catalog = await runtime().catalog()
    target = resolve_model(catalog, model, at=datetime.now(UTC)).targets[0]
    provider = runtime().provider(target.instance)
    request = ChatRequest(model=target.upstream_model, messages=tuple(messages))
    if not is_stream:
        return await provider.chat(request)

    async def text() -> AsyncGenerator[str, None]:
        async with Closing(provider.stream_chat(request)) as items:
            async for item in items:
                if isinstance(item, str):
                    yield item

    return text()
