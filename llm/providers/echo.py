"""The provider for first runs and demonstrations: offline, deterministic, answers with what it was told.

Given tools it calls one, and given the result it answers with text; asked for JSON it writes JSON. So every example in
the documentation works without a real model. An output maximum cuts whatever it says.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from llm.providers.base import ProviderSettings
from llm.providers.counting import count_message_tokens, count_text_tokens, first_tokens
from llm.providers.echo_json import build_example
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


@dataclass(frozen=True, slots=True)
class _Answer:
    """A text, or a tool call."""

    reply: str
    call: ToolCall | None
    tokens: int
    finish_reason: FinishReason


class EchoProvider:
    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name

    async def chat(self, request: ChatRequest) -> ChatResponse:
        answer = _answer_to(request)
        return ChatResponse(
            reply=answer.reply,
            model=request.model,
            usage=self._usage(request, answer),
            finish_reason=answer.finish_reason,
            tool_calls=() if answer.call is None else (answer.call,),
        )

    async def stream_chat(self, request: ChatRequest) -> AsyncIterator[StreamItem]:
        answer = _answer_to(request)
        if answer.call is None:
            for word in re.findall(r"\s*\S+\s*$|\s*\S+", answer.reply):
                yield word
        else:
            yield ToolCallDelta(0, answer.call.id, answer.call.name)
            yield ToolCallDelta(0, arguments=answer.call.arguments)
        yield StreamEnd(request.model, self._usage(request, answer), answer.finish_reason)

    def count_tokens(self, messages: Sequence[ChatMessage], model: str) -> int:
        return count_message_tokens(messages)

    def _usage(self, request: ChatRequest, answer: _Answer) -> TokenCounts:
        return TokenCounts(
            prompt_tokens=self.count_tokens(request.messages, request.model), completion_tokens=answer.tokens
        )


def _answer_to(request: ChatRequest) -> _Answer:
    """For a tool call, the arguments are cut; the name stays, whatever the maximum."""
    call, maximum = _call_for(request), request.max_tokens
    reply = _reply_to(request) if call is None else ""
    tokens = count_text_tokens(reply if call is None else f"{call.name} {call.arguments}")
    if maximum is None or tokens <= maximum:
        return _Answer(reply, call, tokens, "stop" if call is None else "tool_calls")
    if call is not None:
        left = max(0, maximum - count_text_tokens(call.name))
        call = replace(call, arguments=first_tokens(call.arguments, left))
    return _Answer(first_tokens(reply, maximum), call, maximum, "length")


def _reply_to(request: ChatRequest) -> str:
    spoken = [message.text for message in request.messages if message.role == "user"]
    said = spoken[-1] if spoken and spoken[-1].strip() else _NOTHING
    wanted: Mapping[str, object] = request.response_format or {}
    if wanted.get("type") == "json_object":
        return json.dumps({"echo": said}, ensure_ascii=False)
    if wanted.get("type") == "json_schema":
        described = wanted.get("json_schema")
        return json.dumps(build_example(described.get("schema") if isinstance(described, Mapping) else None))
    return f"Echo: {said}"


def _call_for(request: ChatRequest) -> ToolCall | None:
    """None if there is no tool to call, or the last call has its result."""
    tool = _chosen_tool(request)
    if tool is None or (request.messages and request.messages[-1].role == "tool"):
        return None
    arguments = json.dumps(build_example({"type": "object", **tool.parameters}))
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
