"""The endpoints that call models."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request

from llm.api.body import lease_of, load_body
from llm.api.serializers import (
    ChatCompletionSerializer,
    NativeReplySerializer,
    NativeRequestSerializer,
    OpenAIErrorSerializer,
)
from llm.api.views import AsyncAPIView, error_response, response_of
from llm.dialects.base import WireFormat
from llm.dialects.native import NATIVE
from llm.dialects.openai_chat import OPENAI_CHAT
from llm.errors import GatewayError
from llm.service import LLMService

# Headers of the caller that an upstream of the same dialect gets too, and Django's names for them.
_FORWARDED = {"openai-beta": "HTTP_OPENAI_BETA"}


class CallView(AsyncAPIView):
    """Parse, hand to the request's task, wait for its reply. A caller who leaves ends the waiting, not the task."""

    opens_calls = True

    async def post(self, request: Request) -> HttpResponseBase:
        raw, lease = request._request.body, lease_of(request._request)
        parsed = self.wire.parse(raw, await load_body(raw, lease))
        meta = request._request.META
        forwarded = {name: meta[key] for name, key in _FORWARDED.items() if key in meta}
        task = LLMService(self.caller).start(self.wire, parsed, forwarded_headers=forwarded, body_lease=lease)
        try:
            reply = await asyncio.shield(task.audience.reply)
        except GatewayError as error:
            response = error_response(error, self.wire, request_id=task.request_id)
            for name, value in task.headers.items():
                response[name] = value
            return response
        except asyncio.CancelledError:
            task.audience.leave()
            raise
        return response_of(reply, request_id=task.request_id)


class ChatCompletionsView(CallView):
    wire: ClassVar[WireFormat] = OPENAI_CHAT

    @extend_schema(
        operation_id="chat_completions",
        summary="Chat completion, as OpenAI's API",
        description="Every field of that API is taken, known to us or not, and goes to the upstream as it is.",
        request=ChatCompletionSerializer,
        responses={
            (200, "application/json"): OpenApiResponse({"type": "object"}, "The upstream's reply."),
            (200, "text/event-stream"): OpenApiResponse({"type": "string"}, "With `stream`: its chunks."),
            400: OpenAIErrorSerializer,
            401: OpenAIErrorSerializer,
            429: OpenAIErrorSerializer,
            502: OpenAIErrorSerializer,
            503: OpenAIErrorSerializer,
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)


class NativeChatView(CallView):
    wire: ClassVar[WireFormat] = NATIVE

    @extend_schema(
        operation_id="chat",
        summary="Chat, in the gateway's own format",
        description="The same for every provider: messages in, the reply, the model and its tokens out.",
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
