"""Which models a key may call."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from llm.api.serializers import ModelListSerializer, ModelSerializer
from llm.api.views import AsyncAPIView
from llm.catalog import PublicModel
from llm.errors import ModelNotFound
from llm.keys import Caller
from llm.runtime import runtime


class ModelsView(AsyncAPIView):
    @extend_schema(
        operation_id="models_list",
        summary="Models that this key may call",
        responses=ModelListSerializer,
        tags=["gateway"],
    )
    async def get(self, request: Request) -> HttpResponse:
        entries = [_entry(model) for model in await _visible_models(self.caller)]
        return _json({"object": "list", "data": entries})


class ModelView(AsyncAPIView):
    @extend_schema(operation_id="models_retrieve", summary="One model", responses=ModelSerializer, tags=["gateway"])
    async def get(self, request: Request, model: str) -> HttpResponse:
        for candidate in await _visible_models(self.caller):
            if candidate.id == model:
                return _json(_entry(candidate))
        raise ModelNotFound(f"The model “{model[:200]}” does not exist, or this key may not use it.", param="model")


async def _visible_models(caller: Caller) -> list[PublicModel]:
    catalog = await runtime().fresh_catalog()
    models = catalog.public_models(
        at=datetime.now(UTC), default_provider=settings.LLM_PROVIDER, default_model=settings.LLM_DEFAULT_MODEL
    )
    return [model for model in models if not caller.allowed_models or model.id in caller.allowed_models]


def _entry(model: PublicModel) -> dict[str, object]:
    return {"id": model.id, "object": "model", "created": int(model.created_at.timestamp()), "owned_by": model.owned_by}


def _json(content: object) -> HttpResponse:
    return HttpResponse(orjson.dumps(content), content_type="application/json")
