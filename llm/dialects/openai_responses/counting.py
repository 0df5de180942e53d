"""OpenAI's `POST /v1/responses/input_tokens`: how many tokens a prompt has, free of charge.

Source, read 2026-11: openai 3.54 (`types/responses/input_token_count_params.py`, `input_token_count_response.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from llm.dialects.base import Extent, ParsedRequest
from llm.dialects.openai_responses.wire import OpenAIResponses
from llm.dialects.reply_fields import loaded_reply
from llm.dialects.usage_figures import whole_number
from llm.errors import UpstreamFailed
from llm.types import (
    ChatMessage,
    ChatRequest,
    ChatResponse,
    ContentPart,
    FilePart,
    Reading,
    TextPart,
    TokenCounts,
    Tool,
)

PATH = "/responses/input_tokens"


class CountInputTokens(OpenAIResponses):
    """Its `PassThrough` wire format. The counted tokens aren't usage: the books get a call of zero tokens."""

    path = PATH
    name = "token counts (POST /v1/responses/input_tokens)"
    is_on_every_server = False
    stores_by_default = False

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        request = super().parse(raw, body)
        return replace(request, is_stream=False, wants_stream_usage=False, tool_meters=(), is_count=True)

    def extent(self, request: ParsedRequest) -> Extent:
        return Extent(0)

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        read_count(loaded_reply(body, reply))
        return Reading(counts=TokenCounts(), is_final=True, reports_tools=True)

    def with_cost(self, body: bytes, cost: str) -> bytes:
        return body

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        return ""

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        """response.usage: the count, of the provider's or our own."""
        tokens = (response.usage or TokenCounts()).prompt_tokens
        return orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})


COUNT_INPUT_TOKENS = CountInputTokens()


def count_body(request: ChatRequest) -> bytes:
    """The prompt of a translated request, to be counted."""
    body = {
        "model": request.model,
        "input": [item for message in request.messages for item in _items(message)],
        "tools": [_tool(tool) for tool in request.tools],
        "text": _text(request.response_format),
    }
    return orjson.dumps({name: value for name, value in body.items() if value})


def read_count(reply: Any) -> int:
    """Raises UpstreamFailed if it isn't a number of tokens."""
    if isinstance(reply, dict) and (tokens := whole_number(reply.get("input_tokens"))) is not None:
        return tokens
    raise UpstreamFailed("The upstream sent a reply that is not a number of tokens.", may_have_worked=True)


def _items(message: ChatMessage) -> Iterator[dict[str, Any]]:
    if message.role == "tool":
        yield {"type": "function_call_output", "call_id": message.tool_call_id or "", "output": _content(message)}
        return
    if message.text or not isinstance(message.content, str):
        yield {"role": message.role, "content": _content(message)}
    for call in message.tool_calls:
        yield {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    return message.text if message.role == "assistant" else [_part(part) for part in message.content]


def _part(part: ContentPart) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "input_text", "text": part.text}
    if isinstance(part, FilePart):
        if not part.url.startswith("data:"):
            return {"type": "input_file", "file_url": part.url}
        return {"type": "input_file", "filename": part.filename or "file.pdf", "file_data": part.url}
    return {"type": "input_image", "image_url": part.url, "detail": "auto"}


def _tool(tool: Tool) -> dict[str, Any]:
    described = {"type": "function", "name": tool.name, "parameters": tool.parameters, "strict": tool.is_strict}
    return {**described, "description": tool.description} if tool.description else described


def _text(response_format: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if response_format is None:
        return {}
    kind = response_format["type"]
    return {"format": {"type": kind, **(response_format["json_schema"] if kind == "json_schema" else {})}}
