"""The provider for first runs and demonstrations: offline, deterministic, answers with what it was told.

Asked with tools it calls one, and once it has been given the result it talks again; asked for JSON it writes JSON. So
every example of the documents has an answer before there is a real model.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from hashlib import sha256

from llm.providers.base import ProviderSettings
from llm.providers.counting import count_message_tokens, count_text_tokens
from llm.providers.echo_json import example_of
from llm.types import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    FinishReason,
    StreamEnd,
    StreamItem,
    TokenCounts,
    Tool,
    ToolCall,
    ToolCallDelta,
)

_NOTHING = "(nothing was said)"


class EchoProvider:
    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name

    async def chat(self, request: ChatRequest) -> ChatResponse:
        reply, call = _reply_to(request), _call_for(request)
        return ChatResponse(
            reply=reply if call is None else "",
            model=request.model,
            usage=self._usage(request, reply, call),
            finish_reason=_reason(call),
            tool_calls=() if call is None else (call,),
        )

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        reply, call = _reply_to(request), _call_for(request)
        if call is None:
            for word in re.findall(r"\s*\S+\s*$|\s*\S+", reply):
                yield word
        else:
            yield ToolCallDelta(0, call.id, call.name)
            yield ToolCallDelta(0, arguments=call.arguments)
        yield StreamEnd(request.model, self._usage(request, reply, call), _reason(call))

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        return count_message_tokens(messages)

    def _usage(self, request: ChatRequest, reply: str, call: ToolCall | None) -> TokenCounts:
        written = reply if call is None else f"{call.name} {call.arguments}"
        return TokenCounts(
            prompt_tokens=self.count_tokens(request.messages, request.model),
            completion_tokens=count_text_tokens(written),
        )


def _reply_to(request: ChatRequest) -> str:
    spoken = [message.text for message in request.messages if message.role == "user"]
    said = spoken[-1] if spoken and spoken[-1].strip() else _NOTHING
    wanted: Mapping[str, object] = request.response_format or {}
    if wanted.get("type") == "json_object":
        return json.dumps({"echo": said}, ensure_ascii=False)
    if wanted.get("type") == "json_schema":
        described = wanted.get("json_schema")
        return json.dumps(example_of(described.get("schema") if isinstance(described, Mapping) else None))
    return f"Echo: {said}"


def _call_for(request: ChatRequest) -> ToolCall | None:
    """None where there is nothing to call, or what was called last has answered."""
    tool = _chosen_tool(request)
    if tool is None or (request.messages and request.messages[-1].role == "tool"):
        return None
    arguments = json.dumps(example_of({"type": "object", **tool.parameters}))
    digest = sha256(f"{len(request.messages)} {tool.name} {arguments}".encode()).hexdigest()
    return ToolCall(f"call_{digest[:24]}", tool.name, arguments)


def _chosen_tool(request: ChatRequest) -> Tool | None:
    choice = request.tool_choice
    if choice is not None and choice.mode == "none":
        return None
    names = {tool.name: tool for tool in request.tools}
    if choice is not None and choice.name is not None:
        return names.get(choice.name)
    return next(iter(request.tools), None)


def _reason(call: ToolCall | None) -> FinishReason:
    return "stop" if call is None else "tool_calls"
