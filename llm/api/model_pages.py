"""The list of models in the form of Anthropic's clients, page by page.

Source, read 2026-11: anthropic 2.12, `types/model_info.py`, `types/model_list_params.py`, `pagination.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llm.dialects.anthropic_messages.errors import rfc_3339
from llm.errors import InvalidRequest
from llm.prices.catalog import PublicModel

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000


class Page(NamedTuple):
    """has_more: in the direction in which the caller goes."""

    models: Sequence[PublicModel]
    has_more: bool


def read_page(models: Sequence[PublicModel], query: Mapping[str, str]) -> Page:
    """models: all of them, in their order. query: `limit`, and one of `after_id` and `before_id`.

    Raises InvalidRequest.
    """
    limit = _limit_of(query.get("limit"))
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise InvalidRequest("Set 'after_id' or 'before_id', not both.", param="before_id")
    if before:
        end = _position(models, before, param="before_id")
        return Page(models[max(0, end - limit) : end], end > limit)
    start = _position(models, after, param="after_id") + 1 if after else 0
    return Page(models[start : start + limit], start + limit < len(models))


def page_object(page: Page, maxima: Mapping[str, int | None]) -> dict[str, object]:
    """maxima: of the output of each model, by its id."""
    models = page.models
    return {
        "data": [model_object(model, maxima[model.id]) for model in models],
        "has_more": page.has_more,
        "first_id": models[0].id if models else None,
        "last_id": models[-1].id if models else None,
    }


def model_object(model: PublicModel, output_maximum: int | None) -> dict[str, object]:
    """What the gateway knows of a model; null is what it doesn't."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": rfc_3339(model.created_at),
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "capabilities": None,
        "max_input_tokens": model.context_length,
        "max_tokens": output_maximum,
    }


def _limit_of(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT)) else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"'limit' must be an integer from 1 to {MAX_LIMIT}.", param="limit")
    return limit


def _position(models: Sequence[PublicModel], model_id: str, *, param: str) -> int:
    position = next((index for index, model in enumerate(models) if model.id == model_id), None)
    if position is None:
        raise InvalidRequest(f"'{param}' is not the id of a model in this list.", param=param)
    return position
