"""Anthropic's Messages API: `POST /v1/messages`.

A request is validated only as far as the gateway depends on it. Everything else, including unknown fields, is up to the
upstream.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from llm.dialects.anthropic_messages import errors as anthropic_errors
from llm.dialects.anthropic_messages import rendering
from llm.dialects.anthropic_messages.blocks import content_text, prompt_text, signed_messages
from llm.dialects.anthropic_messages.extent import lowered_output, measure_extent, read_maximum
from llm.dialects.anthropic_messages.fields import REQUEST, refuse_kept_at_provider
from llm.dialects.anthropic_messages.stream import MessagesReader
from llm.dialects.anthropic_messages.tools import UsesOfTools, tool_meters
from llm.dialects.anthropic_messages.translation import to_chat
from llm.dialects.anthropic_messages.usage import read_usage
from llm.dialects.base import Extent, Origin, ParsedRequest, Rendered, Server, StreamReader, StreamWriter
from llm.dialects.end_users import messages_end_user
from llm.dialects.error_shapes import says_error
from llm.dialects.field_names import Names, renamed, renamed_tool, without_place
from llm.dialects.json_text import with_usage_cost
from llm.dialects.money_fields import read_upstream_cost, without_money
from llm.dialects.openai_chat.fields import asked_service, find_routing_fields
from llm.dialects.reply_fields import loaded_reply, text_in
from llm.dialects.request_fields import checked_model, read_flag
from llm.dialects.strict_json import load_object
from llm.dialects.upstream_body import UpstreamBody
from llm.dialects.usage_figures import read_service
from llm.enums import Dialect
from llm.errors import GatewayError, UpstreamFailed
from llm.types import ChatRequest, ChatResponse, LimitState, Reading


class AnthropicMessages(UpstreamBody):
    """The `PassThrough` wire format of messages."""

    dialect = Dialect.ANTHROPIC_MESSAGES
    request_id_header = "request-id"
    duration_header = ""
    keepalive = b'event: ping\ndata: {"type": "ping"}\n\n'
    path = "/v1/messages"
    name = "messages (POST /v1/messages)"
    is_on_every_server = True

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        body = load_object(raw) if body is None else body
        REQUEST.refuse_other_cases(body)
        refuse_kept_at_provider(raw, body)
        is_stream = read_flag(body, "stream")
        return ParsedRequest(
            dialect=self.dialect,
            body=body,
            raw=raw,
            model=checked_model(body.get("model")),
            is_stream=is_stream,
            wants_stream_usage=is_stream,
            max_output_tokens=read_maximum(body),
            routing_fields=find_routing_fields(body),
            asked_service=asked_service(body),
            tool_meters=tool_meters(body),
            end_user=messages_end_user(body),
        )

    def to_chat(self, request: ParsedRequest, *, upstream_model: str) -> ChatRequest:
        return to_chat(request.body, model=upstream_model, max_tokens=request.max_output_tokens)

    def own_name(self, param: str, request: ParsedRequest) -> str:
        name = renamed(without_place(param, "messages"), _OWN_NAMES)
        return _PARAMETERS.sub(r"\1.input_schema", renamed_tool(name, "tools[{}]".format))

    def prompt_text(self, request: ParsedRequest) -> str:
        return prompt_text(request.body)

    def extent(self, request: ParsedRequest) -> Extent:
        return measure_extent(request.body, len(request.raw))

    def changes_for(self, request: ParsedRequest, server: Server) -> dict[str, Any]:
        return signed_messages(request.raw, request.body)

    def lowered_output(self, request: ParsedRequest, maximum: int, server: Server) -> dict[str, Any]:
        return lowered_output(request.body, maximum)

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        reply = _checked_reply(body, reply)
        uses = UsesOfTools(reply["content"])
        usage = uses.with_searches(reply.get("usage"))
        counts, absurd_usage = read_usage(usage)
        return Reading(
            counts=counts,
            absurd_usage=absurd_usage,
            model=text_in(reply, "model"),
            response_id=text_in(reply, "id"),
            service=read_service(reply, usage),
            is_final=True,
            upstream_cost=read_upstream_cost(reply),
            reports_tools=uses.are_reported,
        )

    def without_money(self, body: bytes) -> bytes:
        return without_money(body)

    def with_cost(self, body: bytes, cost: str) -> bytes:
        return with_usage_cost(body, cost)

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        return content_text(_checked_reply(body, reply)["content"])

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        return rendering.render_whole(response, request_id=request_id)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        return MessagesReader()

    def stream_writer(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> StreamWriter:
        return rendering.MessagesWriter(model=model, request_id=request_id)

    def render_error(self, error: GatewayError, *, request_id: str) -> Rendered:
        return anthropic_errors.render_error(error, request_id=request_id)

    def render_stream_error(self, error: GatewayError, *, request_id: str, origin: Origin) -> bytes:
        return anthropic_errors.render_stream_error(error, request_id=request_id, origin=origin)

    def limit_headers(self, limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
        return anthropic_errors.limit_headers(limits, now=now)


ANTHROPIC_MESSAGES = AnthropicMessages()

_OWN_NAMES: Names = (
    ("response_format.json_schema", "output_config.format"),
    ("response_format", "output_config.format"),
    ("reasoning_effort", "output_config.effort"),
    ("max_completion_tokens", "max_tokens"),
    ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
    ("stop", "stop_sequences"),
    ("user", "metadata.user_id"),
)
_PARAMETERS = re.compile(r"^(tools\[\d+\])\.parameters(?=\.|$)")


def _checked_reply(body: bytes, reply: Any) -> dict[str, Any]:
    reply = loaded_reply(body, reply)
    if isinstance(reply, dict) and isinstance(reply.get("content"), list) and not says_error(reply):
        return reply
    raise UpstreamFailed("The upstream sent a reply that is not a message.", may_have_worked=True)
