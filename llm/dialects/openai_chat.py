"""OpenAI's Chat Completions: `POST /v1/chat/completions`, also spoken by every OpenAI-compatible server.

A request is checked only as far as the gateway depends on it. Whatever else it holds, unknown fields included, is the
upstream's to judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from llm.dialects import openai_chat_render, openai_errors
from llm.dialects.base import Extent, ParsedRequest, Reading, Rendered, StreamReader, StreamWriter
from llm.dialects.json_text import with_members, with_usage_cost
from llm.dialects.money_fields import upstream_cost_of, without_money
from llm.dialects.openai_chat_extent import extent_of
from llm.dialects.openai_chat_fields import REQUEST, asked_service, routing_fields_of
from llm.dialects.openai_chat_stream import OpenAIChatReader
from llm.dialects.openai_chat_text import message_text, prompt_text
from llm.dialects.openai_chat_translate import to_chat
from llm.dialects.openai_usage import read_usage
from llm.dialects.strict_json import load_object
from llm.dialects.usage_figures import service_of
from llm.enums import Dialect
from llm.errors import GatewayError, InvalidRequest, UpstreamFailed
from llm.types import ChatRequest, ChatResponse, LimitState

MAX_MODEL_CHARACTERS = 200
MAX_CHOICES = 128

_MAXIMUM_FIELDS = ("max_completion_tokens", "max_tokens")
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class OpenAIChat:
    """The `PassThrough` wire format of chat completions."""

    dialect = Dialect.OPENAI_CHAT
    path = "/chat/completions"

    def parse(self, raw: bytes) -> ParsedRequest:
        body = load_object(raw)
        REQUEST.refuse_other_cases(body)
        check_messages(body.get("messages"))
        is_stream = _flag(body, "stream")
        return ParsedRequest(
            dialect=self.dialect,
            body=body,
            raw=raw,
            model=checked_model(body.get("model")),
            is_stream=is_stream,
            wants_stream_usage=is_stream and _stream_options(body).get("include_usage") is True,
            max_output_tokens=_maximum(body),
            choices=_whole_number(body, "n", maximum=MAX_CHOICES) or 1,
            routing_fields=routing_fields_of(body),
            asked_service=asked_service(body),
        )

    def to_chat(self, request: ParsedRequest, *, upstream_model: str) -> ChatRequest:
        return to_chat(request.body, model=upstream_model)

    def prompt_text(self, request: ParsedRequest) -> str:
        return prompt_text(request.body)

    def extent(self, request: ParsedRequest) -> Extent:
        return extent_of(request.body, len(request.raw))

    def upstream_body(
        self,
        request: ParsedRequest,
        *,
        upstream_model: str,
        max_output_tokens: int | None = None,
        maximum_field: str = _MAXIMUM_FIELDS[0],
    ) -> bytes:
        changes: dict[str, Any] = {}
        if request.body.get("model") != upstream_model:
            changes["model"] = upstream_model
        if request.is_stream and not request.wants_stream_usage:
            changes["stream_options"] = {**_stream_options(request.body), "include_usage": True}
        if max_output_tokens is not None:
            changes |= _lowered_maximum(request.body, max_output_tokens, maximum_field)
        if not changes:
            return request.raw
        if request.body.keys().isdisjoint(changes):
            return with_members(request.raw, changes)
        return orjson.dumps({**request.body, **changes})

    def read_whole(self, body: bytes) -> Reading:
        reply = _reply(body)
        counts, absurd_usage = read_usage(reply.get("usage"))
        return Reading(
            counts=counts,
            absurd_usage=absurd_usage,
            model=_text(reply, "model"),
            response_id=_text(reply, "id"),
            service=service_of(reply, reply.get("usage")),
            is_final=True,
            upstream_cost=upstream_cost_of(reply),
        )

    def without_money(self, body: bytes) -> bytes:
        return without_money(body)

    def with_cost(self, body: bytes, cost: str) -> bytes:
        return with_usage_cost(body, cost)

    def whole_text(self, body: bytes) -> str:
        choices = _reply(body)["choices"]
        return "".join(message_text(choice.get("message")) for choice in choices if isinstance(choice, dict))

    def render_whole(self, response: ChatResponse, request: ParsedRequest, *, request_id: str, created: int) -> bytes:
        return openai_chat_render.render_whole(response, request.body, request_id=request_id, created=created)

    def stream_reader(self, request: ParsedRequest) -> StreamReader:
        return OpenAIChatReader(wants_usage=request.wants_stream_usage)

    def stream_writer(self, request: ParsedRequest, *, model: str, request_id: str, created: int) -> StreamWriter:
        return openai_chat_render.OpenAIChatWriter(request, model=model, request_id=request_id, created=created)

    def render_error(self, error: GatewayError, *, request_id: str) -> Rendered:
        return openai_errors.render_error(error)

    def render_stream_error(self, error: GatewayError, *, request_id: str) -> bytes:
        return openai_errors.render_stream_error(error)

    def limit_headers(self, limits: Sequence[LimitState], *, now: datetime) -> dict[str, str]:
        return openai_errors.limit_headers(limits, now=now)


OPENAI_CHAT = OpenAIChat()


def check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a list of at least one message.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest("Each message must be an object.", param=f"messages[{index}]")
        if not isinstance(message.get("role"), str):
            raise InvalidRequest("Each message needs a 'role', a string.", param=f"messages[{index}].role")


def checked_model(model: Any) -> str:
    """The name asked for, "" where none is."""
    if model is None:
        return ""
    if not isinstance(model, str) or not model:
        raise InvalidRequest("'model' must be the name of a model.", param="model")
    if len(model) > MAX_MODEL_CHARACTERS:
        raise InvalidRequest(f"'model' is longer than {MAX_MODEL_CHARACTERS} characters.", param="model")
    if _CONTROL_CHARACTER.search(model):
        raise InvalidRequest("'model' contains a control character.", param="model")
    return model


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequest(f"'{name}' must be true or false.", param=name)


def _stream_options(body: Mapping[str, Any]) -> Mapping[str, Any]:
    options = body.get("stream_options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise InvalidRequest("'stream_options' must be an object.", param="stream_options")
    return options


def _maximum(body: Mapping[str, Any]) -> int | None:
    """Of two names the larger value: a bound must hold whichever of them the upstream reads."""
    values = [_whole_number(body, name) for name in _MAXIMUM_FIELDS]
    return max((value for value in values if value is not None), default=None)


def _lowered_maximum(body: Mapping[str, Any], maximum: int, field: str) -> dict[str, int]:
    given = {name: body[name] for name in _MAXIMUM_FIELDS if body.get(name) is not None}
    if not given:
        return {field: maximum}
    return {name: maximum for name, value in given.items() if value > maximum}


def _whole_number(body: Mapping[str, Any], name: str, *, maximum: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or value < 1 or (maximum is not None and value > maximum):
        bounds = f"from 1 to {maximum}" if maximum else "of at least 1"
        raise InvalidRequest(f"'{name}' must be a whole number {bounds}.", param=name)
    return value


def _reply(body: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        reply = None
    if isinstance(reply, dict) and isinstance(reply.get("choices"), list):
        return reply
    raise UpstreamFailed("The upstream sent a reply that is not a chat completion.", may_have_worked=True)


def _text(source: Mapping[str, Any], name: str) -> str:
    value = source.get(name)
    return value if isinstance(value, str) else ""
