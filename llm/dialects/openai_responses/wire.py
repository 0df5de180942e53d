"""OpenAI's responses: `POST /v1/responses`, passed through to servers that have them, translated for others.

A request is validated only as far as the gateway depends on it: what would make the books wrong, and stored objects
that may be another account's. Everything else, including unknown fields, is up to the upstream.
"""

from __future__ import annotations

from typing import Any

import orjson

from llm.dialects.base import Extent, Origin, ParsedRequest, Server, StreamReader, StreamWriter
from llm.dialects.end_users import metadata_tags, openai_end_user
from llm.dialects.field_names import Names, renamed, renamed_tool, without_place
from llm.dialects.money_fields import read_upstream_cost
from llm.dialects.openai_chat.dialect import OpenAIDialect
from llm.dialects.openai_chat.errors import stream_error_object
from llm.dialects.openai_chat.fields import asked_service, find_routing_fields
from llm.dialects.openai_chat.output import RESPONSE_MAXIMA, lowered_output, read_output
from llm.dialects.openai_responses import rendering
from llm.dialects.openai_responses.extent import measure_extent, tool_meters
from llm.dialects.openai_responses.fields import (
    REQUEST,
    kept_responses,
    refuse_kept_by_name,
    refuse_misdirected,
)
from llm.dialects.openai_responses.stream import OpenAIResponsesReader, is_account_failure
from llm.dialects.openai_responses.text import output_text, prompt_text
from llm.dialects.openai_responses.thinking import changed_input
from llm.dialects.openai_responses.tools import places_of_functions
from llm.dialects.openai_responses.translation import to_chat
from llm.dialects.openai_responses.usage import read_usage
from llm.dialects.reply_fields import loaded_reply, text_in
from llm.dialects.request_fields import checked_model, read_flag
from llm.dialects.strict_json import load_object
from llm.dialects.usage_figures import read_service
from llm.enums import Dialect
from llm.errors import GatewayError, UpstreamFailed
from llm.types import ChatRequest, ChatResponse, Reading


class ResponsesPassThrough(OpenAIDialect):
    """The `PassThrough` wire format of responses, without its translation."""

    dialect = Dialect.OPENAI_RESPONSES
    path = "/responses"
    name = "responses (POST /v1/responses)"
    stores_by_default = True
    """Whether a provider keeps what is made here if nothing is said of it."""

    def parse(self, raw: bytes, body: dict[str, Any] | None = None) -> ParsedRequest:
        body = load_object(raw) if body is None else body
        REQUEST.refuse_other_cases(body)
        refuse_misdirected(body)
        refuse_kept_by_name(raw, body)
        output = read_output(body, RESPONSE_MAXIMA)
        return ParsedRequest(
            dialect=self.dialect,
            body=body,
            raw=raw,
            model=checked_model(body.get("model")),
            is_stream=read_flag(body, "stream"),
            max_output_tokens=output.maximum,
            thinking_tokens=output.thinking,
            choices=output.choices,
            routing_fields=find_routing_fields(body),
            asked_service=asked_service(body),
            tool_meters=tool_meters(body),
            kept_responses=kept_responses(body),
            end_user=openai_end_user(body),
            tags=metadata_tags(body),
        )

    def prompt_text(self, request: ParsedRequest) -> str:
        return prompt_text(request.body)

    def extent(self, request: ParsedRequest) -> Extent:
        return measure_extent(request.body, len(request.raw))

    def changes_for(self, request: ParsedRequest, server: Server) -> dict[str, Any]:
        changes = changed_input(request.raw, request.body)
        if request.forbids_storage and self.stores_by_default and request.body.get("store") is None:
            changes["store"] = False
        return changes

    def lowered_output(self, request: ParsedRequest, maximum: int, server: Server) -> dict[str, Any]:
        [[field]] = RESPONSE_MAXIMA
        return lowered_output(request.body, maximum, field, RESPONSE_MAXIMA)

    def read_whole(self, body: bytes, reply: Any = None) -> Reading:
        reply = checked_reply(body, reply)
        usage = read_usage(reply)
        return Reading(
            counts=usage.counts,
            absurd_usage=usage.absurd,
            model=text_in(reply, "model"),
            response_id=text_in(reply, "id"),
            service=read_service(reply, reply.get("usage")),
            is_final=True,
            upstream_cost=read_upstream_cost(reply),
            reports_tools=usage.reports_tools,
        )

    def whole_text(self, body: bytes, reply: Any = None) -> str:
        return output_text(checked_reply(body, reply)["output"])

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        return OpenAIResponsesReader()

    def render_stream_error(self, error: GatewayError, *, request_id: str, origin: Origin) -> bytes:
        """In the documented form, and with a nested `error`, which OpenAI sends and its SDK looks for."""
        inner = stream_error_object(error, origin)
        event = {"type": "error", "code": inner["code"], "message": inner["message"], "param": inner["param"]}
        return b"event: error\ndata: " + orjson.dumps({**event, "sequence_number": 0, "error": inner}) + b"\n\n"


class OpenAIResponses(ResponsesPassThrough):
    """With what callers of models of other providers need."""

    def to_chat(self, request: ParsedRequest, *, upstream_model: str) -> ChatRequest:
        return to_chat(request.body, model=upstream_model)

    def own_name(self, param: str, request: ParsedRequest) -> str:
        places = places_of_functions(request.body)
        name = renamed(without_place(param, "input"), _OWN_NAMES)
        return renamed_tool(name, lambda index: places[index] if index < len(places) else f"tools[{index}]")

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        return rendering.render_whole(response, request.body, request_id=request_id, created=created)

    def stream_writer(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> StreamWriter:
        return rendering.OpenAIResponsesWriter(request, model=model, request_id=request_id, created=created)


OPENAI_RESPONSES = OpenAIResponses()

_OWN_NAMES: Names = (
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    ("max_completion_tokens", "max_output_tokens"),
    ("max_tokens", "max_output_tokens"),
)


def checked_reply(body: bytes, reply: Any) -> dict[str, Any]:
    """Raises UpstreamFailed for what has no output, or is about the gateway's own account."""
    reply = loaded_reply(body, reply)
    if isinstance(reply, dict) and isinstance(reply.get("output"), list) and not is_account_failure(reply):
        return reply
    raise UpstreamFailed("The upstream sent a reply that is not a response.", may_have_worked=True)
