"""Which models a key may call."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from llm.api.auth import Headers
from llm.api.model_pages import model_object, page_object
from llm.api.serializers import ModelListSerializer, ModelPageSerializer, ModelSerializer
from llm.api.views import AsyncAPIView
from llm.calls.runtime import runtime
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import WireFormat
from llm.errors import ModelNotFound
from llm.keys import Caller
from llm.prices.catalog import PublicModel
from llm.providers.registry import default_instance, is_configured

_IN_ANTHROPICS_SHAPE = "With the header `anthropic-version`, the reply has the shape and paging of Anthropic's API."


class _ModelsAPIView(AsyncAPIView):
    """The header that only Anthropic's clients send decides which of the two shapes it answers in."""

    @classmethod
    def wire_for(cls, headers: Headers) -> WireFormat:
        return ANTHROPIC_MESSAGES if any(name == b"anthropic-version" for name, _ in headers) else cls.wire


class ModelsView(_ModelsAPIView):
    @extend_schema(
        operation_id="models_list",
        summary="Models that this key may call",
        description=_IN_ANTHROPICS_SHAPE,
        parameters=[ModelPageSerializer],
        responses=ModelListSerializer,
        tags=["gateway"],
    )
    async def get(self, request: Request) -> HttpResponse:
        models = await _visible_models(self.caller)
        if _is_from_anthropics_client(request):
            return _json(page_object(models, request.query_params))
        return _json({"object": "list", "data": [_entry(model) for model in models]})


class ModelView(_ModelsAPIView):
    @extend_schema(
        operation_id="models_retrieve",
        summary="One model",
        description=_IN_ANTHROPICS_SHAPE,
        responses=ModelSerializer,
        tags=["gateway"],
    )
    async def get(self, request: Request, model: str) -> HttpResponse:
        for candidate in await _visible_models(self.caller):
            if candidate.id == model:
                return _json(model_object(candidate) if _is_from_anthropics_client(request) else _entry(candidate))
        raise ModelNotFound(f"The model “{model[:200]}” does not exist, or this key may not use it.", param="model")


async def _visible_models(caller: Caller) -> list[PublicModel]:
    catalog = await runtime().fresh_catalog()
    provider = default_instance().booked_as
    models = catalog.public_models(
        at=datetime.now(UTC),
        default_provider=provider,
        default_model=settings.LLM_DEFAULT_MODEL,
        can_call=is_configured,
    )
    return [model for model in models if not caller.allowed_models or model.id in caller.allowed_models]


def _is_from_anthropics_client(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _entry(model: PublicModel) -> dict[str, object]:
    return {"id": model.id, "object": "model", "created": int(model.created_at.timestamp()), "owned_by": model.owned_by}


def _json(content: object) -> HttpResponse:
    return HttpResponse(orjson.dumps(content), content_type="application/json")
