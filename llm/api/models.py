"""Which models a key may call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson
from django.conf import settings
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from llm.api.auth import Headers
from llm.api.model_pages import model_object, page_object, read_page
from llm.api.serializers import ModelListSerializer, ModelPageSerializer, ModelSerializer
from llm.api.views import AsyncAPIView
from llm.calls.runtime import runtime
from llm.dialects.anthropic_messages.wire import ANTHROPIC_MESSAGES
from llm.dialects.base import WireFormat
from llm.errors import ModelNotFound
from llm.keys import Caller
from llm.prices.catalog import PublicModel, TargetName
from llm.providers.base import KnowsOutputMaximum
from llm.providers.output_maxima import stated_maximum
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
            page = read_page(models, request.query_params)
            return _json(page_object(page, await _find_maxima(page.models)))
        maxima = await _find_maxima(models)
        return _json({"object": "list", "data": [_entry(model, maxima[model.id]) for model in models]})


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
                maximum = (await _find_maxima([candidate]))[model]
                shape = model_object if _is_from_anthropics_client(request) else _entry
                return _json(shape(candidate, maximum))
        raise ModelNotFound(f"The model “{model[:200]}” does not exist, or this key may not use it.", param="model")


async def _visible_models(caller: Caller) -> list[PublicModel]:
    catalog = await runtime().fresh_catalog()
    default = default_instance()
    return catalog.public_models(
        at=datetime.now(UTC),
        default_provider=default.booked_as,
        default_instance=default.name,
        default_model=settings.LLM_DEFAULT_MODEL,
        can_call=is_configured,
        allowed=caller.allowed_models,
    )


async def _find_maxima(models: Sequence[PublicModel]) -> dict[str, int | None]:
    """How much each of the models may write, by its id: what the least of its targets may; None where nobody knows."""
    maxima = await asyncio.gather(*(_find_maximum(model) for model in models))
    return {model.id: maximum for model, maximum in zip(models, maxima, strict=True)}


async def _find_maximum(model: PublicModel) -> int | None:
    maxima = [await _find_maximum_of_target(target) for target in model.targets]
    return min((maximum for maximum in maxima if maximum is not None), default=None)


async def _find_maximum_of_target(target: TargetName) -> int | None:
    instance = target.instance or target.provider
    if is_configured(instance):
        provider = runtime().provider(instance)
        if isinstance(provider, KnowsOutputMaximum):
            return await provider.find_output_maximum(target.upstream_model)
    return stated_maximum(instance, target.upstream_model)


def _is_from_anthropics_client(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _entry(model: PublicModel, output_maximum: int | None) -> dict[str, object]:
    """OpenAI's members, and what the gateway knows beside them under the names that other servers have for it."""
    known = {"context_length": model.context_length, "max_output_tokens": output_maximum}
    return {
        "id": model.id,
        "object": "model",
        "created": int(model.created_at.timestamp()),
        "owned_by": model.owned_by,
        **{name: tokens for name, tokens in known.items() if tokens is not None},
    }


def _json(content: object) -> HttpResponse:
    return HttpResponse(orjson.dumps(content), content_type="application/json")
