"""The endpoint of embeddings."""

from __future__ import annotations

from typing import ClassVar

from django.http import HttpResponseBase
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request

from llm.api.chat import CompletionView
from llm.api.serializers import OPENAI_HEADERS, OPENAI_REFUSALS, EmbeddingsSerializer
from llm.dialects.base import WireFormat
from llm.dialects.json_size import MAX_TOKEN_VALUES
from llm.dialects.openai_embeddings.wire import OPENAI_EMBEDDINGS


class EmbeddingsView(CompletionView):
    wire: ClassVar[WireFormat] = OPENAI_EMBEDDINGS
    max_values = MAX_TOKEN_VALUES

    @extend_schema(
        operation_id="embeddings",
        summary="Embeddings (OpenAI's API)",
        description="For providers that offer embeddings themselves: requests and replies pass through unchanged.",
        parameters=OPENAI_HEADERS,
        request=EmbeddingsSerializer,
        responses={
            (200, "application/json"): OpenApiResponse({"type": "object"}, "The upstream's reply."),
            **OPENAI_REFUSALS,
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)
