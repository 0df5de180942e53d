"""The endpoints that call models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request

from llm.api.body import lease_of, load_body
from llm.api.idempotency import build_claim, read_idempotency_key
from llm.api.serializers import (
    CALL_HEADERS,
    OPENAI_HEADERS,
    OPENAI_REFUSALS,
    ChatCompletionSerializer,
    NativeReplySerializer,
    NativeRequestSerializer,
)
from llm.api.views import AsyncAPIView, build_response, error_response
from llm.dialects.base import WireFormat
from llm.dialects.end_users import header_tags, join_tags
from llm.dialects.json_size import MAX_VALUES
from llm.dialects.native import NATIVE
from llm.dialects.openai_chat.wire import OPENAI_CHAT
from llm.errors import GatewayError, without_frames
from llm.service import LLMService

_TAGS = "HTTP_X_LLM_TAGS"
"""Django's name of our own header, which isn't sent to any upstream."""


class CompletionView(AsyncAPIView):
    """Parses the request, hands it to its task, and waits for the reply. A caller who leaves ends the waiting, not the
    task.

    max_values: how many values a request's JSON may hold.
    """

    opens_calls = True
    max_values: ClassVar[int] = MAX_VALUES
    forwarded: ClassVar[Mapping[str, str]] = {"openai-beta": "HTTP_OPENAI_BETA"}
    """Headers of the caller that are passed to an upstream of the same dialect, and Django's names for them."""

    async def post(self, request: Request) -> HttpResponseBase:
        raw, lease = request._request.body, lease_of(request._request)
        idempotency_key = read_idempotency_key(request._request)
        read = await load_body(raw, lease, max_values=self.max_values)
        meta = request._request.META
        tags = header_tags(meta.get(_TAGS, ""))
        parsed = self.wire.parse(raw, read.body)
        parsed = replace(parsed, members=read.members, tags=join_tags(tags, parsed.tags))
        forwarded = {name: meta[key] for name, key in self.forwarded.items() if key in meta}
        # A count costs nothing, so it may be repeated: it claims no key, and meets none.
        is_claimed = idempotency_key is not None and not parsed.is_count
        claim = await build_claim(idempotency_key or b"", request.path, raw) if is_claimed else None
        service = LLMService(self.caller)
        task = service.start(self.wire, parsed, forwarded_headers=forwarded, body_lease=lease, claim=claim)
        try:
            reply = await task.audience.wait()
        except GatewayError as error:
            response = error_response(error, self.wire, request_id=task.request_id)
            for name, value in task.headers.items():
                response[name] = value
            # Break the cycle: the task's future keeps the error, whose frames keep the task and the body.
            without_frames(error)
            return response
        return build_response(reply, self.wire, request_id=task.request_id)


class ChatCompletionsView(CompletionView):
    wire: ClassVar[WireFormat] = OPENAI_CHAT

    @extend_schema(
        operation_id="chat_completions",
        summary="Chat completion (OpenAI's API)",
        description=(
            "Every field of that API is accepted, whether the gateway knows it or not, and forwarded unchanged."
        ),
        parameters=OPENAI_HEADERS,
        request=ChatCompletionSerializer,
        responses={
            (200, "application/json"): OpenApiResponse({"type": "object"}, "The upstream's reply."),
            (200, "text/event-stream"): OpenApiResponse({"type": "string"}, "With `stream`: its chunks."),
            **OPENAI_REFUSALS,
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)


class NativeChatView(CompletionView):
    wire: ClassVar[WireFormat] = NATIVE

    @extend_schema(
        operation_id="chat",
        summary="Chat, in the gateway's own format",
        description="The same for every provider: takes messages, returns the reply, the model and its token counts.",
        parameters=CALL_HEADERS,
        request=NativeRequestSerializer,
        responses={
            (200, "application/json"): NativeReplySerializer,
            (200, "text/event-stream"): OpenApiResponse(
                {"type": "string"}, 'With `stream`: `{"delta"}` events, then one with `model` and `usage`.'
            ),
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)
