"""The endpoint of OpenAI's older completions."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request

from llm.api.chat import CompletionView
from llm.api.serializers import OPENAI_HEADERS, OPENAI_REFUSALS, TextCompletionSerializer
from llm.dialects.base import WireFormat
from llm.dialects.json_size import MAX_TOKEN_VALUES
from llm.dialects.openai_completions.wire import OPENAI_COMPLETIONS


class TextCompletionsView(CompletionView):
    wire: ClassVar[WireFormat] = OPENAI_COMPLETIONS
    max_values = MAX_TOKEN_VALUES

    @extend_schema(
        operation_id="completions",
        summary="Text completion (OpenAI's older API)",
        description="For providers that offer this API themselves: requests and replies pass through unchanged.",
        parameters=OPENAI_HEADERS,
        request=TextCompletionSerializer,
        responses={
            (200, "application/json"): OpenApiResponse({"type": "object"}, "The upstream's reply."),
            (200, "text/event-stream"): OpenApiResponse({"type": "string"}, "With `stream`: its chunks."),
            **OPENAI_REFUSALS,
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)
