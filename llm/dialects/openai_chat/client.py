"""The client side of OpenAI's chat completions: what a provider sends, and how it reads the answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson

from llm.dialects.base import ANY_SERVER, Server
from llm.dialects.json_size import is_readable_event
from llm.dialects.money_fields import read_upstream_cost
from llm.dialects.openai_chat.rendering import tool_call_object
from llm.dialects.openai_chat.usage import is_last_chunk, read_usage
from llm.dialects.thinking import read_delta_thinking, read_reply_thinking
from llm.dialects.usage_figures import merged_service, read_service
from llm.errors import UpstreamFailed, UpstreamRejected
from llm.types import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    ContentPart,
    FilePart,
    FinishReason,
    Reading,
    Service,
    StreamEnd,
    StreamItem,
    TextPart,
    TokenCounts,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    UpstreamCost,
)

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_BROKEN = "The provider's answer can't be understood."


def request_body(request: ChatRequest, *, is_stream: bool, server: Server = ANY_SERVER) -> bytes:
    """The body of `POST /chat/completions`; a stream is asked to end with its usage."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": _sent_messages(request.messages, server),
        server.maximum_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "response_format": request.response_format,
        "reasoning_effort": request.reasoning_effort,
        "user": request.user,
        # Nobody could ask for it later.
        "store": False if server.stores_chats else None,
    }
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
        body["parallel_tool_calls"] = None if request.tool_choice.parallel else False
    if is_stream:
        body |= {"stream": True, "stream_options": {"include_usage": True} if server.takes_stream_options else None}
    return orjson.dumps({name: value for name, value in body.items() if value is not None})


def check_request(request: ChatRequest) -> None:
    """Raises UpstreamRejected for what chat completions have no form for."""
    for message in request.messages:
        for part in () if isinstance(message.content, str) else message.content:
            if isinstance(part, FilePart) and not part.url.startswith("data:"):
                raise UpstreamRejected(
                    "This model takes no files by their address: send the content, in base64.", param="messages"
                )


def _sent_messages(messages: Iterable[ChatMessage], server: Server) -> list[dict[str, Any]]:
    """Results of tools can only be texts there: their images and files follow them in a message of the user's."""
    sent: list[dict[str, Any]] = []
    aside: list[ContentPart] = []
    for message in messages:
        if message.role == "tool" and not isinstance(message.content, str):
            aside += [part for part in message.content if not isinstance(part, TextPart)]
            texts = [part.text for part in message.content if isinstance(part, TextPart)]
            sent.append(_sent_message(replace(message, content="\n".join(texts)), server))
            continue
        if message.role != "tool" and aside:
            sent.append(message_object(ChatMessage("user", tuple(aside))))
            aside = []
        sent.append(_sent_message(message, server))
    return [*sent, message_object(ChatMessage("user", tuple(aside)))] if aside else sent


def _sent_message(message: ChatMessage, server: Server) -> dict[str, Any]:
    sent = message_object(message)
    if message.role == "developer":
        return {**sent, "role": server.developer_role}
    thought = "".join(thinking.text for thinking in message.thinking)
    if server.wants_reasoning and (thought or message.tool_calls):
        # An empty one for a caller who hasn't returned it, so that its tool loop can end.
        return {**sent, "reasoning_content": thought}
    return sent


def message_object(message: ChatMessage) -> dict[str, Any]:
    """Without thinking: there is no field for it that all servers accept."""
    content = message.content if isinstance(message.content, str) else [_part(part) for part in message.content]
    fields: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        fields["tool_calls"] = [tool_call_object(call) for call in message.tool_calls]
        fields["content"] = content or None
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        fields["name"] = message.name
    return fields


def read_reply(body: bytes, reply: Any = None) -> ChatResponse:
    """Raises UpstreamFailed if it isn't a chat completion.

    reply: the parsed bytes, if they were parsed elsewhere.
    """
    reply = _loaded(body) if reply is None else reply
    try:
        choice = reply["choices"][0]
        message = choice["message"]
        calls = tuple(_tool_call(call) for call in message.get("tool_calls") or ())
        return ChatResponse(
            reply=message.get("content") or "",
            model=str(reply.get("model") or ""),
            usage=_usage(reply.get("usage")),
            finish_reason=_FINISH_REASONS.get(str(choice.get("finish_reason")), "stop"),
            tool_calls=calls,
            response_id=str(reply.get("id") or ""),
            **read_service(reply, reply.get("usage"))._asdict(),
            upstream_cost=read_upstream_cost(reply),
            thinking=read_reply_thinking(message),
        )
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UpstreamFailed(_BROKEN, may_have_worked=True) from error


class StreamCollector:
    """Reads a stream's chunks one after another; `end` is due after `[DONE]`."""

    def __init__(self) -> None:
        self.is_done = False
        self._model = self._response_id = ""
        self._service = Service()
        self._finish_reason: FinishReason = "stop"
        self._usage: TokenCounts | None = None
        self._upstream_cost: UpstreamCost | None = None

    def feed(self, data: bytes) -> list[StreamItem]:
        """data: of one event. Raises UpstreamFailed for an error event, or anything that isn't a chunk."""
        if data == b"[DONE]":
            self.is_done = True
            return []
        chunk = _loaded(data)
        if chunk.get("error"):
            raise UpstreamFailed("The provider reported an error in the middle of its answer.", may_have_worked=True)
        self._model = str(chunk.get("model") or self._model)
        self._response_id = str(chunk.get("id") or self._response_id)
        self._service = merged_service(self._service, read_service(chunk, chunk.get("usage")))
        self._usage = _usage(chunk.get("usage")) or self._usage
        if (cost := read_upstream_cost(chunk)) is not None:
            self._upstream_cost = cost
        choices = chunk.get("choices")
        reported = [self._reading(is_final=is_last_chunk(choices))] if chunk.get("usage") is not None else []
        return [*reported, *self._items_of(choices)]

    def _items_of(self, choices: Any) -> list[StreamItem]:
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return []
        self._finish_reason = _FINISH_REASONS.get(str(choices[0].get("finish_reason")), self._finish_reason)
        delta = choices[0].get("delta")
        return _items(delta) if isinstance(delta, dict) else []

    def end(self) -> StreamEnd:
        return StreamEnd(
            model=self._model,
            usage=self._usage,
            finish_reason=self._finish_reason,
            response_id=self._response_id,
            **self._service._asdict(),
            upstream_cost=self._upstream_cost,
        )

    def _reading(self, *, is_final: bool) -> Reading:
        return Reading(
            counts=self._usage,
            model=self._model,
            response_id=self._response_id,
            service=self._service,
            is_final=is_final,
            upstream_cost=self._upstream_cost,
        )


def _items(delta: Mapping[str, Any]) -> list[StreamItem]:
    items: list[StreamItem] = [*read_delta_thinking(delta)]
    content = delta.get("content")
    if isinstance(content, str) and content:
        items.append(content)
    for call in delta.get("tool_calls") or ():
        function = call.get("function") or {}
        items.append(
            ToolCallDelta(
                index=int(call.get("index") or 0),
                id=str(call.get("id") or ""),
                name=str(function.get("name") or ""),
                arguments=str(function.get("arguments") or ""),
            )
        )
    return items


def _usage(usage: object) -> TokenCounts | None:
    counts, absurd = read_usage(usage)
    # An impossible figure, so that the settlement disputes it; otherwise an absurd report would look like none.
    return TokenCounts(prompt_tokens=-1) if absurd is not None else counts


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": {**function, "strict": True} if tool.is_strict else function}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    mode: Literal["auto", "none", "required", "tool"] = choice.mode
    return {"type": "function", "function": {"name": choice.name}} if mode == "tool" else mode


def _tool_call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    return ToolCall(
        id=str(call.get("id") or ""), name=str(function["name"]), arguments=str(function.get("arguments") or "")
    )


def _part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, FilePart):
        return {"type": "file", "file": {"filename": part.filename or "file", "file_data": part.url}}
    image = {"url": part.url} if part.detail is None else {"url": part.url, "detail": part.detail}
    return {"type": "image_url", "image_url": image}


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        loaded = orjson.loads(body) if is_readable_event(body) else None
    except orjson.JSONDecodeError as error:
        raise UpstreamFailed(_BROKEN, may_have_worked=True) from error
    if not isinstance(loaded, dict):
        raise UpstreamFailed(_BROKEN, may_have_worked=True)
    return loaded
