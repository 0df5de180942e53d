"""Anthropic's endpoints."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request

from llm.api.chat import CompletionView
from llm.api.serializers import (
    ANTHROPIC_COUNTING_HEADERS,
    ANTHROPIC_HEADERS,
    ANTHROPIC_REFUSALS,
    CountedTokensSerializer,
    CountTokensRequestSerializer,
    MessagesRequestSerializer,
)
from llm.dialects.anthropic_messages.counting import COUNT_TOKENS
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import WireFormat


class AnthropicView(CompletionView):
    wire: ClassVar[WireFormat] = ANTHROPIC_MESSAGES
    forwarded = {"anthropic-beta": "HTTP_ANTHROPIC_BETA", "anthropic-version": "HTTP_ANTHROPIC_VERSION"}


class MessagesView(AnthropicView):
    @extend_schema(
        operation_id="messages",
        summary="Message (Anthropic's API)",
        description=(
            "Every field of that API is accepted, whether the gateway knows it or not, and forwarded unchanged, "
            "except for ids of objects stored by the provider."
        ),
        parameters=ANTHROPIC_HEADERS,
        request=MessagesRequestSerializer,
        responses={
            (200, "application/json"): OpenApiResponse({"type": "object"}, "The upstream's reply."),
            (200, "text/event-stream"): OpenApiResponse({"type": "string"}, "With `stream`: its events."),
            **ANTHROPIC_REFUSALS,
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)


class CountTokensView(AnthropicView):
    wire: ClassVar[WireFormat] = COUNT_TOKENS

    @extend_schema(
        operation_id="messages_count_tokens",
        summary="Count the tokens of a message (Anthropic's API)",
        description="Anthropic and OpenAI count for their own models; for others the gateway estimates. It is free.",
        parameters=ANTHROPIC_COUNTING_HEADERS,
        request=CountTokensRequestSerializer,
        responses={
            200: CountedTokensSerializer,
            **ANTHROPIC_REFUSALS,
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)
