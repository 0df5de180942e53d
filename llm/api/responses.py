"""The endpoints of OpenAI's responses: a call creates one; later its account may fetch or delete it."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpResponse, HttpResponseBase
from django.utils.http import urlencode
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.request import Request

from llm.api.chat import CompletionView
from llm.api.serializers import (
    OPENAI_COUNTING_HEADERS,
    OPENAI_HEADERS,
    OPENAI_REFUSALS,
    CompactRequestSerializer,
    CountedInputTokensSerializer,
    InputTokensRequestSerializer,
    OpenAIErrorSerializer,
    ResponseSerializer,
)
from llm.api.views import AsyncAPIView
from llm.calls.kept_responses import ask_about
from llm.calls.runtime import runtime
from llm.dialects.base import WireFormat
from llm.dialects.openai_responses.compaction import COMPACT_RESPONSES
from llm.dialects.openai_responses.counting import COUNT_INPUT_TOKENS
from llm.dialects.openai_responses.wire import OPENAI_RESPONSES
from llm.errors import InvalidRequest

_KEPT: Any = {
    (200, "application/json"): OpenApiResponse({"type": "object"}, "The provider's reply."),
    404: OpenAIErrorSerializer,
}


class ResponsesView(CompletionView):
    wire: ClassVar[WireFormat] = OPENAI_RESPONSES

    @extend_schema(
        operation_id="responses_create",
        summary="Response (OpenAI's API)",
        description=(
            "For providers that offer this API themselves, requests and replies pass through unchanged; for others they"
            " are translated. Objects stored by the provider are refused by name, except for responses that the account"
            " created through this gateway."
        ),
        parameters=OPENAI_HEADERS,
        request=ResponseSerializer,
        responses={
            (200, "application/json"): OpenApiResponse({"type": "object"}, "The upstream's reply."),
            (200, "text/event-stream"): OpenApiResponse({"type": "string"}, "With `stream`: its typed events."),
            **OPENAI_REFUSALS,
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)


class CountInputTokensView(CompletionView):
    wire: ClassVar[WireFormat] = COUNT_INPUT_TOKENS

    @extend_schema(
        operation_id="responses_count_input_tokens",
        summary="Count the tokens of a response's input (OpenAI's API)",
        description="OpenAI and Anthropic count for their own models; for others the gateway estimates. It is free.",
        parameters=OPENAI_COUNTING_HEADERS,
        request=InputTokensRequestSerializer,
        responses={200: CountedInputTokensSerializer, **OPENAI_REFUSALS},
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)


class CompactResponsesView(CompletionView):
    wire: ClassVar[WireFormat] = COMPACT_RESPONSES

    @extend_schema(
        operation_id="responses_compact",
        summary="Compact a conversation (OpenAI's API)",
        description="For providers that have it. It is billed by its usage.",
        parameters=OPENAI_HEADERS,
        request=CompactRequestSerializer,
        responses={
            (200, "application/json"): OpenApiResponse({"type": "object"}, "The upstream's reply."),
            **OPENAI_REFUSALS,
        },
        tags=["gateway"],
    )
    async def post(self, request: Request) -> HttpResponseBase:
        return await super().post(request)


class KeptView(AsyncAPIView):
    """Requests about a stored response of the caller's account: passed through, without cost or a row on the books."""

    wire: ClassVar[WireFormat] = OPENAI_RESPONSES

    async def ask(self, response_id: str, method: str, rest: str = "") -> HttpResponse:
        query = self.request.query_params
        streams = [value for name in query if name.casefold() == "stream" for value in query.getlist(name)]
        if any(value.casefold() != "false" for value in streams):
            raise InvalidRequest("'stream' is not supported here: request the complete response.", param="stream")
        rest += f"?{urlencode(list(query.lists()), doseq=True)}" if query else ""
        body = await ask_about(runtime(), self.caller, response_id, method=method, rest=rest)
        return HttpResponse(body, content_type="application/json")


class ResponseView(KeptView):
    @extend_schema(operation_id="responses_retrieve", summary="A response", responses=_KEPT, tags=["gateway"])
    async def get(self, request: Request, response_id: str) -> HttpResponse:
        return await self.ask(response_id, "GET")

    @extend_schema(operation_id="responses_delete", summary="Delete a response", responses=_KEPT, tags=["gateway"])
    async def delete(self, request: Request, response_id: str) -> HttpResponse:
        return await self.ask(response_id, "DELETE")


class ResponseInputItemsView(KeptView):
    @extend_schema(
        operation_id="responses_input_items", summary="The input of a response", responses=_KEPT, tags=["gateway"]
    )
    async def get(self, request: Request, response_id: str) -> HttpResponse:
        return await self.ask(response_id, "GET", "/input_items")


class ResponseCancelView(KeptView):
    @extend_schema(
        operation_id="responses_cancel", summary="Cancel a response", request=None, responses=_KEPT, tags=["gateway"]
    )
    async def post(self, request: Request, response_id: str) -> HttpResponse:
        return await self.ask(response_id, "POST", "/cancel")
